"""Row scores of all tasks against the float64 oracle, and what holds for every task: flags, layouts, batches, errors.

Error bound. With u = 2**-24, adding T passes one after the other leaves p̄ with a relative error of up to T·u, which
moves H[p̄] by up to T·u·(1 + H); the rest (exp, the fold over classes, the final sum) is a few u·(1 + H), inside 2e-6
for the sizes here.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from row_stats_oracle import oracle
from row_stats_rows import assert_same_bits, fields, layouts
from torch import Tensor

from poolscore.engine.scores import SCORES
from poolscore.kernels.row_stats import SCORES_OF_TASK, RowStats, row_stats

TASKS = tuple(SCORES_OF_TASK)
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
INF, NAN = math.inf, math.nan
SPECIAL = (-INF, 0.0, -0.0, 1e4, -1e4, 1e-40, -1e-40, 88.0, -104.0, 17.0)


def assert_close_to_oracle(logits_NTC: Tensor, stats: RowStats, task: str, **options: object) -> None:
    """Every score of the finite rows is within the bound of the module's text."""
    good = logits_NTC[stats.finite]
    if not len(good):
        return
    expected = oracle(good.double().numpy(), task, **options)  # type: ignore[arg-type]
    exact = logits_NTC.dtype == torch.float64
    scale = 1 + expected.get("entropy", expected.get("predictive_variance", np.zeros(1)))
    bound = 1e-12 * scale if exact else 2e-6 + good.shape[1] * 2.0**-24 * scale
    assert set(stats.scores) == set(expected)
    for name, value in stats.scores.items():
        assert value.dtype == (torch.float64 if exact else torch.float32)
        error = np.abs(value[stats.finite].double().numpy() - expected[name])
        assert (error <= bound).all(), (name, error.max())
        assert (value[stats.finite] >= 0).all(), name
        assert not torch.signbit(value[stats.finite]).any(), f"{name} is -0.0"


def wanted(task: str, width: int) -> frozenset[str]:
    return SCORES_OF_TASK[task] - ({"margin"} if task == "multiclass" and width == 1 else set())


@st.composite
def logits(draw: st.DrawFn, special: tuple[float, ...], width: int | None = None) -> Tensor:
    N, T = draw(st.integers(0, 4)), draw(st.integers(1, 6))
    C = width or draw(st.integers(1, 7))
    value = st.floats(-30, 30, width=32) | st.sampled_from(special)
    flat = draw(st.lists(value, min_size=N * T * C, max_size=N * T * C))
    return torch.tensor(flat, dtype=torch.float64).reshape(N, T, C)


def test_tables_agree_with_the_engine() -> None:
    for task, names in SCORES_OF_TASK.items():
        assert names == {s.name for s in SCORES.values() if s.from_logits and task in s.tasks}


@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=50, deadline=None)
@given(logits_NTC=logits((*SPECIAL, NAN, INF)))
def test_multiclass(logits_NTC: Tensor, dtype: torch.dtype) -> None:
    logits_NTC = logits_NTC.to(dtype)
    stats = row_stats(logits_NTC, "multiclass", wanted("multiclass", logits_NTC.shape[2]))
    x = logits_NTC.double().numpy()
    bad = np.isnan(x).any((1, 2)) | (x == INF).any((1, 2)) | (x == -INF).all(2).any(1)
    assert np.array_equal(stats.finite.numpy(), ~bad)
    assert_close_to_oracle(logits_NTC, stats, "multiclass")


@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=40, deadline=None)
@given(logits_NTC=logits((*SPECIAL, NAN, INF), width=1))
def test_binary(logits_NTC: Tensor, dtype: torch.dtype) -> None:
    logits_NTC = logits_NTC.to(dtype)
    stats = row_stats(logits_NTC, "binary", SCORES_OF_TASK["binary"])
    assert torch.equal(stats.finite, ~logits_NTC.isnan().any(2).any(1))
    assert_close_to_oracle(logits_NTC, stats, "binary")


@pytest.mark.parametrize("reduce", ["sum", "max"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@settings(max_examples=40, deadline=None)
@given(logits_NTC=logits((*SPECIAL, NAN, INF)))
def test_multilabel(logits_NTC: Tensor, dtype: torch.dtype, reduce: str) -> None:
    logits_NTC = logits_NTC.to(dtype)
    stats = row_stats(logits_NTC, "multilabel", SCORES_OF_TASK["multilabel"], reduce=reduce)
    assert torch.equal(stats.finite, ~logits_NTC.isnan().any(2).any(1))
    assert_close_to_oracle(logits_NTC, stats, "multilabel", reduce=reduce)


@pytest.mark.parametrize("predicts_noise", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=40, deadline=None)
@given(outputs_NTC=logits((0.0, -0.0, 1e-40, 8.0, -8.0, NAN, INF, -INF), width=4))
def test_regression(outputs_NTC: Tensor, dtype: torch.dtype, predicts_noise: bool) -> None:
    outputs_NTC = (outputs_NTC / 4).to(dtype)
    stats = row_stats(outputs_NTC, "regression", {"predictive_variance"}, predicts_noise=predicts_noise)
    assert torch.equal(stats.finite, outputs_NTC.isfinite().all(2).all(1))
    assert stats.confidence is None
    assert_close_to_oracle(outputs_NTC, stats, "regression", predicts_noise=predicts_noise)
    means = outputs_NTC[stats.finite][..., : 2 if predicts_noise else 4].double().mean(1)
    torch.testing.assert_close(stats.prediction[stats.finite].double(), means, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("T", "C"), [(20, 10), (3, 1000), (50, 257), (200, 3)])
@pytest.mark.parametrize("scale", [0.01, 3.0, 40.0])
def test_multiclass_of_ordinary_sizes(T: int, C: int, scale: float) -> None:
    logits_NTC = torch.randn(6, T, C, generator=torch.Generator().manual_seed(T)) * scale + 100
    stats = row_stats(logits_NTC, "multiclass", SCORES_OF_TASK["multiclass"])
    assert_close_to_oracle(logits_NTC, stats, "multiclass")
    mean_NC = logits_NTC.double().softmax(-1).mean(1)
    # Certain passes that disagree tie in float32 where they do not in float64, so compare what the choice is worth.
    chosen_N = mean_NC.gather(1, stats.prediction[:, None])[:, 0]
    torch.testing.assert_close(chosen_N, mean_NC.amax(-1), rtol=0, atol=3e-6)
    assert stats.confidence is not None
    torch.testing.assert_close(stats.confidence.double(), mean_NC.amax(-1), rtol=0, atol=3e-6)


SHAPES = [(1, 1, 1), (2, 3, 1), (5, 3, 2), (37, 4, 10), (70, 2, 16), (700, 3, 97), (3, 2, 40_001), (40_001, 2, 3)]


@pytest.mark.parametrize(("N", "T", "C"), SHAPES)
@pytest.mark.parametrize("task", TASKS)
def test_bits_do_not_depend_on_batch_or_layout(task: str, N: int, T: int, C: int) -> None:
    """Shapes below and above the size at which torch uses several threads and the vector's width; odd rests."""
    C = 1 if task == "binary" else C
    logits_NTC = torch.randn(N, T, C, generator=torch.Generator().manual_seed(N)) * 4
    original = logits_NTC.clone()
    want = wanted(task, C)
    whole = row_stats(logits_NTC, task, want)
    for view in layouts(logits_NTC):
        assert_same_bits(whole, row_stats(view, task, want))
        for rows in (slice(0, 1), slice(N - 1, N), slice(N // 3, N // 3 + 7), slice(1, N)):
            assert_same_bits(whole, row_stats(view[rows], task, want), rows)
    assert torch.equal(logits_NTC, original)
    for threads in (1, 2):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            assert_same_bits(whole, row_stats(logits_NTC, task, want))
        finally:
            torch.set_num_threads(before)


@pytest.mark.parametrize("task", TASKS)
def test_a_bad_row_leaves_its_neighbours_alone(task: str) -> None:
    logits_NTC = torch.randn(9, 4, 1 if task == "binary" else 6, generator=torch.Generator().manual_seed(3))
    clean = row_stats(logits_NTC, task, SCORES_OF_TASK[task])
    logits_NTC[4, 2, 0] = NAN
    dirty = row_stats(logits_NTC, task, SCORES_OF_TASK[task])
    assert dirty.finite.tolist() == [True] * 4 + [False] + [True] * 4
    for name, value in fields(clean).items():
        for rows in (slice(0, 4), slice(5, 9)):
            assert torch.equal(fields(dirty)[name][rows], value[rows]), name


@pytest.mark.parametrize("task", TASKS)
def test_only_what_is_wanted_and_no_rows(task: str) -> None:
    C = 1 if task == "binary" else 4
    logits_NTC = torch.randn(5, 3, C, generator=torch.Generator().manual_seed(4))
    everything = row_stats(logits_NTC, task, SCORES_OF_TASK[task])
    for name in SCORES_OF_TASK[task]:
        one = row_stats(logits_NTC, task, [name])
        assert list(one.scores) == [name]
        assert torch.equal(one.scores[name], everything.scores[name])
    assert row_stats(logits_NTC, task, ()).scores == {}
    none = row_stats(logits_NTC[:0], task, SCORES_OF_TASK[task])
    assert {name: value.shape[0] for name, value in fields(none).items()} == dict.fromkeys(fields(everything), 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": "segmentation"}, "task must be one of"),
        ({"want": ["random"]}, "has no score 'random'"),
        ({"want": ["predictive_variance"]}, "has no score"),
        ({"want": "bald"}, "collection"),
        ({"task": "multilabel", "want": ["margin"]}, "has no score"),
        ({"task": "multilabel", "reduce": "mean"}, "reduce must be"),
        ({"reduce": "max"}, "option of multilabel"),
        ({"predicts_noise": True}, "option of regression"),
        ({"logits_NTC": torch.zeros(2, 3)}, r"\[N, T, C\]"),
        ({"logits_NTC": torch.zeros(2, 0, 3)}, "at least 1"),
        ({"logits_NTC": torch.zeros(2, 3, 0)}, "at least 1"),
        ({"logits_NTC": torch.zeros(2, 3, 4, dtype=torch.int64)}, "floating point"),
        ({"logits_NTC": torch.zeros(2, 3, 1), "want": ["margin"]}, "at least 2 classes"),
        ({"task": "binary"}, "one logit"),
        ({"task": "regression", "want": [], "predicts_noise": True, "logits_NTC": torch.zeros(2, 3, 3)}, "2D"),
    ],
)
def test_refusals(arguments: dict[str, object], message: str) -> None:
    defaults = {"logits_NTC": torch.zeros(2, 3, 4), "task": "multiclass", "want": ["entropy"]}
    with pytest.raises(ValueError, match=message):
        row_stats(**(defaults | arguments))  # type: ignore[arg-type]
