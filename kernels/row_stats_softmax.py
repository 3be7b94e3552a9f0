"""Scores of a softmax over C classes. See `row_stats.py` for the table, the sources and the conventions.

Shapes: N rows, T passes, C classes. One pass at a time is in memory, so the largest temporaries are [N, C].
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from poolscore.kernels.fixed_order import first_argmax, non_negative, sum_last, upcast_passes
from poolscore.kernels.kl_terms import kl_terms
from poolscore.kernels.row_result import RowStats

# exp(-1e30) is 0, and 0 · -1e30 is -0 where 0 · -inf would be NaN: masked classes then contribute nothing to p ln p.
LOWEST = -1e30


def softmax_stats(logits_NTC: Tensor, want: Collection[str], accurate_bald: bool = False) -> RowStats:
    """Scores, argmax and its probability for logits [N, T, C], T >= 1, C >= 1.

    accurate_bald: bald as in `kl_terms.py`. A row is finite unless a pass holds NaN, +inf, or -inf in all classes.

    Raises:
        ValueError: margin with a single class.
    """
    N, T, C = logits_NTC.shape
    if "margin" in want and C < 2:
        raise ValueError("margin needs at least 2 classes, got logits with C = 1")
    differs = "bald" in want and not accurate_bald  # bald is a difference of entropies
    index_C = torch.arange(C, device=logits_NTC.device)
    finite_N = torch.ones(N, dtype=torch.bool, device=logits_NTC.device)
    votes_NC = torch.zeros((N, C), dtype=torch.int32, device=logits_NTC.device)
    probability_sum_NC: Tensor | float = 0.0
    entropy_sum_N: Tensor | float = 0.0
    for logits_NC in upcast_passes(logits_NTC):
        finite_N &= logits_NC.amax(-1).isfinite()  # amax hands NaN on
        if "variation_ratio" in want:
            votes_NC += index_C == first_argmax(logits_NC)[:, None]
        p_NC, entropy_N = _softmax(logits_NC, with_entropy=differs or "expected_entropy" in want)
        probability_sum_NC = p_NC + probability_sum_NC
        if entropy_N is not None:
            entropy_sum_N = entropy_N + entropy_sum_N
    mean_NC = torch.as_tensor(probability_sum_NC) / T
    prediction_N = first_argmax(mean_NC)
    confidence_N = mean_NC.gather(1, prediction_N[:, None])[:, 0]

    scores: dict[str, Tensor] = {}
    if "entropy" in want or differs:
        scores["entropy"] = entropy_of(mean_NC)
    if "expected_entropy" in want or differs:
        scores["expected_entropy"] = non_negative(torch.as_tensor(entropy_sum_N) / T)
    if "bald" in want:
        scores["bald"] = (
            non_negative(scores["entropy"] - scores["expected_entropy"]) if differs else _bald(logits_NTC, mean_NC)
        )
    if "variation_ratio" in want:
        scores["variation_ratio"] = (T - votes_NC.amax(-1)).to(mean_NC.dtype) / T
    if "mean_std" in want:
        scores["mean_std"] = _mean_std(logits_NTC, mean_NC)
    if "least_confidence" in want:
        scores["least_confidence"] = non_negative(1.0 - confidence_N)
    if "margin" in want:
        top_N2 = mean_NC.topk(2, dim=-1).values  # values alone: how topk orders ties does not matter
        scores["margin"] = non_negative(1.0 - (top_N2[:, 0] - top_N2[:, 1]))
    return RowStats({name: s for name, s in scores.items() if name in want}, prediction_N, confidence_N, finite_N)


def entropy_of(p_NC: Tensor) -> Tensor:
    """H[p] = -sum_c p_c ln p_c, nats, [N], with 0 ln 0 = 0."""
    log_p_NC = p_NC.clamp(min=torch.finfo(p_NC.dtype).tiny).log_()
    return non_negative(-sum_last(log_p_NC.mul_(p_NC)))


def _softmax(logits_NC: Tensor, with_entropy: bool) -> tuple[Tensor, Tensor | None]:
    """p [N, C] and H[p] [N] of one pass, from shifted logits z <= 0.

    H = ln s - (sum_c z_c e^z_c) / s with s = sum_c e^z_c: both terms are >= 0, so nothing cancels, and no logarithm of
    a small probability is taken.
    """
    z_NC = (logits_NC - logits_NC.amax(-1, keepdim=True)).clamp_(min=LOWEST)
    exp_NC = z_NC.exp()
    norm_N = sum_last(exp_NC)
    entropy_N = norm_N.log() - sum_last(z_NC.mul_(exp_NC)) / norm_N if with_entropy else None
    return exp_NC.div_(norm_N[:, None]), entropy_N


def _bald(logits_NTC: Tensor, mean_NC: Tensor) -> Tensor:
    """mean_t KL(p_t || mean), nats, [N]. The first of two more runs makes the mean of equal p_t exact."""
    T = logits_NTC.shape[1]
    rest_NC = torch.zeros_like(mean_NC)
    for logits_NC in upcast_passes(logits_NTC):
        rest_NC += _softmax(logits_NC, with_entropy=False)[0].sub_(mean_NC)
    mean_NC = mean_NC + rest_NC / T
    terms_NC = torch.zeros_like(mean_NC)
    for logits_NC in upcast_passes(logits_NTC):
        terms_NC += kl_terms(_softmax(logits_NC, with_entropy=False)[0], mean_NC)
    return sum_last(terms_NC) / T


def _mean_std(logits_NTC: Tensor, mean_NC: Tensor) -> Tensor:
    """mean_c sqrt(mean_t (p_tc - mean_c)²), [N]. A second run over the passes: mean_t p² - mean² would cancel."""
    squares_NC = torch.zeros_like(mean_NC)
    for logits_NC in upcast_passes(logits_NTC):
        p_NC, _ = _softmax(logits_NC, with_entropy=False)
        squares_NC += p_NC.sub_(mean_NC).square_()
    return sum_last(squares_NC.div_(logits_NTC.shape[1]).sqrt_()) / logits_NTC.shape[2]
