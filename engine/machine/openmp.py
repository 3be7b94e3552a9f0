"""The threads that torch computes with on a CPU, which OpenMP keeps for whoever called it, each caller its own.

While one caller has them, they wait awake for its next call, which comes in microseconds. As soon as all pools together
have more threads than there are cores, libgomp lets every thread sleep soon (gomp_managed_threads in its
config/linux/wait.h). Waking them costs small networks a quarter of their rate.
"""

from __future__ import annotations

import ctypes

_SOFT = 1  # omp_pause_soft of OpenMP 5.0


def end_own_pool() -> None:
    """End the pool of the calling thread, which is not to call torch while another thread does; it gets a new one if it
    calls. So with libgomp; other libraries may end more pools, and one older than OpenMP 5.0 ends none."""
    pause = getattr(ctypes.CDLL(None), "omp_pause_resource_all", None)
    if pause is not None:
        pause(_SOFT)
