"""The `random` score: uniform in [0, 1) from a row's key and the seed, so that it does not depend on batch or shard.

This module does not import torch.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from poolscore.kernels.philox import WORD, philox_numpy


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
