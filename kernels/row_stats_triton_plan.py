"""Which kernel computes the row statistics, and how it is cut: a pure function of shape, strides and wanted scores.

Never of the number of rows, and never by timing in the process: a row's bits must depend on neither. Strides count
because they say how wide a load may be, and that decides which thread adds up which classes.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from poolscore.kernels.row_stats_triton_bernoulli import bernoulli
from poolscore.kernels.row_stats_triton_gaussian import gaussian
from poolscore.kernels.row_stats_triton_one_pass import softmax_one_pass
from poolscore.kernels.row_stats_triton_two_phase import softmax_two_phase

if TYPE_CHECKING:
    from torch import Tensor

THREADS = 128
NARROW = 16  # up to here a thread holds all classes of its row
SHARED_WARP = 512  # up to here several rows share a warp's lanes, at most 16 classes a lane
ONE_PROGRAM = 8192  # up to here a program holds all classes of its row, at most 32 a lane (16 for an accurate BALD)
SLICE_CLASSES = 16384  # of one task of the first of two phases
TILE_CLASSES = 16  # a thread's classes at a time in the two-phase kernel


@dataclass(frozen=True)
class Strides:
    """Where logits [N, T, C] lie in their storage, in elements. The stride of a single row or pass counts as well: it
    says how more of them would lie, so that a row alone is read as it is in a batch.
    """

    offset: int
    n: int
    t: int
    c: int
    itemsize: int

    @classmethod
    def of(cls, logits_NTC: Tensor) -> Strides:
        """The strides of a tensor."""
        n, t, c = (int(stride) for stride in logits_NTC.stride())
        return cls(int(logits_NTC.storage_offset()), n, t, c if logits_NTC.shape[2] > 1 else 1, logits_NTC.itemsize)

    def vector(self, *steps: int) -> int:
        """How many elements one load may take, if it starts at a row's start plus multiples of the steps."""
        if self.c != 1:
            return 1
        return math.gcd(16 // self.itemsize, self.offset, self.n, *steps)


@dataclass(frozen=True)
class Plan:
    """A kernel with its compile-time constants; it runs in cdiv(N · tasks, rows) programs."""

    kernel: Any
    constants: dict[str, int]
    num_warps: int = THREADS // 32
    rows: int = 1
    tasks: int = 1


def softmax_plan(T: int, C: int, strides: Strides, want: Collection[str], accurate_bald: bool = False) -> Plan:
    """The kernel for the softmax scores in `want` of logits [any N, T, C]."""
    accurate = accurate_bald and "bald" in want
    differs = "bald" in want and not accurate  # bald is a difference of entropies
    constants = {
        "T": T,
        "C": C,
        "UNIT": strides.c == 1,
        "WANT_ENTROPY": "entropy" in want or differs,
        "WANT_EXPECTED": "expected_entropy" in want or differs,
        "WANT_STD": "mean_std" in want,
        "WANT_VOTES": "variation_ratio" in want,
        "ACCURATE_BALD": accurate,
    }
    if C > ONE_PROGRAM:
        return _two_phases(constants, strides.vector(strides.t))
    if C <= NARROW:
        U, V = _joined_passes(T, C, strides)
        R, B, num_warps = THREADS, 1, THREADS // 32
    else:
        lanes = _next_power_of_2(-(-C // (16 if C <= SHARED_WARP or accurate_bald else 32)))
        U, V = 1, _least_work(C, lanes, strides.vector(strides.t))
        R, num_warps = (THREADS // lanes, THREADS // 32) if C <= SHARED_WARP else (1, lanes // 32)
        B = lanes * V
    constants |= {"R": R, "U": U, "B": B, "K": -(-C // B), "V": V}
    # Votes are counted in registers, or listed in memory and counted in the end: T · T comparisons, fewer registers.
    constants["LIST_VOTES"] = constants["WANT_VOTES"] and C > NARROW and (R == 1 or T <= 32)
    return Plan(softmax_one_pass, constants, num_warps, R)


def _joined_passes(T: int, C: int, strides: Strides) -> tuple[int, int]:
    """Passes read at once and the width of the loads: passes that follow one another make wider loads possible.

    Neither has an influence on the bits: a thread adds up its row in the order of classes and passes.
    """
    joined = strides.c == 1 and strides.t == C
    options = [U for U in (1, 2, 4, 8) if T % U == 0 and U * C <= 64 and (U == 1 or joined)]
    vector = {U: strides.vector(U * C, U * strides.t) for U in options}
    U = max(options, key=lambda U: (vector[U], -U))
    return U, vector[U]


def _least_work(C: int, lanes: int, vector: int) -> int:
    """The width of the loads that costs least: wide ones are fewer, narrow ones fit C with fewer classes to spare."""
    widths = [1 << i for i in range(vector.bit_length())]
    return min(widths, key=lambda V: (-(-C // (lanes * V)) * (10 * V + 4), -V))


def _two_phases(constants: dict[str, int], V: int) -> Plan:
    T, C = constants["T"], constants["C"]
    tile = THREADS * TILE_CLASSES
    SLICE = -(-C // (-(-C // SLICE_CLASSES) * tile)) * tile
    S, NB = -(-C // SLICE), -(-C // tile)
    constants |= {"S": S, "SLICE": SLICE, "NB": NB, "P": THREADS, "V": V, "K": TILE_CLASSES // V}
    return Plan(softmax_two_phase, constants, tasks=T * S + NB)


def bernoulli_plan(T: int, L: int, binary: bool, take_max: bool, accurate_bald: bool = False) -> Plan:
    """The kernel for independent sigmoids of logits [any N, T, L]."""
    B = min(_next_power_of_2(L), THREADS)
    constants = {"T": T, "C": L, "R": THREADS // B, "B": B, "BINARY": binary, "TAKE_MAX": take_max}
    constants["ACCURATE_BALD"] = accurate_bald
    return Plan(bernoulli, constants, rows=THREADS // B)


def gaussian_plan(T: int, D: int, predicts_noise: bool, want_variance: bool) -> Plan:
    """The kernel for outputs [any N, T, D or 2D]."""
    B = min(_next_power_of_2(D), THREADS)
    constants = {"T": T, "D": D, "R": THREADS // B, "B": B, "NOISE": predicts_noise, "WANT_VARIANCE": want_variance}
    return Plan(gaussian, constants, rows=THREADS // B)


def _next_power_of_2(n: int) -> int:
    return 1 << (n - 1).bit_length()
