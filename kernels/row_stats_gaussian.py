"""The score of regression. See `row_stats.py`. Shapes: N rows, T passes, D outputs."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from poolscore.kernels.fixed_order import sum_last, upcast_passes
from poolscore.kernels.row_result import RowStats


def gaussian_stats(outputs_NTD: Tensor, want: Collection[str], predicts_noise: bool) -> RowStats:
    """Predictive variance [N] and mean prediction [N, D] for outputs [N, T, D], or [N, T, 2D] with predicts_noise: D
    means, then D log-variances.

    The variance is the population variance over the passes (divided by T), summed over the outputs; a model that
    predicts its noise adds mean_t exp(log-variance). A row is finite if its outputs are and no result overflows.
    """
    T, width = outputs_NTD.shape[1:]
    D = width // 2 if predicts_noise else width
    means_NTD = outputs_NTD[..., :D]
    finite_N = outputs_NTD.isfinite().all(-1).all(-1)
    mean_ND = _mean_of_passes(means_NTD)
    finite_N &= mean_ND.isfinite().all(-1)

    scores: dict[str, Tensor] = {}
    if "predictive_variance" in want:
        squares_ND = torch.zeros_like(mean_ND)
        for y_ND in upcast_passes(means_NTD):
            squares_ND += (y_ND - mean_ND).square_()
        variance_ND = squares_ND.div_(T)
        if predicts_noise:
            variance_ND += _mean_of_passes(outputs_NTD[..., D:], exponential=True)
        scores["predictive_variance"] = sum_last(variance_ND)
        finite_N &= scores["predictive_variance"].isfinite()
    return RowStats(scores, mean_ND, None, finite_N)


def _mean_of_passes(outputs_NTD: Tensor, exponential: bool = False) -> Tensor:
    """mean_t y, or mean_t exp(y), [N, D], added in the order of the passes."""
    total_ND: Tensor | float = 0.0
    for y_ND in upcast_passes(outputs_NTD):
        total_ND = (y_ND.exp() if exponential else y_ND) + total_ND
    return torch.as_tensor(total_ND) / outputs_NTD.shape[1]
