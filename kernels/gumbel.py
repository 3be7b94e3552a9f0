"""Gumbel noise from a row's key and a seed, the same bits on every machine: for stochastic batch acquisition.

Noise is -log(E) with E = -log(1 - Q) ~ Exponential(1) and Q a 64-bit uniform. The largest noise of N rows comes from a
Q of about 1/N: 24-bit uniforms repeat there (262 distinct values among the best 1,000 of 60 million rows), 64-bit ones
do not. Logarithms are made of additions, multiplications and divisions, which IEEE 754 defines to the last bit; those
of numpy differ between processors.

This module does not import torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from poolscore.kernels.philox import MULTIPLIERS, ROUNDS, WEYL, WORD, key_words

Words: TypeAlias = NDArray[np.uint64]
COUNTER = (WORD, WORD - 1)  # counter words 2 and 3; no mask reaches them, and `random` has (WORD, WORD)
BLOCK = 8192  # rows at a time: what is at work fits into a core's second cache
LARGEST = 46.0  # no noise is larger: Q is at least 2^-65
SHIFT = np.uint64(32)
_LN2_HIGH, _LN2_LOW = 0.6931471803691238, 1.9082149292705877e-10  # their sum is ln 2; the first has 20 bits to spare
_ATANH = tuple(1 / (2 * i + 1) for i in range(1, 13))  # atanh(z) = z + z^3/3 + z^5/5 + …


def gumbel_of(keys_N: NDArray[np.uint64], seed: int) -> NDArray[np.float64]:
    """Standard Gumbel noise of each key.

    Philox counter (key low word, key high word, 2^32 - 1, 2^32 - 2); words 0 (high half) and 1 (low half) are w, and
    Q = (w + 1/2) / 2^64.

    Args:
        keys_N: uint64 [N].
        seed: 64 bits.

    Returns:
        float64 [N], between -3.9 and LARGEST.
    """
    draws = np.empty(len(keys_N), np.uint64)
    for start, high, low in _words(keys_N, seed):
        block = draws[start : start + len(high)]
        np.left_shift(high, np.uint64(32), out=block)
        block |= low
    return -log(_exponential(draws))


def gumbel_may_reach(keys_N: NDArray[np.uint64], seed: int, odds_N: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether a row's noise may be at least -log(odds): true wherever it is, and hardly anywhere else where the odds
    are small. Costs the draw, but no logarithm.

    Args:
        keys_N: uint64 [N].
        seed: 64 bits.
        odds_N: float64 [N]; NaN: true.

    Returns:
        bool [N].
    """
    reached = np.empty(len(keys_N), bool)
    most = odds_N * 2.0**32  # E >= Q >= high / 2^32
    for start, high, _ in _words(keys_N, seed):
        stop = start + len(high)
        reached[start:stop] = high > most[start:stop]
    return ~reached


def log(x_N: NDArray[np.float64]) -> NDArray[np.float64]:
    """Natural logarithm of positive, finite numbers: error below 2 units in the last place, the same on every machine.

    x = m 2^e with m in [sqrt(1/2), sqrt(2)); log m = 2 atanh((m - 1)/(m + 1)).
    """
    mantissa, exponent = np.frexp(x_N)
    small = mantissa < np.sqrt(0.5)
    mantissa = np.where(small, mantissa * 2, mantissa)
    e = exponent - small.astype(exponent.dtype)
    logarithm: NDArray[np.float64] = e * _LN2_HIGH + (_twice_atanh((mantissa - 1) / (mantissa + 1)) + e * _LN2_LOW)
    return logarithm


def _exponential(draws_N: NDArray[np.uint64]) -> NDArray[np.float64]:
    """-log(1 - Q), with all its digits for the smallest Q and for those next to 1."""
    quarter = draws_N < np.uint64(1 << 62)
    q = (draws_N.astype(np.float64) + 0.5) * 2.0**-64
    complement = ((~draws_N).astype(np.float64) + 0.5) * 2.0**-64
    return np.where(quarter, _twice_atanh(q / (2 - q)), -log(complement))


def _twice_atanh(z_N: NDArray[np.float64]) -> NDArray[np.float64]:
    """2 atanh(z) for |z| <= 0.172."""
    square = z_N * z_N
    series = np.full_like(z_N, _ATANH[-1])
    for coefficient in reversed(_ATANH[:-1]):
        series = series * square + coefficient
    doubled: NDArray[np.float64] = 2 * z_N
    return doubled + doubled * square * series


def _words(keys_N: NDArray[np.uint64], seed: int) -> Iterator[tuple[int, Words, Words]]:
    """Words 0 and 1 of Philox4x32-10 for blocks of keys: where a block begins, and its words, as uint64. The same
    numbers as `philox_numpy` gives, in buffers that are used again, without what these two words do not need."""
    if keys_N.dtype != np.uint64:
        raise ValueError(f"row keys must be uint64, got {keys_N.dtype}")
    word = np.uint64(WORD)
    m0, m2 = (np.uint64(m) for m in MULTIPLIERS)
    k0, k1 = key_words(seed)
    keys_of_rounds = [(np.uint64(k0 + i * WEYL[0] & WORD), np.uint64(k1 + i * WEYL[1] & WORD)) for i in range(ROUNDS)]
    first, *middle, ninth, tenth = keys_of_rounds
    high, low = divmod(MULTIPLIERS[1] * COUNTER[0], 1 << 32)  # word 2 of the counter is the same for all keys
    buffers = [np.empty(min(BLOCK, len(keys_N)), np.uint64) for _ in range(6)]
    for start in range(0, len(keys_N), BLOCK):
        keys = keys_N[start : start + BLOCK]
        c0, c1, c2, c3, p0, p2 = (buffer[: len(keys)] for buffer in buffers)
        np.bitwise_and(keys, word, out=p0)
        p0 *= m0
        np.right_shift(keys, SHIFT, out=c0)
        c0 ^= np.uint64(high) ^ first[0]
        c1.fill(low)
        _mix(p0, np.uint64(COUNTER[1]), first[1], c2)
        np.bitwise_and(p0, word, out=c3)
        for k in middle:
            np.multiply(c0, m0, out=p0)
            np.multiply(c2, m2, out=p2)
            _mix(p2, c1, k[0], c0)
            _mix(p0, c3, k[1], c2)
            np.bitwise_and(p2, word, out=c1)
            np.bitwise_and(p0, word, out=c3)
        np.multiply(c0, m0, out=p0)
        np.multiply(c2, m2, out=p2)
        np.bitwise_and(p2, word, out=c1)
        _mix(p0, c3, ninth[1], c2)
        np.multiply(c2, m2, out=p2)
        _mix(p2, c1, tenth[0], c0)
        np.bitwise_and(p2, word, out=c1)
        yield start, c0, c1


def _mix(product: Words, other: Words | np.uint64, key: np.uint64, out: Words) -> None:
    """High word of a product, and both others, in exclusive or."""
    np.right_shift(product, SHIFT, out=out)
    out ^= other
    out ^= key
