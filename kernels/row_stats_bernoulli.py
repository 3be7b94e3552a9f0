"""Scores of independent sigmoids: one logit (binary) or one per label (multilabel). See `row_stats.py`.

Shapes: N rows, T passes, L labels (1 for binary). One pass at a time is in memory.

With a = |z| and e = exp(-a), the smaller of p and 1 - p is e/(1 + e) and the entropy is ln(1 + e) + a·e/(1 + e), both
terms >= 0. So nothing cancels for any logit. A logit of -inf or +inf is p = 0 or 1 exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from poolscore.kernels.fixed_order import first_argmax, non_negative, sum_last, upcast_passes
from poolscore.kernels.kl_terms import kl_terms
from poolscore.kernels.row_result import RowStats

HIGHEST = 1e30  # stands for |±inf|: exp(-1e30) is 0, and 1e30 · 0 is 0 where inf · 0 would be NaN


@dataclass(frozen=True)
class _Moments:
    """Means over the passes, each [N, L]. 1 - p has its own mean, so that it is accurate where p is close to 1."""

    p: Tensor
    rest: Tensor  # of 1 - p
    entropy: Tensor
    votes: Tensor  # int32, number of passes with p > 0.5
    finite: Tensor  # bool [N]


def binary_stats(logits_NT1: Tensor, want: Collection[str], accurate_bald: bool = False) -> RowStats:
    """Scores, class (0 or 1; p = 0.5 is class 0) and its probability for logits [N, T, 1].

    accurate_bald: bald as in `kl_terms.py`. A row is finite unless a logit is NaN.
    """
    T = logits_NT1.shape[1]
    moments = _moments(logits_NT1)
    p_N, rest_N = moments.p[:, 0], moments.rest[:, 0]
    smaller_N = torch.minimum(p_N, rest_N)
    scores = {name: s[:, 0] for name, s in _label_scores(logits_NT1, moments, want, accurate_bald).items()}
    if "variation_ratio" in want:
        votes_N = moments.votes[:, 0]
        scores["variation_ratio"] = torch.minimum(votes_N, T - votes_N).to(p_N.dtype) / T
    if "least_confidence" in want:
        scores["least_confidence"] = smaller_N
    if "margin" in want:
        scores["margin"] = 2.0 * smaller_N  # 1 - |p - (1 - p)|
    return RowStats(scores, (p_N > rest_N).to(torch.int64), torch.maximum(p_N, rest_N), moments.finite)


def multilabel_stats(logits_NTL: Tensor, want: Collection[str], reduce: str, accurate_bald: bool = False) -> RowStats:
    """Scores, most probable label (the lowest on ties) and its probability for logits [N, T, L].

    entropy, expected_entropy and bald are summed over the labels, or their maximum is taken: reduce is "sum" or "max".
    For bald that is the sum or maximum of the labels' own clamped values. mean_std is the mean over the labels.
    accurate_bald: bald as in `kl_terms.py`. A row is finite unless a logit is NaN.
    """
    moments = _moments(logits_NTL)
    reducers: dict[str, Callable[[Tensor], Tensor]] = {"sum": sum_last, "max": lambda x_NL: x_NL.amax(-1)}
    scores = _label_scores(logits_NTL, moments, want, accurate_bald)
    for name, score_NL in scores.items():
        scores[name] = sum_last(score_NL) / logits_NTL.shape[2] if name == "mean_std" else reducers[reduce](score_NL)
    prediction_N = first_argmax(moments.p)
    confidence_N = moments.p.gather(1, prediction_N[:, None])[:, 0]
    return RowStats(scores, prediction_N, confidence_N, moments.finite)


def _bernoulli(logits_NL: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """p, 1 - p and the entropy in nats of one pass, each [N, L] and with full relative accuracy."""
    a_NL = logits_NL.abs().clamp_(max=HIGHEST)
    e_NL = (-a_NL).exp_()
    larger_NL = 1.0 / (1.0 + e_NL)
    smaller_NL = e_NL / (1.0 + e_NL)
    entropy_NL = e_NL.log1p_() + a_NL * smaller_NL
    positive_NL = logits_NL > 0
    p_NL = torch.where(positive_NL, larger_NL, smaller_NL)
    return p_NL, torch.where(positive_NL, smaller_NL, larger_NL), entropy_NL


def _moments(logits_NTL: Tensor) -> _Moments:
    N, T, L = logits_NTL.shape
    device = logits_NTL.device
    dtype = torch.float64 if logits_NTL.dtype == torch.float64 else torch.float32
    p_NL, rest_NL, entropy_NL = (torch.zeros((N, L), dtype=dtype, device=device) for _ in range(3))
    votes_NL = torch.zeros((N, L), dtype=torch.int32, device=device)
    finite_N = torch.ones(N, dtype=torch.bool, device=device)
    for logits_NL in upcast_passes(logits_NTL):
        p, rest, entropy = _bernoulli(logits_NL)
        p_NL += p
        rest_NL += rest
        entropy_NL += entropy
        votes_NL += logits_NL > 0
        finite_N &= ~logits_NL.isnan().any(-1)
    return _Moments(p_NL / T, rest_NL / T, entropy_NL / T, votes_NL, finite_N)


def _label_scores(
    logits_NTL: Tensor, moments: _Moments, want: Collection[str], accurate_bald: bool
) -> dict[str, Tensor]:
    """The scores that binary and multilabel share, per label [N, L]."""
    scores: dict[str, Tensor] = {}
    entropy_NL = _mean_entropy(moments)
    if "entropy" in want:
        scores["entropy"] = entropy_NL
    if "expected_entropy" in want:
        scores["expected_entropy"] = moments.entropy
    if "bald" in want:
        scores["bald"] = _bald(logits_NTL, moments) if accurate_bald else non_negative(entropy_NL - moments.entropy)
    if "mean_std" in want:
        squares_NL = torch.zeros_like(moments.p)
        for logits_NL in upcast_passes(logits_NTL):  # a second run: mean p² - (mean p)² would cancel
            squares_NL += _bernoulli(logits_NL)[0].sub_(moments.p).square_()
        scores["mean_std"] = squares_NL.div_(logits_NTL.shape[1]).sqrt_()
    return scores


def _bald(logits_NTL: Tensor, moments: _Moments) -> Tensor:
    """mean_t KL(p_t || mean), nats, [N, L]. The first of two more runs makes the mean of equal p_t exact."""
    T = logits_NTL.shape[1]
    p_off_NL, rest_off_NL = torch.zeros_like(moments.p), torch.zeros_like(moments.p)
    for logits_NL in upcast_passes(logits_NTL):
        p_NL, rest_NL, _ = _bernoulli(logits_NL)
        p_off_NL += p_NL - moments.p
        rest_off_NL += rest_NL - moments.rest
    mean_p_NL, mean_rest_NL = moments.p + p_off_NL / T, moments.rest + rest_off_NL / T
    terms_NL = torch.zeros_like(moments.p)
    for logits_NL in upcast_passes(logits_NTL):
        p_NL, rest_NL, _ = _bernoulli(logits_NL)
        terms_NL += kl_terms(p_NL, mean_p_NL) + kl_terms(rest_NL, mean_rest_NL)
    return terms_NL / T


def _mean_entropy(moments: _Moments) -> Tensor:
    """H[mean p], nats, [N, L]: with s the smaller of the two means, -s ln s - (1 - s) ln(1 - s)."""
    smaller_NL = torch.minimum(moments.p, moments.rest)
    larger_NL = torch.maximum(moments.p, moments.rest)
    log_NL = smaller_NL.clamp(min=torch.finfo(smaller_NL.dtype).tiny).log_()
    return non_negative(-(smaller_NL * log_NL + larger_NL * (-smaller_NL).log1p_()))
