"""The Triton kernels of the row statistics, on a GPU or in the interpreter (`triton_device.py`)."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from row_stats_rows import (
    INF,
    NAN,
    adversarial_rows,
    assert_no_worse_than_plain,
    assert_same_bits,
    fields,
    layouts,
    random_rows,
)
from torch import Tensor
from triton_device import DEVICE, INTERPRETED, RUNS_TRITON

from poolscore.kernels.row_stats import SCORES_OF_TASK, row_stats_reference
from poolscore.kernels.row_stats_triton import launch_softmax, row_stats_triton
from poolscore.kernels.row_stats_triton_plan import ONE_PROGRAM, Plan, Strides, softmax_plan

pytestmark = RUNS_TRITON
BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32
# Every kind: a thread per row, joined passes, shared warps, a warp per row, several warps, and what does not divide.
SHAPES = [
    (1, 1, FP32),
    (3, 2, FP16),
    (20, 10, FP32),
    (4, 10, BF16),
    (7, 3, BF16),
    (4, 16, BF16),
    (3, 17, FP32),
    (5, 100, BF16),
    (3, 257, FP32),
    (1, 523, FP16),
    (3, 1000, BF16),
    (2, 4096, FP32),
]


def wanted(C: int) -> list[str]:
    return sorted(SCORES_OF_TASK["multiclass"] - ({"margin"} if C == 1 else set()))


def softmax_rows(T: int, C: int, dtype: torch.dtype) -> Tensor:
    return to_device(torch.cat([random_rows(T, C), adversarial_rows(T, C)]), dtype)


def to_device(rows_NTC: Tensor, dtype: torch.dtype) -> Tensor:
    """The interpreter reads bfloat16 subnormals as other numbers: they are tested on a GPU, and in float32."""
    rows_NTC = rows_NTC.to(DEVICE, dtype)
    if INTERPRETED and dtype == BF16:
        rows_NTC[rows_NTC.abs() < torch.finfo(BF16).tiny] = 0.0
    return rows_NTC


def small_two_phases(T: int, C: int, strides: Strides, want: list[str]) -> Plan:
    """The two-phase kernel with tiles so small that a few classes make several slices and blocks."""
    plan = softmax_plan(T, ONE_PROGRAM + 1, strides, want)
    sizes = {"C": C, "P": 32, "K": 1, "SLICE": 64 * plan.constants["V"], "S": 0, "NB": 0}
    sizes["S"] = -(-C // sizes["SLICE"])
    sizes["NB"] = -(-C // (32 * plan.constants["V"]))
    tasks = T * sizes["S"] + sizes["NB"]
    return dataclasses.replace(plan, constants=plan.constants | sizes, num_warps=1, tasks=tasks)


@pytest.mark.parametrize(("T", "C", "dtype"), SHAPES)
def test_multiclass(T: int, C: int, dtype: torch.dtype) -> None:
    logits_NTC = softmax_rows(T, C, dtype)
    before = logits_NTC.clone()
    got = row_stats_triton(logits_NTC, "multiclass", wanted(C))
    assert_no_worse_than_plain(logits_NTC, got, "multiclass")
    assert torch.equal(logits_NTC.nan_to_num(nan=7.0), before.nan_to_num(nan=7.0))


@pytest.mark.parametrize("layout", [0, 1, 2], ids=["NTC", "TNC", "strided"])
@pytest.mark.parametrize(("T", "C", "dtype"), [(3, 300, FP32), (2, 129, BF16), (1, 90, FP16)])
def test_two_phases(T: int, C: int, dtype: torch.dtype, layout: int) -> None:
    rows_NTC = softmax_rows(T, C, dtype)
    logits_NTC = layouts(rows_NTC if layout == 0 else rows_NTC[3:11])[layout]
    strides = Strides.of(logits_NTC)
    plan = small_two_phases(T, C, strides, wanted(C))
    got = launch_softmax(logits_NTC, plan, wanted(C), lag=3)
    assert_no_worse_than_plain(logits_NTC, got, "multiclass")
    for rows, lag in ((slice(0, 3), 1), (slice(1, 3), 1000), (slice(2, 3), 1)):
        other = launch_softmax(logits_NTC[rows], plan, wanted(C), lag=lag)
        assert_same_bits(got, other, rows)


def test_the_dispatcher_takes_two_phases_for_many_classes() -> None:
    logits_NTC = random_rows(2, ONE_PROGRAM + 8)[1:3].to(DEVICE)
    assert "SLICE" in softmax_plan(2, ONE_PROGRAM + 8, Strides.of(logits_NTC), ()).constants
    got = row_stats_triton(logits_NTC, "multiclass", wanted(100))
    assert_no_worse_than_plain(logits_NTC, got, "multiclass")


@pytest.mark.parametrize(
    ("N", "T", "C", "dtype"), [(130, 4, 10, BF16), (130, 3, 7, FP32), (17, 3, 100, FP32), (4, 2, 600, BF16)]
)
def test_bits_do_not_depend_on_the_batch(N: int, T: int, C: int, dtype: torch.dtype) -> None:
    """Any number of rows, any neighbours; N = 1 whether it is a slice or a tensor of its own."""
    logits_NTC = torch.cat([random_rows(T, C, seed) for seed in range(N // 6 + 1)])[:N].to(DEVICE, dtype)
    for view in layouts(logits_NTC):
        whole = row_stats_triton(view, "multiclass", wanted(C))
        for rows in (slice(0, 1), slice(N - 1, N), slice(1, 4)):
            assert_same_bits(whole, row_stats_triton(view[rows], "multiclass", wanted(C)), rows)
    whole = row_stats_triton(logits_NTC, "multiclass", wanted(C))
    assert_same_bits(whole, row_stats_triton(logits_NTC[3:4].clone(), "multiclass", wanted(C)), slice(3, 4))
    poisoned_NTC = torch.full_like(logits_NTC, NAN)
    poisoned_NTC[2] = logits_NTC[2]
    dirty = row_stats_triton(poisoned_NTC, "multiclass", wanted(C))
    assert dirty.finite.sum() == 1
    for name, value in fields(whole).items():
        assert torch.equal(value[2], fields(dirty)[name][2]), name


def test_narrow_rows_have_the_same_bits_in_any_layout() -> None:
    """With C <= 16 nothing crosses threads, so neither the strides nor the width of the loads count."""
    logits_NTC = softmax_rows(4, 10, BF16)
    whole = row_stats_triton(logits_NTC, "multiclass", wanted(10))
    for view in layouts(logits_NTC):
        other = row_stats_triton(view, "multiclass", wanted(10))
        for name, value in fields(whole).items():
            assert torch.equal(value[whole.finite], fields(other)[name][whole.finite]), name


@pytest.mark.parametrize(("T", "C"), [(4, 10), (3, 40), (2, 520)])
def test_only_what_is_wanted(T: int, C: int) -> None:
    """A score's bits do not depend on what else is asked for."""
    logits_NTC = random_rows(T, C)[1:4].to(DEVICE)
    everything = row_stats_triton(logits_NTC, "multiclass", wanted(C))
    for name in wanted(C):
        one = row_stats_triton(logits_NTC, "multiclass", [name])
        assert list(one.scores) == [name]
        assert torch.equal(one.scores[name], everything.scores[name]), name
        assert torch.equal(one.prediction, everything.prediction)
        assert torch.equal(one.finite, everything.finite)
    assert row_stats_triton(logits_NTC, "multiclass", ()).scores == {}


@pytest.mark.parametrize(("T", "C"), [(65, 3), (32, 20), (33, 20), (33, 520)])
def test_votes(T: int, C: int) -> None:
    """Few distinct values, so that maxima tie: the lowest class has the vote. T around the limits of how it counts."""
    generator = torch.Generator().manual_seed(T)
    logits_NTC = torch.randint(0, 3, (3, T, C), generator=generator).to(DEVICE, FP16)
    logits_NTC[:, ::2, 2] = 3
    got = row_stats_triton(logits_NTC, "multiclass", ["variation_ratio"])
    expected = row_stats_reference(logits_NTC.cpu(), "multiclass", ["variation_ratio"])
    torch.testing.assert_close(
        got.scores["variation_ratio"].cpu(), expected.scores["variation_ratio"], rtol=0, atol=1e-7
    )


def test_predictions_of_ties_are_the_lowest_class() -> None:
    for C in (3, 17, 700, 3000):
        logits_NTC = torch.zeros(3, 2, C)
        logits_NTC[1, :, C // 2 :] = 1.0
        logits_NTC[2, 0, C - 1] = logits_NTC[2, 1, C - 2] = 9.0
        got = row_stats_triton(logits_NTC.to(DEVICE), "multiclass", [])
        assert got.prediction.tolist() == [0, C // 2, C - 2], C


@pytest.mark.parametrize("T", [3, 49])
@pytest.mark.parametrize("C", [3, 40, 520])
def test_certain_rows_are_exactly_zero(T: int, C: int) -> None:
    """All passes sure of one class: nothing is left of rounding. Two classes in turn: ln 2, all of it disagreement."""
    logits_NTC = torch.full((2, T, C), -INF, device=DEVICE)
    logits_NTC[:, :, C - 2] = 5.0
    logits_NTC[1, : T // 2, :] = -1e4
    logits_NTC[1, : T // 2, 1] = 1e4
    got = row_stats_triton(logits_NTC, "multiclass", wanted(C))
    assert got.finite.all()
    assert got.prediction.tolist() == [C - 2, C - 2]
    assert {name: value[0].item() for name, value in got.scores.items()} == dict.fromkeys(wanted(C), 0.0)
    p = (T // 2) / T if C > 3 else 0.0
    if p:
        assert got.scores["bald"][1].item() == pytest.approx(-p * math.log(p) - (1 - p) * math.log(1 - p), abs=3e-7)
        assert got.scores["expected_entropy"][1].item() == 0.0


def test_mean_std_does_not_cancel() -> None:
    """A deviation of 3e-4 around 1/2: mean p² - (mean p)² in float32 would be noise."""
    for C in (2, 40):
        logits_NTC = torch.full((1, 4, C), -INF)
        logits_NTC[0, :, 0] = 0.0
        logits_NTC[0, :, 1] = torch.tensor([0.0, 1e-3, 2e-3, 3e-3])
        expected = row_stats_reference(logits_NTC.double(), "multiclass", ["mean_std"]).scores["mean_std"].item()
        got = row_stats_triton(logits_NTC.to(DEVICE), "multiclass", ["mean_std"]).scores["mean_std"].item()
        assert got == pytest.approx(expected, rel=1e-3)


def test_binary_keeps_small_probabilities() -> None:
    """e^-30 is below float32's spacing at 1, and still there with all its digits."""
    rest = math.exp(-30)
    for logit in (30.0, -30.0):
        got = row_stats_triton(torch.full((1, 5, 1), logit, device=DEVICE), "binary", SCORES_OF_TASK["binary"])
        assert got.scores["least_confidence"].item() == pytest.approx(rest, rel=1e-6)
        assert got.scores["entropy"].item() == pytest.approx(31 * rest, rel=1e-6)
        assert got.scores["expected_entropy"].item() == pytest.approx(31 * rest, rel=1e-6)


@pytest.mark.parametrize("task", ["binary", "multilabel"])
@pytest.mark.parametrize(("T", "L", "dtype"), [(1, 1, FP32), (7, 1, BF16), (4, 5, FP16), (2, 130, FP32)])
def test_bernoulli(task: str, T: int, L: int, dtype: torch.dtype) -> None:
    L = 1 if task == "binary" else L
    rows_NTL = to_device(torch.cat([random_rows(T, L), adversarial_rows(T, L), -adversarial_rows(T, L)]), dtype)
    want = sorted(SCORES_OF_TASK[task])
    for reduce in ("sum", "max") if task == "multilabel" else ("sum",):
        got = row_stats_triton(rows_NTL, task, want, reduce=reduce)
        assert_no_worse_than_plain(rows_NTL, got, task, reduce=reduce)
        for view in layouts(rows_NTL):
            for rows in (slice(4, 6), slice(11, 12)):
                assert_same_bits(got, row_stats_triton(view[rows], task, want, reduce=reduce), rows)


@pytest.mark.parametrize("noise", [False, True])
@pytest.mark.parametrize(("T", "D", "dtype"), [(1, 1, FP32), (7, 2, BF16), (2, 130, FP32)])
def test_gaussian(T: int, D: int, dtype: torch.dtype, noise: bool) -> None:
    width = 2 * D if noise else D
    outputs_NTD = to_device(torch.cat([random_rows(T, width) / 8, adversarial_rows(T, width)]), dtype)
    outputs_NTD[6:7] /= 1e3
    for want in ([], ["predictive_variance"]):
        got = row_stats_triton(outputs_NTD, "regression", want, predicts_noise=noise)
        plain = row_stats_reference(outputs_NTD.cpu(), "regression", want, predicts_noise=noise)
        assert torch.equal(got.finite.cpu(), plain.finite)
        for name, value in fields(got).items():
            # the sum over the outputs, and exp of a large log-variance, are relative errors
            good = got.finite.cpu()
            torch.testing.assert_close(value.cpu()[good], fields(plain)[name][good], rtol=2e-6, atol=1e-6)
        for view in layouts(outputs_NTD):
            again = row_stats_triton(view[5:9], "regression", want, predicts_noise=noise)
            for name, value in fields(got).items():
                good = got.finite[5:9]
                assert torch.equal(value[5:9][good], fields(again)[name][good]), name


@pytest.mark.parametrize("far", [0, 1, 2], ids=["rows", "passes", "classes"])
def test_strides_beyond_2_31_elements(far: int) -> None:
    """A storage of 4.3 GB, of which the interpreter touches a few pages."""
    strides = [40, 8, 1]
    strides[far] = 2**31 + 8
    for task, shape in (("multiclass", (2, 2, 2)), ("multilabel", (2, 2, 2)), ("regression", (2, 2, 2))):
        values = torch.randn(shape, generator=torch.Generator().manual_seed(far)).to(DEVICE, FP16)
        logits_NTC = torch.empty(2**31 + 100, dtype=FP16, device=DEVICE).as_strided(shape, strides)
        logits_NTC.copy_(values)
        noise = {"predicts_noise": task == "regression"}
        got = row_stats_triton(logits_NTC, task, sorted(SCORES_OF_TASK[task]), **noise)
        expected = row_stats_reference(values.cpu(), task, sorted(SCORES_OF_TASK[task]), **noise)
        for name, value in got.scores.items():
            torch.testing.assert_close(value.cpu(), expected.scores[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("task", SCORES_OF_TASK)
def test_no_rows(task: str) -> None:
    got = row_stats_triton(torch.zeros(0, 3, 1, device=DEVICE), task, SCORES_OF_TASK[task] - {"margin"})
    assert {value.shape[0] for value in fields(got).values()} == {0}


def test_margin_needs_two_classes() -> None:
    with pytest.raises(ValueError, match="at least 2 classes"):
        row_stats_triton(torch.zeros(2, 3, 1, device=DEVICE), "multiclass", ["margin"])
