"""The row statistics on a GPU: `row_stats.py` with Triton kernels. Same scores, same flags, each logit read once.

Rows do not depend on their number nor on their neighbours, bit for bit. They do depend, in the last bits, on the shape
[T, C], the dtype and the strides, and they differ from those of the plain-torch version.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
import triton
from torch import Tensor

from poolscore.kernels.row_result import RowStats
from poolscore.kernels.row_stats_triton_one_pass import softmax_one_pass
from poolscore.kernels.row_stats_triton_plan import Plan, Strides, softmax_plan

L2_BYTES = 30e6  # of the second-level cache that the two-phase kernel counts on (A100: 40 MB, H100 and H200: 50 MB)
# The rows of the score tensor, in the order of row_stats_triton_ops.py.
SCORE_ROWS = ("entropy", "expected_entropy", "bald", "variation_ratio", "mean_std", "least_confidence", "margin")


def softmax_stats_triton(logits_NTC: Tensor, want: Collection[str]) -> RowStats:
    """See `row_stats_softmax.softmax_stats`. Logits float32, bfloat16 or float16.

    Raises:
        ValueError: margin with a single class.
    """
    T, C = logits_NTC.shape[1:]
    if "margin" in want and C < 2:
        raise ValueError("margin needs at least 2 classes, got logits with C = 1")
    strides = Strides.of(logits_NTC)
    return launch_softmax(logits_NTC, strides, softmax_plan(T, C, strides, want), want)


def launch_softmax(logits_NTC: Tensor, strides: Strides, plan: Plan, want: Collection[str]) -> RowStats:
    """Run a plan."""
    N, T = logits_NTC.shape[:2]
    device = logits_NTC.device
    scores_SN = torch.empty((len(SCORE_ROWS), N), dtype=torch.float32, device=device)
    prediction_N = torch.empty(N, dtype=torch.int64, device=device)
    confidence_N = torch.empty(N, dtype=torch.float32, device=device)
    finite_N = torch.empty(N, dtype=torch.bool, device=device)
    if N > 0:
        results = (scores_SN, prediction_N, confidence_N, finite_N)
        # The whole storage, which is aligned, and an offset: so a slice of rows is read by the same instructions.
        storage = logits_NTC.as_strided((1,), (1,), 0)
        where = (N, strides.offset, strides.n, strides.t, strides.c)
        with torch.cuda.device_of(logits_NTC):
            if plan.kernel is softmax_one_pass:
                votes_NT = torch.empty(N * T * plan.constants["LIST_VOTES"], dtype=torch.int32, device=device)
                grid = (triton.cdiv(N, plan.rows),)
                plan.kernel[grid](storage, *results, votes_NT, *where, **_options(plan))
            else:
                _launch_two_phases(storage, results, where, plan)
    scores = {name: scores_SN[i] for i, name in enumerate(SCORE_ROWS) if name in want}
    return RowStats(scores, prediction_N, confidence_N, finite_N)


def _launch_two_phases(storage: Tensor, results: tuple[Tensor, ...], where: tuple[int, ...], plan: Plan) -> None:
    N, T, C, S, NB = where[0], *(plan.constants[name] for name in ("T", "C", "S", "NB"))
    device = storage.device

    def floats(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.float32, device=device)

    def ints(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.int32, device=device)

    votes = N if plan.constants["WANT_VOTES"] else 0
    counters = torch.zeros(1 + 3 * N, dtype=torch.int32, device=device)
    scratch = (
        floats(N, T, S, 3),
        ints(votes, T, S),
        floats(N, T, 2),
        ints(votes, T),
        floats(N, 2),
        floats(N, NB, 4),
        ints(N, NB),
        counters,
    )
    lag = min(N, max(1, int(L2_BYTES / (T * C * storage.element_size()))))
    plan.kernel[(N * (T * S + NB),)](storage, *results, *scratch, *where, lag, **_options(plan))


def _options(plan: Plan) -> dict[str, int]:
    return plan.constants | {"num_warps": plan.num_warps, "num_stages": 1, "enable_fp_fusion": False}
