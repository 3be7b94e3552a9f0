"""The machine: its cores and memory, how the workers on it share them, and how the allocator keeps memory."""
