"""Acquisition scores of a batch of rows from the logits of T stochastic passes.

`row_stats` takes the fastest way there is for a device; `row_stats_reference` is the specification in plain torch that
the others are tested against. With p_t the probabilities of pass t, p̄ = mean_t p_t
and H[p] = -sum_c p_c ln p_c (nats, 0 ln 0 = 0):

    entropy              H[p̄]
    expected_entropy     mean_t H[p_t]
    bald                 entropy - expected_entropy, clamped at 0; accurate_bald: mean_t KL(p_t || p̄), the same thing
    variation_ratio      1 - (votes of the modal argmax class)/T; a tie votes for the lowest class
    mean_std             mean_c sqrt(mean_t (p_tc - p̄_c)²)
    least_confidence     1 - max_c p̄_c
    margin               1 - (largest p̄ - second largest p̄)
    predictive_variance  Var_t[y_t] (+ mean_t σ_t²), summed over outputs

Larger always means more worth labelling. Sources: Houlsby, Huszár, Ghahramani, Lengyel 2011 (Bayesian Active Learning
for Classification and Preference Learning); Gal, Islam, Ghahramani 2017 (Deep Bayesian Active Learning with Image
Data); Kendall, Gal 2017 (noise that the model predicts).

As a difference of entropies, bald in float32 has a noise floor of about 1e-6 nats (more for a sum over labels): rows
below it are in no order. As mean_t KL(p_t || p̄) it has a relative error of about 1e-3 at 1e-9 nats, and is exactly 0
where all passes are equal (`kl_terms.py`). That takes more arithmetic (on a CPU 3 to 7 times the time), and on a GPU a
second read of rows whose logits do not fit into registers.

Arithmetic is float32, or float64 for float64 logits. A row's results are the same bits alone and in any batch, though
not the same on every way. On a CPU they are the same in any memory layout as well (`fixed_order.py` says how; tests
check it); the GPU kernels add in an order that depends on the strides.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from poolscore.kernels.row_result import RowStats
from poolscore.kernels.row_stats_bernoulli import binary_stats, multilabel_stats
from poolscore.kernels.row_stats_cpu import CPU_DTYPES, CPU_TASKS, row_stats_cpu
from poolscore.kernels.row_stats_gaussian import gaussian_stats
from poolscore.kernels.row_stats_softmax import softmax_stats
from poolscore.kernels.triton_devices import runs_triton

__all__ = ["REDUCTIONS", "SCORES_OF_TASK", "RowStats", "row_stats", "row_stats_reference"]

_SHARED = ("entropy", "expected_entropy", "bald", "mean_std")
SCORES_OF_TASK: dict[str, frozenset[str]] = {
    "multiclass": frozenset({*_SHARED, "variation_ratio", "least_confidence", "margin"}),
    "binary": frozenset({*_SHARED, "variation_ratio", "least_confidence", "margin"}),
    "multilabel": frozenset(_SHARED),
    "regression": frozenset({"predictive_variance"}),
}
REDUCTIONS = ("sum", "max")
TRITON_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def row_stats(
    logits_NTC: Tensor,
    task: str,
    want: Collection[str],
    *,
    reduce: str = "sum",
    accurate_bald: bool = False,
    predicts_noise: bool = False,
) -> RowStats:
    """Scores, predictions and finite flags of N rows. Only the scores in `want` are computed.

    Args:
        logits_NTC: floating point [N, T, C], any strides, not written to; N may be 0. binary: C = 1; regression: the
            outputs, C = D, or C = 2D when the model predicts its noise (D means, then D log-variances).
        task: "multiclass", "binary", "multilabel" or "regression".
        want: names of scores that the task has; none is allowed, the predictions come anyway.
        reduce: multilabel only, "sum" or "max" over the labels for entropy, expected_entropy and bald.
        accurate_bald: not for regression: bald as mean_t KL(p_t || p̄), accurate far below 1e-6 nats (see above).
        predicts_noise: regression only.

    Returns:
        RowStats. `prediction` is argmax p̄ (multiclass), 0 or 1 (binary), the label with the highest p̄ (multilabel), all
        int64 [N] and the lowest on ties; or mean_t y [N, D] (regression). `confidence` is its p̄ (regression: None).
        `finite` is False for rows with NaN; multiclass: also with +inf, or with -inf in all classes of a pass (single
        -inf are masked classes, p = 0); regression: also with ±inf or where a result overflows. In binary and
        multilabel ±inf are p = 0 and 1, and finite.

    Raises:
        ValueError: unknown task or reduce, a score that the task does not have, an option of another task, or a shape
            or dtype that does not fit.
    """
    _check_options(task, want, reduce, accurate_bald, predicts_noise)
    _check_logits(logits_NTC, task, predicts_noise)
    if logits_NTC.device.type == "cpu" and logits_NTC.dtype in CPU_DTYPES and task in CPU_TASKS:
        return row_stats_cpu(logits_NTC, task, want, reduce=reduce, accurate_bald=accurate_bald)
    way = row_stats_reference
    if runs_triton(logits_NTC.device) and logits_NTC.dtype in TRITON_DTYPES:
        from poolscore.kernels.row_stats_triton import row_stats_triton  # only here: there is no Triton for macOS

        way = row_stats_triton
    return way(logits_NTC, task, want, reduce=reduce, accurate_bald=accurate_bald, predicts_noise=predicts_noise)


def row_stats_reference(
    logits_NTC: Tensor,
    task: str,
    want: Collection[str],
    *,
    reduce: str = "sum",
    accurate_bald: bool = False,
    predicts_noise: bool = False,
) -> RowStats:
    """`row_stats` in plain torch, on any device: the specification. Arguments are not checked."""
    if task == "multiclass":
        return softmax_stats(logits_NTC, want, accurate_bald)
    if task == "binary":
        return binary_stats(logits_NTC, want, accurate_bald)
    if task == "multilabel":
        return multilabel_stats(logits_NTC, want, reduce, accurate_bald)
    return gaussian_stats(logits_NTC, want, predicts_noise)


def _check_options(task: str, want: Collection[str], reduce: str, accurate_bald: bool, predicts_noise: bool) -> None:
    if task not in SCORES_OF_TASK:
        raise ValueError(f"task must be one of {', '.join(SCORES_OF_TASK)}, got '{task}'")
    if isinstance(want, str):
        raise ValueError(f"want must be a collection of score names, got the text '{want}'")
    unknown = sorted(set(want) - SCORES_OF_TASK[task])
    if unknown:
        raise ValueError(f"task {task} has no score '{unknown[0]}', only {', '.join(sorted(SCORES_OF_TASK[task]))}")
    if reduce not in REDUCTIONS:
        raise ValueError(f"reduce must be one of {', '.join(REDUCTIONS)}, got '{reduce}'")
    if reduce != "sum" and task != "multilabel":
        raise ValueError(f"reduce='{reduce}' is an option of multilabel, but the task is {task}")
    if accurate_bald and task == "regression":
        raise ValueError("accurate_bald is an option of multiclass, binary and multilabel, but the task is regression")
    if predicts_noise and task != "regression":
        raise ValueError(f"predicts_noise is an option of regression, but the task is {task}")


def _check_logits(logits_NTC: Tensor, task: str, predicts_noise: bool) -> None:
    shape = list(logits_NTC.shape)
    if not logits_NTC.is_floating_point():
        raise ValueError(f"logits must be floating point, got {logits_NTC.dtype}")
    if len(shape) != 3 or 0 in shape[1:]:
        raise ValueError(f"logits must be [N, T, C] with T and C at least 1, got {shape}")
    if task == "binary" and shape[2] != 1:
        raise ValueError(f"binary needs one logit, [N, T, 1], got {shape}; two logits are multiclass")
    if predicts_noise and shape[2] % 2:
        raise ValueError(f"predicts_noise needs [N, T, 2D], means then log-variances, got {shape}")
