"""BALD as mean_t KL(p_t || p̄): the reference and the CPU path. `test_accurate_bald_triton.py` has the kernels.

The oracle is the difference of entropies in float64 with math.fsum, which is good to 1e-15 nats.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from row_stats_rows import (
    adversarial_rows,
    assert_bald_is_accurate,
    assert_same_bits,
    fields,
    layouts,
    nearly_equal_passes,
)

from poolscore.kernels.kl_terms import kl_terms
from poolscore.kernels.row_stats import SCORES_OF_TASK, RowStats, row_stats, row_stats_reference
from poolscore.kernels.row_stats_cpu_block import kl_terms as kl_terms_numpy
from poolscore.kernels.row_stats_cpu_softmax import SOFTMAX_ELEMENTS

WAYS = pytest.mark.parametrize("way", [row_stats, row_stats_reference], ids=["cpu", "reference"])
TASKS = pytest.mark.parametrize("task", ["multiclass", "binary", "multilabel"])
# Rows and classes side by side; passes in one piece and in several (the last three).
SIZES = [(20, 10), (2, 2), (1, 5), (5, 100), (20, 1000), (300, 5), (300, 70), (3, SOFTMAX_ELEMENTS // 2 + 1)]


@WAYS
@pytest.mark.parametrize(("T", "C"), SIZES)
def test_small_balds_are_right_to_a_few_digits(T: int, C: int, way: Callable[..., RowStats]) -> None:
    logits_NTC = nearly_equal_passes(T, C)[:: 9 if C > 1000 else 1]
    got = way(logits_NTC, "multiclass", ["bald"], accurate_bald=True)
    assert_bald_is_accurate(logits_NTC, got, "multiclass")


@WAYS
@pytest.mark.parametrize("reduce", ["sum", "max"])
@pytest.mark.parametrize(("T", "C"), [(20, 1), (7, 6), (4, 90), (260, 3)])
def test_sigmoids(T: int, C: int, reduce: str, way: Callable[..., RowStats]) -> None:
    for logits_NTC in (nearly_equal_passes(T, C), adversarial_rows(T, C)):
        task = "binary" if C == 1 else "multilabel"
        options = {} if C == 1 else {"reduce": reduce}
        got = way(logits_NTC, task, ["bald"], accurate_bald=True, **options)
        assert_bald_is_accurate(logits_NTC, got, task, **options)


@WAYS
@pytest.mark.parametrize(("T", "C"), [(20, 10), (4, 1), (3, 2), (7, 70), (300, 5)])
def test_adversarial_rows(T: int, C: int, way: Callable[..., RowStats]) -> None:
    logits_NTC = adversarial_rows(T, C)
    got = way(logits_NTC, "multiclass", ["bald"], accurate_bald=True)
    assert torch.equal(got.finite, way(logits_NTC, "multiclass", ["bald"]).finite)
    assert not got.finite[:5].any()
    assert_bald_is_accurate(logits_NTC, got, "multiclass")


@WAYS
@TASKS
@pytest.mark.parametrize("T", [1, 2, 3, 7, 20, 300])
def test_identical_passes_have_none_at_all(task: str, T: int, way: Callable[..., RowStats]) -> None:
    C = 1 if task == "binary" else 13
    logits_N1C = torch.randn(100, 1, C, generator=torch.Generator().manual_seed(T)) * 5
    bald_N = way(logits_N1C.expand(100, T, C), task, ["bald"], accurate_bald=True).scores["bald"]
    assert bald_N.abs().max() == 0
    if T <= 20:
        difference_N = way(logits_N1C.expand(100, T, C), task, ["bald"]).scores["bald"]
        assert difference_N.max() < 2e-6  # its noise floor


def test_disjoint_passes() -> None:
    logits_TC = torch.full((4, 9), -math.inf)
    logits_TC[range(4), range(4)] = 0.0
    got = row_stats(logits_TC[None], "multiclass", ["bald"], accurate_bald=True)
    assert got.scores["bald"].item() == pytest.approx(math.log(4), rel=1e-6)


@TASKS
@pytest.mark.parametrize(("T", "C"), [(20, 10), (3, 100), (300, 70)])
def test_bits_do_not_depend_on_batch_layout_or_wishes(task: str, T: int, C: int) -> None:
    C = 1 if task == "binary" else C
    logits_NTC = torch.cat([nearly_equal_passes(T, C, seed) for seed in range(3)])
    want = sorted(SCORES_OF_TASK[task])
    whole = row_stats(logits_NTC, task, want, accurate_bald=True)
    for view in layouts(logits_NTC):
        for rows in (slice(0, 1), slice(35, 36), slice(11, 20)):
            assert_same_bits(whole, row_stats(view[rows], task, want, accurate_bald=True), rows)
    alone = row_stats(logits_NTC, task, ["bald"], accurate_bald=True)
    assert list(alone.scores) == ["bald"]
    assert torch.equal(alone.scores["bald"], whole.scores["bald"])
    ordinary = fields(row_stats(logits_NTC, task, want))
    assert not torch.equal(ordinary.pop("bald"), whole.scores["bald"])
    for name, value in ordinary.items():
        assert torch.equal(value, fields(whole)[name]), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_kl_terms(dtype: torch.dtype) -> None:
    """Against 60 digits, on both sides of where the formula changes, and at the ends."""
    mpmath = pytest.importorskip("mpmath")
    q = torch.tensor([0.3, 1e-20, 0.999], dtype=dtype)[:, None]
    steps = torch.cat([10.0 ** torch.arange(-8, 0.0), torch.tensor([0.2, 0.24, 0.26, 0.28, 0.3, 0.5, 0.9, 1.0])])
    steps = steps.to(dtype)
    p = torch.cat([q * (1 - steps), q * (1 + steps), q * 40, q, q * 0], 1)
    q = q.expand_as(p).contiguous()
    for got in (kl_terms(p, q), torch.from_numpy(kl_terms_numpy(p.numpy(), q.numpy()))):
        with mpmath.workdps(60):
            for x, y, term in zip(*(a.flatten().tolist() for a in (p, q, got)), strict=True):
                x, y = mpmath.mpf(x), mpmath.mpf(y)
                exact = (x * mpmath.log(x / y) if x else 0) - x + y
                assert abs(term - exact) <= 40 * torch.finfo(dtype).eps * exact
    nothing = np.zeros(2, np.float32)
    assert kl_terms_numpy(nothing, nothing).tolist() == kl_terms(*[torch.zeros(2)] * 2).tolist() == [0, 0]


def test_regression_has_no_bald() -> None:
    with pytest.raises(ValueError, match="accurate_bald is an option of"):
        row_stats(torch.zeros(2, 3, 4), "regression", [], accurate_bald=True)
