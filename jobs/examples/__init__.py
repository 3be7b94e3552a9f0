"""The Python interface in three examples, written as notebooks are: each `# %%` begins a cell."""
