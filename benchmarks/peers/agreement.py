"""Do contestants score the same? Their masks differ, so T passes agree only so far, those of one library too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Scores = Mapping[str, NDArray[np.float64]]  # contestant → BALD [N] of the same rows

MEANS_DIFFER = 0.25  # of the median of all means, at most


def agreement(scores: Scores) -> dict[str, Any]:
    """Mean BALD of each contestant in nats, and Spearman's correlation of every pair.

    Raises:
        RuntimeError: a mean is further from the median of all than MEANS_DIFFER, or a score is no number.
    """
    means = {name: float(bald_N.mean()) for name, bald_N in scores.items()}
    middle = float(np.nanmedian(list(means.values())))
    for name, mean in means.items():
        if not abs(mean - middle) <= MEANS_DIFFER * middle:
            raise RuntimeError(f"mean BALD of {name} is {mean:.4g} nats, the median of all contestants {middle:.4g}")
    return {
        "rows": len(next(iter(scores.values()))),
        "mean_bald_nats": {name: round(mean, 6) for name, mean in means.items()},
        "means_may_differ": MEANS_DIFFER,
        "spearman": rank_correlations(scores),
    }


def rank_correlations(scores: Scores) -> dict[str, dict[str, float]]:
    """Spearman's correlation of every pair."""
    names = list(scores)
    matrix = np.atleast_2d(np.corrcoef([ranks(scores[name]) for name in names]))
    return {
        a: {b: round(float(matrix[i, j]), 3) for j, b in enumerate(names) if j > i} for i, a in enumerate(names[:-1])
    }


def ranks(x_N: NDArray[np.float64]) -> NDArray[np.float64]:
    """Places in the order; equal values share the mean of theirs."""
    _, place, count = np.unique(x_N, return_inverse=True, return_counts=True)
    mean: NDArray[np.float64] = (np.cumsum(count) - (count - 1) / 2)[place]
    return mean
