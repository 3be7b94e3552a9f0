"""What glibc does with memory that is freed: too little is kept for the next batch, too much by each thread.

Large blocks are served by mmap and returned when they are freed; a convolution's output on a CPU then costs a page
fault for each 4 KiB, batch after batch: as much time as the arithmetic of a small network. Small ones come from arenas,
one for each of the first threads, 8 for each core; each keeps what is freed in it. Dozens of threads that fetch and
decode grow a worker by hundreds of megabytes in this way.
"""

from __future__ import annotations

import ctypes
from functools import cache

from poolscore.engine.machine.cores import usable_cores

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # malloc.h
KEPT = 1 << 30  # bytes
CORES_PER_ARENA, LEAST_ARENAS = 4, 2


def keep_freed_memory() -> None:
    """Let this process keep up to 1 GiB of freed memory for the next batch. Does nothing without glibc."""
    _set(M_MMAP_THRESHOLD, KEPT)
    _set(M_TRIM_THRESHOLD, KEPT)


@cache
def share_arenas() -> None:
    """Let the threads of this process share a few arenas; to be called before many are started. Does nothing without
    glibc."""
    _set(M_ARENA_MAX, max(LEAST_ARENAS, usable_cores() // CORES_PER_ARENA))


def _set(parameter: int, value: int) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(parameter, value)
