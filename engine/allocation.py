"""Memory of large temporaries, on a CPU: kept, not given back to the system after every call and faulted in again.

glibc serves large blocks by mmap and returns them when they are freed; a convolution's output then costs a page fault
for each 4 KiB, batch after batch: as much time as the arithmetic of a small network.
"""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
KEPT = 1 << 30  # bytes


def keep_freed_memory() -> None:
    """Let this process keep up to 1 GiB of freed memory for the next batch. Does nothing without glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, KEPT)
        mallopt(M_TRIM_THRESHOLD, KEPT)
