"""How good a ranking is."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def average_precision(scores: ArrayLike, relevant: ArrayLike) -> float:
    """Mean over the relevant rows of the precision down to each, best first; 0 where nothing is relevant (LETOR).

    Rows of equal score stay in their order.
    """
    hits = _ranked(scores, relevant)
    if not hits.any():
        return 0.0
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return float(precision[hits].mean())


def auroc(scores: ArrayLike, positive: ArrayLike) -> float:
    """Chance that a positive row has a larger score than a negative one; ties count half. NaN: all rows are alike."""
    values, places = np.unique(np.asarray(scores, float), return_inverse=True)
    yes = np.asarray(positive, bool)
    of_yes, of_no = (np.bincount(places[which], minlength=len(values)) for which in (yes, ~yes))
    below = np.cumsum(of_no) - of_no
    pairs = of_yes.sum() * of_no.sum()
    return float((of_yes * (below + of_no / 2)).sum() / pairs) if pairs else float("nan")


def calibration_error(confidence: ArrayLike, right: ArrayLike, bins: int = 10) -> float:
    """Expected calibration error: |accuracy - confidence| of bins of equal width, weighted by their rows."""
    return float(sum(abs(b.accuracy - b.confidence) * b.share for b in reliability(confidence, right, bins)))


class Bin:
    """Rows of about one confidence."""

    def __init__(self, confidence: NDArray[np.float64], right: NDArray[np.bool_], rows: int) -> None:
        self.confidence, self.accuracy = float(confidence.mean()), float(right.mean())
        self.share = len(right) / rows


def reliability(confidence: ArrayLike, right: ArrayLike, bins: int = 10) -> list[Bin]:
    """The bins of equal width that hold rows, from the least confidence to the largest."""
    sure, correct = np.asarray(confidence, float), np.asarray(right, bool)
    places = np.minimum((sure * bins).astype(int), bins - 1)
    return [Bin(sure[places == i], correct[places == i], len(sure)) for i in np.unique(places)]


def _ranked(scores: ArrayLike, relevant: ArrayLike) -> NDArray[np.bool_]:
    return np.asarray(relevant, bool)[np.argsort(-np.asarray(scores, float), kind="stable")]
