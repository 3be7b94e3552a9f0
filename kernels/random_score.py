"""Uniform numbers in [0, 1) from a row's key and the seed, so that they do not depend on batch or shard: the `random`
score, and the draws by which control rows are chosen and placed.

This module does not import torch.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from poolscore.kernels.philox import WORD, philox_numpy

CONTROL_ROWS, CONTROL_PLACES = WORD - 2, WORD - 3  # streams: counter word 3; Gumbel noise has WORD - 1
BLOCK = 8192  # rows at a time: what is at work fits into a core's second cache


def uniform_from_keys(keys_N: NDArray[np.uint64], seed: int) -> NDArray[np.float32]:
    """One uniform number per row key.

    Philox counter (key low word, key high word, all ones, all ones): layer and pass 65535 with element group 2**32 - 1,
    which no mask reaches in practice. The top 24 bits of word 0, times 2**-24, are exact in float32.

    Args:
        keys_N: uint64 [N].
        seed: 64 bits.

    Returns:
        float32 [N] in [0, 1).

    Raises:
        ValueError: keys are not uint64, or seed out of range.
    """
    if keys_N.dtype != np.uint64:
        raise ValueError(f"row keys must be uint64, got {keys_N.dtype}")
    word_0, *_ = philox_numpy(keys_N & np.uint64(WORD), keys_N >> np.uint64(32), WORD, WORD, seed=seed)
    return (word_0 >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)


def uniforms_from_keys(keys_N: NDArray[np.uint64], seed: int, stream: int) -> NDArray[np.float64]:
    """One uniform number per row key, for a choice among billions of rows: 24 bits would repeat.

    Philox counter (key low word, key high word, all ones, stream); words 0 (high half) and 1 (low half) are w, and the
    number is the top 53 bits of w times 2^-53.

    Args:
        keys_N: uint64 [N].
        seed: 64 bits.
        stream: 32 bits; others give independent numbers.

    Returns:
        float64 [N] in [0, 1).
    """
    drawn = np.empty(len(keys_N), np.float64)
    for start in range(0, len(keys_N), BLOCK):
        keys = keys_N[start : start + BLOCK]
        high, low, *_ = philox_numpy(keys & np.uint64(WORD), keys >> np.uint64(32), WORD, stream, seed=seed)
        words = high.astype(np.uint64) << np.uint64(32) | low
        drawn[start : start + BLOCK] = (words >> np.uint64(11)) * 2.0**-53
    return drawn
