"""How alike are the rows of a batch? Top-k by a score alone tends to pick the same thing again and again."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ALIKE = 0.95  # cosine from which two rows count as near-duplicates


def near_duplicate_rate(
    features_NF: NDArray[np.floating], centre_F: NDArray[np.floating], alike: float = ALIKE
) -> float:
    """Share of rows that have a near-duplicate earlier in the batch: labelling them teaches little more.

    Args:
        features_NF: one vector a row, in the order of the batch.
        centre_F: mean of many rows of the pool. It is subtracted first: features behind a ReLU all point the same way.
        alike: smallest cosine of two near-duplicates.

    Returns:
        0..1; nan for fewer than two rows.
    """
    N = len(features_NF)
    if N < 2:
        return float("nan")
    centred = features_NF.astype(np.float64) - centre_F
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    unit = centred / np.where(lengths == 0, 1.0, lengths)
    cosine_NN = unit @ unit.T
    both_at_centre = (lengths == 0) & (lengths == 0).T
    repeated_N = np.tril((cosine_NN >= alike) | both_at_centre, k=-1).any(axis=1)
    return float(repeated_N.mean())
