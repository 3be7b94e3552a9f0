"""Scores of independent sigmoids for a block of rows, in numpy. See `row_stats_cpu.py`.

Shapes: N rows of the block, T passes, L labels (1 for binary). The formulas are those of `row_stats_bernoulli.py`: with
a = |logit| and e = exp(-a), the smaller of p and 1 - p is e/(1 + e), and the entropy is ln(1 + e) + a·e/(1 + e).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poolscore.kernels.row_stats_cpu_block import BlockShape, Floats, load, non_negative, sum_last

BERNOULLI_ELEMENTS = 1 << 17  # of a block: about seven arrays of 0.5 MiB in float32
HIGHEST = 1e30  # stands for |±inf|: exp(-1e30) is 0, and 1e30 · 0 is 0 where inf · 0 would be NaN


@dataclass(frozen=True)
class Moments:
    """Means over the passes, each [N, L]. 1 - p has its own mean, so that it is accurate where p is close to 1."""

    p: Floats
    rest: Floats  # of 1 - p
    entropy: Floats
    votes: NDArray[Any]  # number of passes with p > 0.5
    finite: NDArray[np.bool_]  # [N], no NaN


class BernoulliBlock:
    """Scratch memory for up to `rows` rows, and the scores of such a block.

    `reduce` is "sum" or "max" over the labels for entropy, expected_entropy and bald; None for binary, where L = 1.
    """

    def __init__(self, shape: BlockShape, rows: int, L: int, dtype: np.dtype[Any], reduce: str | None) -> None:
        self.shape, self.dtype, self.reduce = shape, dtype, reduce
        self.a_NTL, self.e_NTL = shape.scratch(rows, L, dtype), shape.scratch(rows, L, dtype)

    def score(self, source_NTL: NDArray[Any], want: Collection[str]) -> dict[str, NDArray[Any]]:
        """See `row_stats_cpu_block.Block`."""
        T = source_NTL.shape[1]
        moments = self._moments(source_NTL)
        scores = label_scores(moments, want)
        if "mean_std" in want:
            squares_NL = np.zeros_like(moments.p)
            for _, p_NTL, _, _ in self._sigmoids(source_NTL):  # a second run: mean p² - (mean p)² would cancel
                p_NTL -= moments.p[:, None]
                squares_NL += np.einsum("ntl,ntl->nl", p_NTL, p_NTL)
            scores["mean_std"] = np.sqrt(squares_NL / T)
        if self.reduce is None:
            return binary_scores(scores, moments, want, T)
        return multilabel_scores(scores, moments, self.reduce)

    def _moments(self, source_NTL: NDArray[Any]) -> Moments:
        N, T, L = source_NTL.shape
        p_NL, rest_NL, entropy_NL = (self.shape.empty((N, L), self.dtype) for _ in range(3))
        votes_NL, finite_N = np.zeros((N, L), np.int32), np.ones(N, np.bool_)
        for total_NL in (p_NL, rest_NL, entropy_NL):
            total_NL[:] = 0.0
        for positive_NTL, p_NTL, rest_NTL, entropy_NTL in self._sigmoids(source_NTL):
            p_NL += np.einsum("ntl->nl", p_NTL)
            rest_NL += np.einsum("ntl->nl", rest_NTL)
            entropy_NL += np.einsum("ntl->nl", entropy_NTL)
            votes_NL += np.add.reduce(positive_NTL.view(np.uint8), axis=1, dtype=np.uint8)
            finite_N &= ~np.isnan(entropy_NTL).any(axis=(1, 2))
        return Moments(p_NL / T, rest_NL / T, entropy_NL / T, votes_NL, finite_N)

    def _sigmoids(self, source_NTL: NDArray[Any]) -> Iterator[tuple[NDArray[np.bool_], Floats, Floats, Floats]]:
        """logit > 0, p, 1 - p and the entropy, [N, t, L], for as many passes at a time as the scratch memory holds."""
        N, T, _ = source_NTL.shape
        for first in range(0, T, self.shape.passes):
            x_NTL = source_NTL[:, first : first + self.shape.passes]
            a_NTL, e_NTL = self.a_NTL[:N, : x_NTL.shape[1]], self.e_NTL[:N, : x_NTL.shape[1]]
            load(x_NTL, a_NTL)
            positive_NTL = a_NTL > 0
            np.minimum(np.abs(a_NTL, out=a_NTL), HIGHEST, out=a_NTL)
            np.exp(np.negative(a_NTL, out=e_NTL), out=e_NTL)
            larger_NTL = 1.0 / (1.0 + e_NTL)
            entropy_NTL = np.log1p(e_NTL)
            smaller_NTL = np.multiply(e_NTL, larger_NTL, out=e_NTL)
            entropy_NTL += np.multiply(a_NTL, smaller_NTL, out=a_NTL)
            p_NTL = np.where(positive_NTL, larger_NTL, smaller_NTL)
            yield positive_NTL, p_NTL, np.where(positive_NTL, smaller_NTL, larger_NTL), entropy_NTL


def label_scores(moments: Moments, want: Collection[str]) -> dict[str, NDArray[Any]]:
    """The wanted entropies that binary and multilabel share, per label [N, L]."""
    smaller_NL, larger_NL = np.minimum(moments.p, moments.rest), np.maximum(moments.p, moments.rest)
    log_NL = np.log(np.maximum(smaller_NL, np.finfo(smaller_NL.dtype).tiny))
    entropy_NL = non_negative(-(smaller_NL * log_NL + larger_NL * np.log1p(-smaller_NL)))
    scores = {
        "entropy": entropy_NL,
        "expected_entropy": moments.entropy,
        "bald": non_negative(entropy_NL - moments.entropy),
    }
    return {name: score_NL for name, score_NL in scores.items() if name in want}


def binary_scores(
    scores: dict[str, NDArray[Any]], moments: Moments, want: Collection[str], T: int
) -> dict[str, NDArray[Any]]:
    """Class (p = 0.5 is class 0), its probability, and all wanted scores, [N] each."""
    scores = {name: score_N1[:, 0] for name, score_N1 in scores.items()}
    p_N, rest_N, votes_N = moments.p[:, 0], moments.rest[:, 0], moments.votes[:, 0]
    if "variation_ratio" in want:
        scores["variation_ratio"] = np.minimum(votes_N, T - votes_N) / T
    if "least_confidence" in want:
        scores["least_confidence"] = np.minimum(p_N, rest_N)
    if "margin" in want:
        scores["margin"] = 2.0 * np.minimum(p_N, rest_N)  # 1 - |p - (1 - p)|
    return scores | {"prediction": p_N > rest_N, "confidence": np.maximum(p_N, rest_N), "finite": moments.finite}


def multilabel_scores(scores: dict[str, NDArray[Any]], moments: Moments, reduce: str) -> dict[str, NDArray[Any]]:
    """Most probable label (the lowest on ties), its probability, and the scores over the labels, [N] each."""
    for name, score_NL in scores.items():
        if name == "mean_std" or reduce == "sum":
            scores[name] = sum_last("nl->n", score_NL.astype(np.float64))
        else:
            scores[name] = score_NL.max(axis=1)
    if "mean_std" in scores:
        scores["mean_std"] /= moments.p.shape[1]
    return scores | {
        "prediction": moments.p.argmax(axis=1),
        "confidence": moments.p.max(axis=1),
        "finite": moments.finite,
    }
