"""The parts of `make gpu`: one file for each theme, and the list of all of them in `listed.py`."""
