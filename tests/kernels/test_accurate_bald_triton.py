"""BALD as mean_t KL(p_t || p̄) in the Triton kernels, on a GPU or in the interpreter (`triton_device.py`)."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from row_stats_rows import adversarial_rows, assert_bald_is_accurate, assert_same_bits, layouts, nearly_equal_passes
from torch import Tensor
from triton_device import DEVICE, RUNS_TRITON

from poolscore.kernels.row_stats import SCORES_OF_TASK
from poolscore.kernels.row_stats_triton import launch_softmax, row_stats_triton
from poolscore.kernels.row_stats_triton_plan import ONE_PROGRAM, Strides, softmax_plan

pytestmark = RUNS_TRITON
BF16, FP32 = torch.bfloat16, torch.float32
BALD = ["bald"]


def rows(T: int, C: int, dtype: torch.dtype = FP32) -> Tensor:
    """bfloat16 makes the passes of most rows equal; in the interpreter it must not see subnormals."""
    rows_NTC = torch.cat([nearly_equal_passes(T, C), adversarial_rows(T, C)]).to(DEVICE, dtype)
    return rows_NTC if dtype == FP32 else torch.where(rows_NTC.abs() < 1e-38, 0.0, rows_NTC)


# A thread per row, joined passes, shared warps, a row per program.
@pytest.mark.parametrize(
    ("T", "C", "dtype"), [(1, 3, FP32), (20, 10, FP32), (4, 10, BF16), (3, 100, FP32), (2, 700, FP32)]
)
def test_one_pass(T: int, C: int, dtype: torch.dtype) -> None:
    logits_NTC = rows(T, C, dtype)
    got = row_stats_triton(logits_NTC, "multiclass", BALD, accurate_bald=True)
    assert_bald_is_accurate(logits_NTC, got, "multiclass")
    for view in layouts(logits_NTC)[1:]:
        part = row_stats_triton(view[5:9], "multiclass", BALD, accurate_bald=True)
        assert_bald_is_accurate(view[5:9], part, "multiclass")
        assert_same_bits(part, row_stats_triton(view[6:7], "multiclass", BALD, accurate_bald=True), slice(1, 2))


@pytest.mark.parametrize(("T", "C"), [(3, 300), (2, 129)])
def test_two_phases(T: int, C: int) -> None:
    """Tiles so small that a few classes make several slices and blocks."""
    logits_NTC = rows(T, C)[::3]
    plan = softmax_plan(T, ONE_PROGRAM + 1, Strides.of(logits_NTC), BALD, accurate_bald=True)
    V = plan.constants["V"]
    S, NB = -(-C // (64 * V)), -(-C // (32 * V))
    sizes = {"C": C, "P": 32, "K": 1, "SLICE": 64 * V, "S": S, "NB": NB}
    plan = dataclasses.replace(plan, constants=plan.constants | sizes, num_warps=1, tasks=T * S + NB)
    got = launch_softmax(logits_NTC, plan, BALD, lag=3)
    assert_bald_is_accurate(logits_NTC, got, "multiclass")
    assert_same_bits(got, launch_softmax(logits_NTC[2:4], plan, BALD, lag=1), slice(2, 4))


@pytest.mark.parametrize("task", ["binary", "multilabel"])
@pytest.mark.parametrize("reduce", ["sum", "max"])
def test_sigmoids(task: str, reduce: str) -> None:
    for T, L in ((7, 1), (2, 130)):
        logits_NTL = rows(T, 1 if task == "binary" else L)
        got = row_stats_triton(logits_NTL, task, BALD, reduce=reduce, accurate_bald=True)
        assert_bald_is_accurate(logits_NTL, got, task, reduce if task == "multilabel" else "sum")


@pytest.mark.parametrize("task", ["multiclass", "binary", "multilabel"])
@pytest.mark.parametrize("T", [3, 11])
def test_identical_passes_have_none_at_all(task: str, T: int) -> None:
    for C in (1,) if task == "binary" else (5, 40):
        logits_NTC = (nearly_equal_passes(1, C) * 2).expand(12, T, C).to(DEVICE)
        got = row_stats_triton(logits_NTC, task, BALD, accurate_bald=True)
        assert got.scores["bald"].abs().max() == 0


@pytest.mark.parametrize(("T", "C"), [(4, 10), (3, 40), (2, 520)])
def test_only_what_is_wanted(T: int, C: int) -> None:
    logits_NTC = nearly_equal_passes(T, C)[:3].to(DEVICE)
    want = sorted(SCORES_OF_TASK["multiclass"])
    everything = row_stats_triton(logits_NTC, "multiclass", want, accurate_bald=True)
    for name in want:
        one = row_stats_triton(logits_NTC, "multiclass", [name], accurate_bald=True)
        assert torch.equal(one.scores[name], everything.scores[name]), name
        assert torch.equal(one.confidence, everything.confidence)  # type: ignore[arg-type]
