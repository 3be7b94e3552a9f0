"""The row statistics on a GPU: `row_stats.py` with Triton kernels. Same scores, same flags, each logit read once.

A row's results do not depend on the number of rows or on its neighbours, bit for bit. In the last bits they do depend
on [T, C], the dtype and the strides, and they differ from those of the plain-torch version.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
import triton
from torch import Tensor

from poolscore.kernels.row_result import RowStats
from poolscore.kernels.row_stats_triton_plan import Plan, Strides, bernoulli_plan, gaussian_plan, softmax_plan
from poolscore.kernels.row_stats_triton_two_phase import softmax_two_phase

L2_BYTES = 30e6  # of the second-level cache that the two-phase kernel counts on (A100: 40 MB, H100 and H200: 50 MB)
# The rows of the score tensor, in the order of row_stats_triton_ops.py.
SCORE_ROWS = ("entropy", "expected_entropy", "bald", "variation_ratio", "mean_std", "least_confidence", "margin")


def row_stats_triton(
    logits_NTC: Tensor,
    task: str,
    want: Collection[str],
    *,
    reduce: str = "sum",
    accurate_bald: bool = False,
    predicts_noise: bool = False,
) -> RowStats:
    """See `row_stats.row_stats`. Arguments are not checked; float32, bfloat16 or float16."""
    if task == "multiclass":
        return softmax_stats_triton(logits_NTC, want, accurate_bald)
    if task == "regression":
        return gaussian_stats_triton(logits_NTC, want, predicts_noise)
    return bernoulli_stats_triton(logits_NTC, want, task == "binary", reduce, accurate_bald)


def softmax_stats_triton(logits_NTC: Tensor, want: Collection[str], accurate_bald: bool) -> RowStats:
    """See `row_stats_softmax.softmax_stats`.

    Raises:
        ValueError: margin with a single class.
    """
    T, C = logits_NTC.shape[1:]
    if "margin" in want and C < 2:
        raise ValueError("margin needs at least 2 classes, got logits with C = 1")
    return launch_softmax(logits_NTC, softmax_plan(T, C, Strides.of(logits_NTC), want, accurate_bald), want)


def bernoulli_stats_triton(
    logits_NTL: Tensor, want: Collection[str], binary: bool, reduce: str, accurate_bald: bool
) -> RowStats:
    """See `row_stats_bernoulli.binary_stats` and `multilabel_stats`."""
    N, T, L = logits_NTL.shape
    plan = bernoulli_plan(T, L, binary, reduce == "max", accurate_bald and "bald" in want)
    results = _results(N, logits_NTL.device)
    _launch(plan, logits_NTL, results)
    return _row_stats(results, want)


def gaussian_stats_triton(outputs_NTD: Tensor, want: Collection[str], predicts_noise: bool) -> RowStats:
    """See `row_stats_gaussian.gaussian_stats`."""
    N, T, width = outputs_NTD.shape
    D = width // 2 if predicts_noise else width
    device = outputs_NTD.device
    variance_N = torch.empty(N, dtype=torch.float32, device=device)
    prediction_ND = torch.empty((N, D), dtype=torch.float32, device=device)
    finite_N = torch.empty(N, dtype=torch.bool, device=device)
    plan = gaussian_plan(T, D, predicts_noise, "predictive_variance" in want)
    _launch(plan, outputs_NTD, (variance_N, prediction_ND, finite_N))
    scores = {"predictive_variance": variance_N} if "predictive_variance" in want else {}
    return RowStats(scores, prediction_ND, None, finite_N)


def launch_softmax(logits_NTC: Tensor, plan: Plan, want: Collection[str], lag: int | None = None) -> RowStats:
    """Run a softmax plan. lag: rows between the phases of the two-phase kernel, of no influence on the results."""
    N, T, C = logits_NTC.shape
    results = _results(N, logits_NTC.device)
    if plan.kernel is softmax_two_phase:
        if lag is None:
            lag = max(1, int(L2_BYTES / (T * C * logits_NTC.itemsize)))
        _launch(plan, logits_NTC, results + _two_phase_scratch(N, plan, logits_NTC.device), min(N, lag))
    else:
        votes = N * T if plan.constants["LIST_VOTES"] else 0
        _launch(plan, logits_NTC, (*results, torch.empty(votes, dtype=torch.int32, device=logits_NTC.device)))
    return _row_stats(results, want)


def _launch(plan: Plan, x_NTC: Tensor, outputs: tuple[Tensor, ...], *more: int) -> None:
    N = x_NTC.shape[0]
    if N == 0:
        return
    # The whole storage, which is aligned, and an offset: so a slice of rows is read by the same instructions.
    storage = x_NTC.as_strided((1,), (1,), 0)
    s = Strides.of(x_NTC)
    with torch.cuda.device_of(x_NTC):
        plan.kernel[(triton.cdiv(N * plan.tasks, plan.rows),)](
            storage, *outputs, N, s.offset, s.n, s.t, s.c, *more,
            **plan.constants, num_warps=plan.num_warps, num_stages=1, enable_fp_fusion=False,
        )  # fmt: skip


def _results(N: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Scores [S, N], prediction, confidence, finite [N]."""
    return (
        torch.empty((len(SCORE_ROWS), N), dtype=torch.float32, device=device),
        torch.empty(N, dtype=torch.int64, device=device),
        torch.empty(N, dtype=torch.float32, device=device),
        torch.empty(N, dtype=torch.bool, device=device),
    )


def _two_phase_scratch(N: int, plan: Plan, device: torch.device) -> tuple[Tensor, ...]:
    """slice, slice_vote, pass, vote, row, block, index, counter: see `row_stats_triton_two_phase.py`."""
    T, S, NB = (plan.constants[name] for name in ("T", "S", "NB"))
    votes = N * T if plan.constants["WANT_VOTES"] else 0

    def floats(size: int) -> Tensor:
        return torch.empty(size, dtype=torch.float32, device=device)

    def ints(size: int) -> Tensor:
        return torch.empty(size, dtype=torch.int32, device=device)

    counters = torch.zeros(1 + 3 * N, dtype=torch.int32, device=device)
    passes = (floats(N * T * S * 3), ints(votes * S), floats(N * T * 2), ints(votes), floats(N * 2))
    return (*passes, floats(N * NB * 5), ints(N * NB), counters)


def _row_stats(results: tuple[Tensor, Tensor, Tensor, Tensor], want: Collection[str]) -> RowStats:
    scores_SN, prediction_N, confidence_N, finite_N = results
    scores = {name: scores_SN[i] for i, name in enumerate(SCORE_ROWS) if name in want}
    return RowStats(scores, prediction_N, confidence_N, finite_N)
