"""Philox4x32-10 in torch, bit for bit `philox.philox_numpy`, on any device.

torch has no full set of uint32 operations, so a word is an int64 in [0, 2**32). The 32 x 32 -> 64 bit product would
overflow int64 because both Philox multipliers M have their top bit set. M - 2**32 is negative and below 2**30 in
magnitude, so (M - 2**32)·w fits, has the same low word as M·w, and its (floored) high word is that of M·w less w.
"""

from __future__ import annotations

from typing import TypeAlias

from torch import Tensor

from poolscore.kernels.philox import MULTIPLIERS, ROUNDS, WEYL, WORD, key_words

TensorWords: TypeAlias = tuple[Tensor, Tensor, Tensor, Tensor]


def philox_torch(c0: Tensor, c1: Tensor, c2: Tensor, c3: Tensor, *, seed: int) -> TensorWords:
    """Philox4x32-10 of the counter (c0, c1, c2, c3) under the key `seed`.

    The words broadcast against each other as they mix, so a word that is constant along a dimension should have size 1
    there: the first rounds are then nearly free.

    Args:
        c0, c1, c2, c3: int64 tensors on one device with values in [0, 2**32).
        seed: key, 64 bits.

    Returns:
        Four int64 tensors of the broadcast shape with values in [0, 2**32).

    Raises:
        ValueError: seed out of range.
    """
    k0, k1 = key_words(seed)
    for _ in range(ROUNDS):
        high_0, low_0 = _multiply(MULTIPLIERS[0], c0)
        high_2, low_2 = _multiply(MULTIPLIERS[1], c2)
        c0, c1, c2, c3 = (high_2 ^ c1).bitwise_xor_(k0), low_2, (high_0 ^ c3).bitwise_xor_(k1), low_0
        k0, k1 = (k0 + WEYL[0]) & WORD, (k1 + WEYL[1]) & WORD
    return c0, c1, c2, c3


def _multiply(multiplier: int, word: Tensor) -> tuple[Tensor, Tensor]:
    """High and low word of multiplier·word, without overflow (see the module's text)."""
    product = word * (multiplier - (1 << 32))
    high = (product >> 32).add_(word)  # >> is arithmetic: it floors
    return high, product.bitwise_and_(WORD)
