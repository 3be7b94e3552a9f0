"""Philox4x32-10 in numpy: the counter-based generator behind dropout masks and the `random` score.

A counter of four 32-bit words and a key of two give four 32-bit words; nothing else is state. So any batch, shard or
worker that asks for the same counter gets the same bits. `philox_torch.py` is the same function for torch, and
`tl.philox` is the same function for Triton.

Source: Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3" (Random123).
This module does not import torch.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)  # of counter words 0 and 2
WEYL = (0x9E3779B9, 0xBB67AE85)  # added to the key words after each round: golden ratio, sqrt(3) - 1
WORD = 0xFFFFFFFF

Words: TypeAlias = tuple[NDArray[np.uint32], NDArray[np.uint32], NDArray[np.uint32], NDArray[np.uint32]]


def key_words(seed: int) -> tuple[int, int]:
    """The two key words of a 64-bit seed: low word first.

    Raises:
        ValueError: seed is negative or has more than 64 bits.
    """
    if not 0 <= seed < 1 << 64:
        raise ValueError(f"seed must be in [0, 2**64), got {seed}")
    return seed & WORD, seed >> 32


def philox_numpy(c0: ArrayLike, c1: ArrayLike, c2: ArrayLike, c3: ArrayLike, *, seed: int) -> Words:
    """Philox4x32-10 of the counter (c0, c1, c2, c3) under the key `seed`.

    Args:
        c0, c1, c2, c3: integers or integer arrays in [0, 2**32); they broadcast against each other.
        seed: key, 64 bits.

    Returns:
        Four uint32 arrays of the broadcast shape.

    Raises:
        ValueError: seed out of range.
    """
    k0, k1 = key_words(seed)
    word, shift = np.uint64(WORD), np.uint64(32)
    multiplier_0, multiplier_2 = (np.uint64(m) for m in MULTIPLIERS)
    w0, w1, w2, w3 = (np.asarray(c).astype(np.uint64) for c in (c0, c1, c2, c3))
    for _ in range(ROUNDS):
        product_0, product_2 = multiplier_0 * w0, multiplier_2 * w2  # below 2**64: exact
        w0, w1, w2, w3 = (
            (product_2 >> shift) ^ w1 ^ np.uint64(k0),
            product_2 & word,
            (product_0 >> shift) ^ w3 ^ np.uint64(k1),
            product_0 & word,
        )
        k0, k1 = (k0 + WEYL[0]) & WORD, (k1 + WEYL[1]) & WORD
    v0, v1, v2, v3 = np.broadcast_arrays(*(w.astype(np.uint32) for w in (w0, w1, w2, w3)))
    return v0, v1, v2, v3
