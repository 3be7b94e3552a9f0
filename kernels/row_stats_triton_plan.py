"""Which kernel computes the statistics of a softmax, and how it is cut: a pure function of shape, strides and scores.

Never of the number of rows, and never by timing in the process: a row's bits must not depend on either. The strides
count because they say how wide a load may be, and that decides which thread adds up which classes. (With C <= 16 and
for the prediction of which loads are possible see the kernels' own texts.)
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from poolscore.kernels.row_stats_triton_one_pass import softmax_one_pass
from poolscore.kernels.row_stats_triton_two_phase import softmax_two_phase

if TYPE_CHECKING:
    from torch import Tensor

NARROW = 16  # up to here a thread holds all classes of its row
SHARED_WARP = 512  # up to here several rows share a warp's lanes, 16 classes a lane
ONE_PROGRAM = 8192  # up to here a program holds all classes of its row, 32 a lane
THREADS = 128
SLICE_CLASSES = 16384  # of one task of the first phase
TILE_CLASSES = 16  # a thread's classes at a time in the two-phase kernel


@dataclass(frozen=True)
class Strides:
    """Where logits [N, T, C] lie in their storage, in elements; the stride of a dimension of size 1 is 0."""

    offset: int
    n: int
    t: int
    c: int
    itemsize: int

    @classmethod
    def of(cls, logits_NTC: Tensor) -> Strides:
        """The strides of a tensor."""
        n, t, c = (int(s) if size > 1 else 0 for s, size in zip(logits_NTC.stride(), logits_NTC.shape, strict=True))
        return cls(int(logits_NTC.storage_offset()), n, t, c if logits_NTC.shape[2] > 1 else 1, logits_NTC.itemsize)

    def vector(self, *steps: int) -> int:
        """How many elements one load may take if it starts at a row's start plus any of the steps."""
        if self.c != 1:
            return 1
        return math.gcd(16 // self.itemsize, self.offset, self.n, *steps)


@dataclass(frozen=True)
class Plan:
    """A kernel with its compile-time constants. `rows`: of one program; 0 where the kernel hands out tasks itself."""

    kernel: Any
    constants: dict[str, int]
    num_warps: int
    rows: int


def softmax_plan(T: int, C: int, strides: Strides, want: Collection[str]) -> Plan:
    """The kernel for logits [any N, T, C] and the scores in `want`."""
    flags = {
        "WANT_ENTROPY": bool({"entropy", "bald"} & set(want)),
        "WANT_EXPECTED": bool({"expected_entropy", "bald"} & set(want)),
        "WANT_STD": "mean_std" in want,
        "WANT_VOTES": "variation_ratio" in want,
    }
    constants = {"T": T, "C": C, "UNIT": strides.c == 1} | flags
    if C > ONE_PROGRAM:
        return _two_phases(constants, T, C, strides.vector(strides.t))
    if C <= NARROW:
        U, V = _joined_passes(T, C, strides)
        R, B, num_warps = THREADS, 1, THREADS // 32
    else:
        lanes = _next_power_of_2(-(-C // (16 if C <= SHARED_WARP else 32)))
        U, V = 1, _least_work(C, lanes, strides.vector(strides.t))
        R, num_warps = (THREADS // lanes, THREADS // 32) if C <= SHARED_WARP else (1, lanes // 32)
        B = lanes * V
    constants |= {"R": R, "U": U, "B": B, "K": -(-C // B), "V": V}
    constants["LIST_VOTES"] = flags["WANT_VOTES"] and C > NARROW and (R == 1 or T <= 64)
    return Plan(softmax_one_pass, constants, num_warps, R)


def _joined_passes(T: int, C: int, strides: Strides) -> tuple[int, int]:
    """Passes read at once and the width of the loads: passes that follow one another make wider loads possible."""
    joined = strides.c == 1 and strides.t == C
    options = [U for U in (1, 2, 4, 8) if T % U == 0 and U * C <= 64 and (U == 1 or joined)]
    vector = {U: strides.vector(U * C, U * strides.t) for U in options}
    U = max(options, key=lambda U: (vector[U], -U))
    return U, vector[U]


def _least_work(C: int, lanes: int, vector: int) -> int:
    """The width of the loads that costs least: wide ones are fewer, narrow ones fit C with fewer classes to spare."""
    widths = [1 << i for i in range(vector.bit_length())]
    return min(widths, key=lambda V: (-(-C // (lanes * V)) * (10 * V + 4), -V))


def _two_phases(constants: dict[str, int], T: int, C: int, V: int) -> Plan:
    K = TILE_CLASSES // V
    tile = THREADS * TILE_CLASSES
    slices = -(-C // SLICE_CLASSES)
    SLICE = -(-C // (slices * tile)) * tile
    constants |= {"S": -(-C // SLICE), "SLICE": SLICE, "NB": -(-C // tile), "P": THREADS, "V": V, "K": K}
    return Plan(softmax_two_phase, constants, THREADS // 32, 0)


def _next_power_of_2(n: int) -> int:
    return 1 << (n - 1).bit_length()
