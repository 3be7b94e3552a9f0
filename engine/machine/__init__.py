"""The machine: its cores and memory, how its workers share them, and what allocator and OpenMP keep."""
