"""The softmax scores of a block of rows, in numpy. See `row_stats_cpu.py`; `row_stats_cpu_block.py` has the layouts.

Shapes: N rows of the block, T passes, C classes. With z = logits - max, e = exp z, s = sum_c e and p = e/s,

    H[p] = ln s - (sum_c e z)/s     both terms >= 0: nothing cancels, one exp and no log per element
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from poolscore.kernels.row_stats_cpu_block import (
    BlockShape,
    Floats,
    dot_last,
    kl_terms,
    load,
    non_negative,
    sum_last,
)

Softmax: TypeAlias = tuple[Floats, Floats, Floats, Floats]  # of t passes: z, e [N, t, C], max_c logits, s [N, t]

# Of a block, whose two arrays are then of 1 MiB in float32. With smaller ones the calls would cost as much as the work.
SOFTMAX_ELEMENTS = 1 << 18
LOWEST = -1e30  # stands for -inf: exp gives 0 as well, and 0 · -1e30 is 0 where 0 · -inf would be NaN


class SoftmaxBlock:
    """Scratch memory for up to `rows` rows, and the scores of such a block."""

    def __init__(self, shape: BlockShape, rows: int, C: int, dtype: np.dtype[Any], accurate_bald: bool) -> None:
        self.shape, self.dtype, self.accurate_bald = shape, dtype, accurate_bald
        self.z_NTC, self.e_NTC = shape.scratch(rows, C, dtype), shape.scratch(rows, C, dtype)

    def score(self, source_NTC: NDArray[Any], want: Collection[str]) -> dict[str, NDArray[Any]]:
        """See `row_stats_cpu_block.Block`."""
        N, T, C = source_NTC.shape
        differs = "bald" in want and not self.accurate_bald  # bald is a difference of entropies
        mean_NC: Floats = self.shape.empty((N, C), self.dtype)
        mean_NC[:] = 0.0
        votes_NC = np.zeros((N, C), np.int32)
        expected_N, finite_N = np.zeros(N), np.ones(N, np.bool_)
        for softmax in self._softmaxes(source_NTC):
            z_NTC, e_NTC, top_NT, norm_NT = softmax
            finite_N &= np.isfinite(top_NT).all(axis=1)
            mean_NC += np.einsum("ntc,nt->nc", e_NTC, 1.0 / norm_NT)
            if "variation_ratio" in want:
                votes_NC += count_votes(z_NTC, self.shape.rows_inside)
            if differs or "expected_entropy" in want:
                expected_N += sum_entropies(z_NTC, e_NTC, norm_NT)
        mean_NC /= T

        def again() -> Iterable[Softmax]:
            """The passes once more: if the scratch memory held them all in one go, the last softmax is still there."""
            return [softmax] if self.shape.passes >= T else self._softmaxes(source_NTC)

        scores = scores_of_mean(mean_NC, expected_N / T, want, differs)
        if "variation_ratio" in want:
            scores["variation_ratio"] = (T - votes_NC.max(axis=1)) / T
        if "mean_std" in want:
            scores["mean_std"] = mean_std(again(), mean_NC, T)
        if "bald" in want and self.accurate_bald:
            scores["bald"] = accurate_bald(again, mean_NC, T)
        return scores | {"finite": finite_N}

    def _softmaxes(self, source_NTC: NDArray[Any]) -> Iterator[Softmax]:
        """The passes, as many at a time as the scratch memory holds; it is overwritten by the next ones."""
        N, T, _ = source_NTC.shape
        for first in range(0, T, self.shape.passes):
            x_NTC = source_NTC[:, first : first + self.shape.passes]
            z_NTC, e_NTC = self.z_NTC[:N, : x_NTC.shape[1]], self.e_NTC[:N, : x_NTC.shape[1]]
            if self.shape.rows_inside or x_NTC.dtype != self.dtype:
                load(x_NTC, z_NTC)
                x_NTC = z_NTC
            top_NT = x_NTC.max(axis=2)
            np.subtract(x_NTC, top_NT[:, :, None], out=z_NTC)
            np.exp(z_NTC, out=e_NTC)
            yield z_NTC, e_NTC, top_NT, sum_last("ntc->nt", e_NTC)


def sum_entropies(z_NTC: Floats, e_NTC: Floats, norm_NT: Floats) -> NDArray[np.float64]:
    """sum_t H[p_t], nats, [N]. One log per row, of the product of the sums s."""
    ez_NT = dot_last(e_NTC, z_NTC)
    if np.isnan(ez_NT).any():
        ez_NT = dot_last(e_NTC, np.maximum(z_NTC, LOWEST, out=z_NTC))
    product_N = np.multiply.reduce(norm_NT, axis=1, dtype=np.float64)
    entropies_N: NDArray[np.float64] = np.log(product_N)
    entropies_N -= np.einsum("nt->n", (ez_NT / norm_NT).astype(np.float64))
    return entropies_N


def count_votes(z_NTC: Floats, rows_inside: bool) -> NDArray[Any]:
    """The number of passes whose argmax, the lowest on ties, is each class: [N, C]."""
    N, _, C = z_NTC.shape
    if not rows_inside:
        cells_NT = z_NTC.argmax(axis=2) + C * np.arange(N)[:, None]
        return np.bincount(cells_NT.ravel(), minlength=N * C).reshape(N, C)
    highest_NTC = z_NTC == 0.0  # argmax is slow across the memory's order, and would be most of the time here
    if (np.add.reduce(highest_NTC.view(np.uint8), axis=2, dtype=np.uint8) > 1).any():
        highest_NTC[:, :, 1:] &= ~np.logical_or.accumulate(highest_NTC, axis=2)[:, :, :-1]
    votes_NC: NDArray[Any] = np.add.reduce(highest_NTC.view(np.uint8), axis=1, dtype=np.uint8)
    return votes_NC


def probabilities(softmax: Softmax) -> Floats:
    """p [N, t, C], in place of z."""
    z_NTC, e_NTC, _, norm_NT = softmax
    p_NTC: Floats = np.multiply(e_NTC, (1.0 / norm_NT)[:, :, None], out=z_NTC)
    return p_NTC


def mean_std(softmaxes: Iterable[Softmax], mean_NC: Floats, T: int) -> Floats:
    """mean_c sqrt(mean_t (p_tc - mean_c)²), [N]. A second run over the passes: mean_t p² - mean² would cancel."""
    squares_NC = np.zeros_like(mean_NC)
    for p_NTC in map(probabilities, softmaxes):
        p_NTC -= mean_NC[:, None, :]
        squares_NC += np.einsum("ntc,ntc->nc", p_NTC, p_NTC)
    std_N: Floats = sum_last("nc->n", np.sqrt(squares_NC / T)) / mean_NC.shape[1]
    return std_N


def accurate_bald(passes: Callable[[], Iterable[Softmax]], mean_NC: Floats, T: int) -> Floats:
    """mean_t KL(p_t || mean), nats, [N]. The first of two more runs makes the mean of equal p_t exact."""
    rest_NC = np.zeros_like(mean_NC)
    for p_NTC in map(probabilities, passes()):
        p_NTC -= mean_NC[:, None, :]
        rest_NC += np.einsum("ntc->nc", p_NTC)
    exact_NC = mean_NC + rest_NC / T
    terms_NC = np.zeros_like(mean_NC)
    for p_NTC in map(probabilities, passes()):
        terms_NC += np.einsum("ntc->nc", kl_terms(p_NTC, exact_NC[:, None, :]))
    bald_N: Floats = sum_last("nc->n", terms_NC) / T
    return bald_N


def scores_of_mean(
    mean_NC: Floats, expected_N: Floats, want: Collection[str], differs: bool
) -> dict[str, NDArray[Any]]:
    """Prediction, confidence and the wanted scores that follow from the mean probabilities and mean_t H[p_t].

    differs: bald is wanted as the difference of the entropies.
    """
    prediction_N = mean_NC.argmax(axis=1)
    confidence_N = mean_NC.max(axis=1)
    scores = {"prediction": prediction_N, "confidence": confidence_N}
    if "entropy" in want or differs:
        log_NC = np.log(np.maximum(mean_NC, np.finfo(mean_NC.dtype).tiny))
        entropy_N = non_negative(-sum_last("nc->n", np.multiply(mean_NC, log_NC, out=log_NC).astype(np.float64)))
        if "entropy" in want:
            scores["entropy"] = entropy_N
        if differs:
            scores["bald"] = non_negative(entropy_N - expected_N)
    if "expected_entropy" in want:
        scores["expected_entropy"] = non_negative(expected_N)
    if "least_confidence" in want:
        scores["least_confidence"] = non_negative(1.0 - confidence_N)
    if "margin" in want:
        rest_NC = mean_NC.copy(order="K")
        np.put_along_axis(rest_NC, prediction_N[:, None], -1.0, axis=1)
        scores["margin"] = non_negative(1.0 - (confidence_N - rest_NC.max(axis=1)))
    return scores
