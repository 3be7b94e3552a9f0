"""The dropout masks of the contract in numpy: their definition, and the reference of `dropout_mask.py`.

A draw belongs to (seed, row key, layer, t, element) and to nothing else, so pieces of the passes, other batches, other
shards and a grown pool see the same masks:

    key      seed, 64 bits: low word, high word
    counter  row key low word, row key high word, layer << 16 | t, element // 8
    draws    the four output words give eight 16-bit draws: word 0 low half, word 0 high half, word 1 low half, ...
    draw     number element % 8 of these
    keep     draw >= round(p·65536), Python's round (half to even)

Shared masks, the same for all rows, put all ones for both words of the row key. The keep rate is therefore 1 - p to
within 2**-17; p below 2**-17 keeps everything and p above 1 - 2**-17 keeps nothing.

This module does not import torch.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from poolscore.kernels.philox import WORD, key_words, philox_numpy

DRAWS = 8  # 16-bit draws of one Philox call
LIMIT = 1 << 16  # layers and passes each have 16 bits of a counter word


def dropout_scale(p: float) -> float:
    """What kept elements are multiplied by: 1/(1 - p), as in torch's dropout.

    Raises:
        ValueError: p is outside [0, 1).
    """
    check_rate(p)
    return 1.0 / (1.0 - p)


def check_rate(p: float) -> None:
    """Raises ValueError unless 0 <= p < 1 (NaN is refused)."""
    if not 0.0 <= p < 1.0:
        raise ValueError(f"dropout p must be in [0, 1), got {p}")


def keep_threshold(p: float) -> int:
    """Draws from this one on are kept. Python's round: half to even.

    Raises:
        ValueError: p is outside [0, 1).
    """
    check_rate(p)
    return round(p * LIMIT)


def check_coordinates(seed: int, layer: int, passes: range, elements: int) -> None:
    """Raises ValueError for a coordinate that the counter cannot hold; it would silently repeat another mask."""
    key_words(seed)
    if not 0 <= layer < LIMIT:
        raise ValueError(f"dropout layer must be in [0, {LIMIT}), got {layer}")
    if any(not 0 <= t < LIMIT for t in passes[:: max(len(passes) - 1, 1)]):
        raise ValueError(f"passes must lie in [0, {LIMIT}), got {passes}")
    if not 0 <= elements <= DRAWS << 32:
        raise ValueError(f"elements must be in [0, 2**35], got {elements}")


def keep_mask_numpy(
    seed: int, layer: int, passes: range, elements: int, p: float, row_keys_N: NDArray[np.uint64] | None = None
) -> NDArray[np.bool_]:
    """Which elements dropout keeps. Shapes: N rows, T passes, E elements, G groups of eight elements.

    Args:
        seed: 64 bits.
        layer: ordinal of the live dropout call in execution order, below 65536.
        passes: absolute pass indices t, below 65536; a piece of the passes gives that piece of the whole mask.
        elements: E, size of the feature shape at the model's full length, flattened.
        p: probability of dropping, 0 <= p < 1.
        row_keys_N: uint64 [N] for masks that differ by row; None for shared masks.

    Returns:
        bool [N, T, E], or [T, E] for shared masks.

    Raises:
        ValueError: an argument is out of range, or keys that are not uint64 [N].
    """
    check_coordinates(seed, layer, passes, elements)
    threshold = keep_threshold(p)
    c2_T1 = (np.asarray(passes, dtype=np.uint64) | np.uint64(layer << 16))[:, None]
    c3_G = np.arange(-(-elements // DRAWS), dtype=np.uint64)
    if row_keys_N is None:
        words = philox_numpy(WORD, WORD, c2_T1, c3_G, seed=seed)
    else:
        if row_keys_N.dtype != np.uint64 or row_keys_N.ndim != 1:
            raise ValueError(f"row keys must be uint64 [N], got {row_keys_N.dtype} {list(row_keys_N.shape)}")
        key_N11 = row_keys_N[:, None, None]
        words = philox_numpy(key_N11 & np.uint64(WORD), key_N11 >> np.uint64(32), c2_T1, c3_G, seed=seed)
    halves = [half for word in words for half in (word & np.uint32(0xFFFF), word >> np.uint32(16))]
    draws = np.stack(halves, axis=-1)
    keep: NDArray[np.bool_] = draws.reshape(*draws.shape[:-2], len(c3_G) * DRAWS)[..., :elements] >= threshold
    return keep
