"""The CPU path of the scores: errors against float64, the same bits in any batch, memory.

`test_row_stats.py` and `test_row_stats_cases.py` reach it too, through `row_stats`. Here are the sizes at which it
changes its ways (rows or classes side by side, blocks, pieces of the passes, segments of the classes), and the
reference on the same inputs.
"""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from row_stats_oracle import oracle
from torch import Tensor

from poolscore.kernels.row_stats import SCORES_OF_TASK, RowStats, row_stats, row_stats_reference
from poolscore.kernels.row_stats_cpu import CPU_DTYPES, CPU_TASKS, row_stats_cpu
from poolscore.kernels.row_stats_cpu_block import FEW_CLASSES, SEGMENT, SIDE_BY_SIDE, BlockShape
from poolscore.kernels.row_stats_cpu_softmax import SOFTMAX_ELEMENTS

INF, NAN = math.inf, math.nan
ALL = SCORES_OF_TASK["multiclass"]

# T and C on both sides of every boundary: vectors, layouts, segments of classes, pieces of the passes (the last four).
SIZES = [
    (20, 10),
    (1, 1),
    (7, 2),
    (5, 17),
    (3, FEW_CLASSES),
    (4, FEW_CLASSES + 1),
    (20, 1000),
    (2, SEGMENT + 1),
    (2, 8193),
    (SOFTMAX_ELEMENTS // SIDE_BY_SIDE // 50 + 3, 50),
    (300, 3),
    (270, 129),
    (3, SOFTMAX_ELEMENTS // 2 + 1),
]
TASK_AND_SIZE = [*(("multiclass", T, C) for T, C in SIZES), *(("multilabel", T, C) for T, C in SIZES)]
TASK_AND_SIZE += [("binary", T, 1) for T in (1, 20, 600)]


def random_logits(N: int, T: int, C: int, seed: int = 0) -> Tensor:
    return torch.randn(N, T, C, generator=torch.Generator().manual_seed(seed)) * 4


def wanted(task: str, C: int) -> frozenset[str]:
    return SCORES_OF_TASK[task] - ({"margin"} if task == "multiclass" and C == 1 else set())


def score(logits_NTC: Tensor, task: str = "multiclass") -> RowStats:
    return row_stats_cpu(logits_NTC, task, wanted(task, logits_NTC.shape[2]))


def fields(stats: RowStats) -> dict[str, Tensor]:
    assert stats.confidence is not None
    rest = {"prediction": stats.prediction, "confidence": stats.confidence, "finite": stats.finite}
    return stats.scores | rest


def assert_same_bits(whole: RowStats, part: RowStats, rows: slice | Tensor) -> None:
    """`part` is the result for the `rows` of whole's batch. What a row that is not finite holds does not matter."""
    good = part.finite
    for name, value in fields(whole).items():
        expected, got = value[rows], fields(part)[name]
        assert torch.equal(expected, got) if name == "finite" else torch.equal(expected[good], got[good]), name


def adversarial_rows(T: int, C: int) -> Tensor:
    """Good rows that break careless formulas, [rows, T, C]."""
    base = random_logits(1, T, C, seed=1)[0]
    masked = base.clone()
    masked[:, : C // 2] = -INF
    one_hot = torch.full((T, C), -INF)
    one_hot[:, C // 3] = 0.0
    disjoint = torch.full((T, C), -1e4)
    disjoint[torch.arange(T), torch.arange(T) % C] = 1e4
    largest = torch.zeros(T, C)
    largest[:, 0], largest[:, -1] = 3e38, -3e38
    scales = [torch.full((T, C), 7.0), base + 1e4, base - 1e4, base * 1e-40, base * 30, base[:1].expand(T, C)]
    return torch.stack([base, masked, one_hot, disjoint, largest, *scales])


@pytest.mark.parametrize("way", [row_stats_cpu, row_stats_reference], ids=["cpu", "reference"])
@pytest.mark.parametrize(
    ("task", "T", "C"),
    [
        *(("multiclass", T, C) for T, C in ((20, 10), (3, FEW_CLASSES + 5), (9, 400), (1, 3), (5, 1), (300, 5))),
        *(("multilabel", T, C) for T, C in ((20, 6), (5, FEW_CLASSES + 5))),
        ("binary", 300, 1),
    ],
)
def test_error_on_adversarial_rows(task: str, T: int, C: int, way: Callable[..., RowStats]) -> None:
    """Within the bound that `test_row_stats.py` derives."""
    logits_NTC = adversarial_rows(T, C)
    stats = way(logits_NTC, task, wanted(task, C))
    assert stats.finite.all()
    exact = oracle(logits_NTC.double().numpy(), task)
    bound = 2e-6 + T * 2.0**-24 * (1 + exact["entropy"])
    assert set(stats.scores) == set(exact)
    for name, value in stats.scores.items():
        assert (np.abs(value.double().numpy() - exact[name]) <= bound).all(), name
        assert (value >= 0).all(), name
        assert not torch.signbit(value).any(), name


@pytest.mark.parametrize(("T", "C", "largest"), [(20, 10, 4e-7), (20, 100, 5e-7), (20, 1000, 6e-7), (4, 30_000, 2e-6)])
def test_softmax_is_better_than_plain_float32(T: int, C: int, largest: float) -> None:
    """The bounds are about twice what is seen; torch's own float32 formulas are 2 to 4 times worse."""
    logits_NTC = random_logits(max(4, 200_000 // (T * C)), T, C, seed=2)
    exact = row_stats_reference(logits_NTC.double(), "multiclass", ALL)
    stats = score(logits_NTC)
    for name, value in stats.scores.items():
        error = (value.double() - exact.scores[name]).abs().max().item()
        assert error < largest, (name, error)
    assert torch.equal(stats.prediction, exact.prediction)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("task", "T", "C"), TASK_AND_SIZE)
def test_bits_do_not_depend_on_batch_or_layout(task: str, T: int, C: int, dtype: torch.dtype) -> None:
    N = max(3, min(700, 150_000 // (T * C)))
    logits_NTC = random_logits(N, T, C, seed=3).to(dtype)
    logits_NTC[N // 2, 0, 0] = NAN
    logits_NTC[N // 3, :, C // 2 :] = -INF
    original = logits_NTC.clone()
    whole = score(logits_NTC, task)
    for rows in (slice(0, 1), slice(N - 1, N), slice(1, N), slice(N // 4, N // 4 + 17), torch.randperm(N)):
        assert_same_bits(whole, score(logits_NTC[rows], task), rows)
    for order in ((1, 0, 2), (2, 0, 1), (2, 1, 0)):
        view = logits_NTC.permute(order).contiguous().permute([order.index(d) for d in range(3)])
        assert_same_bits(whole, score(view, task), slice(None))
    assert torch.equal(logits_NTC.nan_to_num(), original.nan_to_num())


@pytest.mark.parametrize("task", CPU_TASKS)
@settings(max_examples=40, deadline=None)
@given(st.data(), st.integers(1, 40), st.integers(1, 150), st.sampled_from(CPU_DTYPES))
def test_any_part_of_a_batch(task: str, data: st.DataObject, T: int, C: int, dtype: torch.dtype) -> None:
    C = 1 if task == "binary" else C
    logits_NTC = random_logits(data.draw(st.integers(1, 60)), T, C, seed=T * C).to(dtype)
    N = len(logits_NTC)
    first = data.draw(st.integers(0, N - 1))
    rows = slice(first, data.draw(st.integers(first + 1, N)))
    whole = score(logits_NTC, task)
    assert_same_bits(whole, score(logits_NTC[rows], task), rows)
    offset = data.draw(st.integers(0, 5))
    memory = torch.empty(logits_NTC[rows].numel() + offset, dtype=dtype)  # another alignment
    moved = memory[offset:].view(-1, T, C).copy_(logits_NTC[rows])
    assert_same_bits(whole, score(moved, task), rows)


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_many_blocks(task: str) -> None:
    T, C = 20, 10
    N = 9 * BlockShape.of(T, C, SOFTMAX_ELEMENTS).rows + 1  # the last block is a single row
    logits_NTC = random_logits(1000, T, C, seed=1).repeat(N // 1000 + 1, 1, 1)[:N]
    whole, part = score(logits_NTC, task), score(logits_NTC[:1000], task)
    for first in range(0, N, 1000):
        rows = slice(first, min(first + 1000, N))
        for name, value in fields(whole).items():
            assert torch.equal(value[rows], fields(part)[name][: rows.stop - first]), (name, first)


@pytest.mark.parametrize("C", [3, FEW_CLASSES, FEW_CLASSES + 1])
def test_votes_of_ties_go_to_the_lowest_class(C: int) -> None:
    logits_NTC = torch.zeros(2, 4, C)
    logits_NTC[0, :, 1] = 1.0
    logits_NTC[0, 1:, 2] = 1.0  # all vote for 1; were it the highest, three would vote for 2
    logits_NTC[1, 0, 2], logits_NTC[1, 1, [1, 2]] = 1.0, 1.0  # votes: 2, 1, 0, 0
    assert score(logits_NTC).scores["variation_ratio"].tolist() == [0.0, 0.5]


@pytest.mark.parametrize(("T", "C"), [(300, 3), (270, 129), (1000, 2)])
def test_many_passes_that_agree(T: int, C: int) -> None:
    """More votes than a byte holds, and a product of sums s = C that is beyond float64."""
    expected = {"entropy": math.log(C), "expected_entropy": math.log(C), "bald": 0, "variation_ratio": 0, "mean_std": 0}
    expected |= {"least_confidence": 1 - 1 / C, "margin": 1}
    for name, value in score(torch.zeros(3, T, C)).scores.items():
        assert value.tolist() == pytest.approx([expected[name]] * 3, abs=2e-6), name


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
@pytest.mark.parametrize("N_T_C", [(20_000, 20, 10), (256, 20, 1000), (1, 1000, 5000)])
def test_memory_does_not_grow_with_the_logits(task: str, N_T_C: tuple[int, int, int]) -> None:
    """Far below 32 MB beyond logits and results; only numpy allocates here, and tracemalloc sees numpy."""
    logits_NTC = torch.zeros(1).expand(N_T_C)
    results = N_T_C[0] * (len(ALL) * 4 + 13)
    tracemalloc.start()
    score(logits_NTC, task)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak - results < 15e6


def test_row_stats_takes_this_path(monkeypatch: pytest.MonkeyPatch) -> None:
    called = []
    monkeypatch.setattr("poolscore.kernels.row_stats.row_stats_cpu", lambda *a, **options: called.append((a, options)))
    logits_NTC = torch.zeros(2, 3, 4)
    row_stats(logits_NTC, "multilabel", ["bald"], reduce="max")
    row_stats(logits_NTC, "multiclass", ["bald"], accurate_bald=True)
    row_stats(logits_NTC, "regression", ["predictive_variance"])
    assert called == [
        ((logits_NTC, "multilabel", ["bald"]), {"reduce": "max", "accurate_bald": False}),
        ((logits_NTC, "multiclass", ["bald"]), {"reduce": "sum", "accurate_bald": True}),
    ]


def test_numpy_keeps_its_settings_and_gradients_do_no_harm() -> None:
    before = np.geterr(), np.getbufsize()
    score(torch.full((3, 2, 4), NAN, requires_grad=True))
    assert (np.geterr(), np.getbufsize()) == before
