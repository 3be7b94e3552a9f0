"""Scores of independent sigmoids for a block of rows, in numpy. See `row_stats_cpu.py`.

Shapes: N rows of the block, T passes, L labels (1 for binary). The formulas are those of `row_stats_bernoulli.py`: with
a = |logit| and e = exp(-a), the smaller of p and 1 - p is e/(1 + e), and the entropy is ln(1 + e) + a·e/(1 + e).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from poolscore.kernels.row_stats_cpu_block import BlockShape, Floats, kl_terms, load, non_negative, sum_last

Sigmoids: TypeAlias = tuple[NDArray[np.bool_], Floats, Floats, Floats]  # logit > 0, p, 1 - p, entropy: [N, t, L]

BERNOULLI_ELEMENTS = 1 << 17  # of a block: about seven arrays of 0.5 MiB in float32
HIGHEST = 1e30  # stands for |±inf|: exp(-1e30) is 0, and 1e30 · 0 is 0 where inf · 0 would be NaN


@dataclass(frozen=True)
class Means:
    """Means over the passes, each [N, L]. 1 - p has its own mean, so that it is accurate where p is close to 1."""

    p: Floats
    rest: Floats  # of 1 - p
    entropy: Floats


class BernoulliBlock:
    """Scratch memory for up to `rows` rows, and the scores of such a block.

    `reduce` is "sum" or "max" over the labels for entropy, expected_entropy and bald; None for binary, where L = 1.
    """

    def __init__(
        self, shape: BlockShape, rows: int, L: int, dtype: np.dtype[Any], reduce: str | None, accurate_bald: bool
    ) -> None:
        self.shape, self.dtype, self.reduce, self.accurate_bald = shape, dtype, reduce, accurate_bald
        self.a_NTL, self.e_NTL = shape.scratch(rows, L, dtype), shape.scratch(rows, L, dtype)

    def score(self, source_NTL: NDArray[Any], want: Collection[str]) -> dict[str, NDArray[Any]]:
        """See `row_stats_cpu_block.Block`."""
        N, T, L = source_NTL.shape
        p_NL, rest_NL, expected_NL = (self._zeros(N, L) for _ in range(3))
        votes_NL, finite_N = np.zeros((N, L), np.int32), np.ones(N, np.bool_)
        for sigmoids in self._sigmoids(source_NTL):
            positive_NTL, p_NTL, rest_NTL, entropy_NTL = sigmoids
            p_NL += np.einsum("ntl->nl", p_NTL)
            rest_NL += np.einsum("ntl->nl", rest_NTL)
            expected_NL += np.einsum("ntl->nl", entropy_NTL)
            votes_NL += np.add.reduce(positive_NTL.view(np.uint8), axis=1, dtype=np.uint8)
            finite_N &= ~np.isnan(entropy_NTL).any(axis=(1, 2))
        means = Means(p_NL / T, rest_NL / T, expected_NL / T)

        def again() -> Iterable[Sigmoids]:
            """The passes once more: if the scratch memory held them all in one go, the last sigmoids are those."""
            return [sigmoids] if self.shape.passes >= T else self._sigmoids(source_NTL)

        scores = label_scores(means, want)
        if "bald" in want and self.accurate_bald:
            scores["bald"] = accurate_bald(again, means, T)
        if "mean_std" in want:
            scores["mean_std"] = mean_std(again(), means, T)
        if self.reduce is None:
            scores = binary_scores(scores, means, votes_NL[:, 0] / T, want)
        else:
            scores = multilabel_scores(scores, means, self.reduce)
        return scores | {"finite": finite_N}

    def _zeros(self, N: int, L: int) -> Floats:
        zeros_NL: Floats = self.shape.empty((N, L), self.dtype)
        zeros_NL[:] = 0.0
        return zeros_NL

    def _sigmoids(self, source_NTL: NDArray[Any]) -> Iterator[Sigmoids]:
        """The passes, as many at a time as the scratch memory holds."""
        N, T, _ = source_NTL.shape
        for first in range(0, T, self.shape.passes):
            x_NTL = source_NTL[:, first : first + self.shape.passes]
            a_NTL, e_NTL = self.a_NTL[:N, : x_NTL.shape[1]], self.e_NTL[:N, : x_NTL.shape[1]]
            load(x_NTL, a_NTL)
            positive_NTL, negative_NTL = a_NTL > 0, sign_mask(a_NTL)
            np.abs(np.clip(a_NTL, -HIGHEST, HIGHEST, out=a_NTL), out=a_NTL)
            np.exp(np.negative(a_NTL, out=e_NTL), out=e_NTL)
            larger_NTL = 1.0 / (1.0 + e_NTL)
            entropy_NTL = np.log1p(e_NTL)
            smaller_NTL = np.multiply(e_NTL, larger_NTL, out=e_NTL)
            entropy_NTL += np.multiply(a_NTL, smaller_NTL, out=a_NTL)
            exchange(larger_NTL, smaller_NTL, negative_NTL)
            yield positive_NTL, larger_NTL, smaller_NTL, entropy_NTL


def sign_mask(x: Floats) -> NDArray[Any]:
    """Integers with all bits set where the sign bit of x is."""
    bits = 8 * x.itemsize
    mask: NDArray[Any] = x.view(f"i{x.itemsize}") >> (bits - 1)
    return mask


def exchange(x: Floats, y: Floats, mask: NDArray[Any]) -> None:
    """Exchange x and y where the mask's bits are set. On random signs `np.where` takes 10 times as long."""
    x_bits, y_bits = x.view(mask.dtype), y.view(mask.dtype)
    mask &= x_bits ^ y_bits
    x_bits ^= mask
    y_bits ^= mask


def label_scores(means: Means, want: Collection[str]) -> dict[str, NDArray[Any]]:
    """The wanted entropies that binary and multilabel share, per label [N, L]."""
    smaller_NL, larger_NL = np.minimum(means.p, means.rest), np.maximum(means.p, means.rest)
    log_NL = np.log(np.maximum(smaller_NL, np.finfo(smaller_NL.dtype).tiny))
    entropy_NL = non_negative(-(smaller_NL * log_NL + larger_NL * np.log1p(-smaller_NL)))
    scores = {
        "entropy": entropy_NL,
        "expected_entropy": means.entropy,
        "bald": non_negative(entropy_NL - means.entropy),
    }
    return {name: score_NL for name, score_NL in scores.items() if name in want}


def mean_std(passes: Iterable[Sigmoids], means: Means, T: int) -> Floats:
    """sqrt(mean_t (p_t - mean)²) per label, [N, L]. A second run over the passes: mean p² - (mean p)² would cancel."""
    squares_NL = np.zeros_like(means.p)
    for _, p_NTL, _, _ in passes:
        deviation_NTL = p_NTL - means.p[:, None]
        squares_NL += np.einsum("ntl,ntl->nl", deviation_NTL, deviation_NTL)
    std_NL: Floats = np.sqrt(squares_NL / T)
    return std_NL


def accurate_bald(passes: Callable[[], Iterable[Sigmoids]], means: Means, T: int) -> Floats:
    """mean_t KL(p_t || mean) per label, nats, [N, L]. The first of two more runs makes the mean of equal p_t exact."""
    p_off_NL, rest_off_NL, terms_NL = (np.zeros_like(means.p) for _ in range(3))
    for _, p_NTL, rest_NTL, _ in passes():
        p_off_NL += np.einsum("ntl->nl", p_NTL - means.p[:, None])
        rest_off_NL += np.einsum("ntl->nl", rest_NTL - means.rest[:, None])
    p_NL, rest_NL = means.p + p_off_NL / T, means.rest + rest_off_NL / T
    for _, p_NTL, rest_NTL, _ in passes():
        terms_NL += np.einsum("ntl->nl", kl_terms(p_NTL, p_NL[:, None]))
        terms_NL += np.einsum("ntl->nl", kl_terms(rest_NTL, rest_NL[:, None]))
    terms_NL /= T
    return terms_NL


def binary_scores(
    scores: dict[str, NDArray[Any]], means: Means, positive_N: NDArray[np.float64], want: Collection[str]
) -> dict[str, NDArray[Any]]:
    """Class (p = 0.5 is class 0), its probability, and all wanted scores, [N] each. `positive_N`: share of p > 0.5."""
    scores = {name: score_N1[:, 0] for name, score_N1 in scores.items()}
    p_N, rest_N = means.p[:, 0], means.rest[:, 0]
    if "variation_ratio" in want:
        scores["variation_ratio"] = np.minimum(positive_N, 1.0 - positive_N)
    if "least_confidence" in want:
        scores["least_confidence"] = np.minimum(p_N, rest_N)
    if "margin" in want:
        scores["margin"] = 2.0 * np.minimum(p_N, rest_N)  # 1 - |p - (1 - p)|
    return scores | {"prediction": p_N > rest_N, "confidence": np.maximum(p_N, rest_N)}


def multilabel_scores(scores: dict[str, NDArray[Any]], means: Means, reduce: str) -> dict[str, NDArray[Any]]:
    """Most probable label (the lowest on ties), its probability, and the scores over the labels, [N] each."""
    for name, score_NL in scores.items():
        if name == "mean_std" or reduce == "sum":
            scores[name] = sum_last("nl->n", score_NL.astype(np.float64))
        else:
            scores[name] = score_NL.max(axis=1)
    if "mean_std" in scores:
        scores["mean_std"] /= means.p.shape[1]
    return scores | {"prediction": means.p.argmax(axis=1), "confidence": means.p.max(axis=1)}
