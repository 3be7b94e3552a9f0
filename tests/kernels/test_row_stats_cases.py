"""Row scores whose value is known on paper: masks, ties, one-hot rows, agreeing and disagreeing passes, extremes."""

from __future__ import annotations

import math

import pytest
import torch

from poolscore.kernels.fixed_order import first_argmax, non_negative, sum_last
from poolscore.kernels.row_stats import SCORES_OF_TASK, RowStats, row_stats

INF, NAN = math.inf, math.nan


def score(rows: list[list[list[float]]], task: str = "multiclass", **options: object) -> RowStats:
    logits_NTC = torch.tensor(rows, dtype=torch.float32)
    return row_stats(logits_NTC, task, SCORES_OF_TASK[task], **options)  # type: ignore[arg-type]


def values(stats: RowStats, row: int = 0) -> dict[str, float]:
    return {name: s[row].item() for name, s in stats.scores.items()}


@pytest.mark.parametrize("offset", [0.0, 1e4, -1e4, 3e38])
def test_all_equal(offset: float) -> None:
    stats = score([[[offset] * 5] * 4])
    expected = {"entropy": math.log(5), "expected_entropy": math.log(5), "bald": 0, "variation_ratio": 0}
    assert values(stats) == pytest.approx(expected | {"mean_std": 0, "least_confidence": 0.8, "margin": 1}, abs=1e-6)
    assert stats.prediction.item() == 0  # the lowest on ties


@pytest.mark.parametrize("masked", [-INF, -3.4e38, -1e4])
def test_one_hot_passes_that_agree(masked: float) -> None:
    stats = score([[[masked, 2.0, masked]] * 3])
    assert all(v == 0 for v in values(stats).values())
    assert (stats.prediction.item(), stats.confidence.item(), stats.finite.item()) == (1, 1.0, True)  # type: ignore[union-attr]


@pytest.mark.parametrize("T", [2, 3, 7])
def test_disjoint_passes(T: int) -> None:
    """Each pass is sure of another class: all of the uncertainty is disagreement."""
    logits_TC = [[0.0 if c == t else -INF for c in range(9)] for t in range(T)]
    got = values(score([logits_TC]))
    std = T * math.sqrt((1 / T) * (1 - 1 / T)) / 9
    expected = {"entropy": math.log(T), "expected_entropy": 0, "bald": math.log(T), "variation_ratio": 1 - 1 / T}
    assert got == pytest.approx(expected | {"mean_std": std, "least_confidence": 1 - 1 / T, "margin": 1}, abs=1e-6)


@pytest.mark.parametrize("task", ["multiclass", "binary", "multilabel"])
@pytest.mark.parametrize("T", [1, 3, 7, 20])
def test_identical_passes_have_no_bald(task: str, T: int) -> None:
    C = 1 if task == "binary" else 6
    logits_N1C = torch.randn(500, 1, C, generator=torch.Generator().manual_seed(T)) * 5
    bald_N = row_stats(logits_N1C.expand(500, T, C), task, ["bald"]).scores["bald"]
    assert bald_N.min() >= 0
    assert bald_N.max() < 2e-6


def test_masked_classes_change_nothing() -> None:
    logits_NTC = torch.randn(20, 5, 6, generator=torch.Generator().manual_seed(1)) * 3
    padded = torch.cat([logits_NTC, torch.full((20, 5, 2), -INF)], -1)
    names = SCORES_OF_TASK["multiclass"] - {"mean_std"}
    plain, masked = row_stats(logits_NTC, "multiclass", names), row_stats(padded, "multiclass", names)
    assert masked.finite.all()
    assert torch.equal(masked.prediction, plain.prediction)
    for name in names:  # the fold over 8 classes adds in another order than over 6
        torch.testing.assert_close(masked.scores[name], plain.scores[name], rtol=0, atol=1e-6)


def test_flags() -> None:
    rows = [[[0.0, 1.0], [NAN, 0.0]], [[0.0, 1.0], [INF, 0.0]], [[0.0, 1.0], [-INF, -INF]], [[0.0, 1.0], [-INF, 0.0]]]
    assert score(rows).finite.tolist() == [False, False, False, True]
    assert score(rows, "multilabel").finite.tolist() == [False, True, True, True]
    assert score(rows, "regression").finite.tolist() == [False, False, False, False]
    # Overflow is not the input's fault, but an infinite score must not be ranked.
    big = [[[3e38], [-3e38]], [[1.0], [2.0]]]
    assert score(big, "regression").finite.tolist() == [False, True]
    assert score([[[0.0, 1e3]]], "regression", predicts_noise=True).finite.tolist() == [False]


def test_votes_of_ties_go_to_the_lowest_class() -> None:
    got = score([[[1.0, 1.0, 0.0], [0.0, 1.0, 1.0], [1.0, 0.0, 1.0]]])  # votes: 0, 1, 0
    assert got.scores["variation_ratio"].item() == pytest.approx(1 / 3)
    tie = score([[[0.0]], [[1e-30]], [[-1e-30]]], "binary")
    assert tie.prediction.tolist() == [0, 0, 0]
    assert score([[[0.0], [1e-30], [1.0], [-1.0]]], "binary").scores["variation_ratio"].item() == 0.5


def test_first_argmax() -> None:
    ties_NC = torch.zeros(3, 70)
    ties_NC[0, [5, 69]] = 1
    ties_NC[1, 33:] = 2
    assert first_argmax(ties_NC).tolist() == [5, 33, 0]
    assert first_argmax(torch.tensor([[NAN, 1.0], [-INF, -INF]])).tolist() == [1, 0]
    assert first_argmax(torch.zeros(0, 4)).shape == (0,)


def test_binary_extremes_are_exact() -> None:
    stats = score([[[INF]] * 2, [[-INF]] * 2, [[1e4]] * 2, [[INF], [-INF]], [[30.0]] * 2, [[-30.0]] * 2], "binary")
    assert stats.finite.all()
    assert stats.prediction.tolist() == [1, 0, 1, 0, 1, 0]
    for row in range(3):
        assert all(v == 0 for v in values(stats, row).values())
    disagree = {"entropy": math.log(2), "expected_entropy": 0, "bald": math.log(2), "variation_ratio": 0.5}
    expected = disagree | {"mean_std": 0.5, "least_confidence": 0.5, "margin": 1}
    assert values(stats, 3) == pytest.approx(expected, rel=1e-6)
    rest = math.exp(-30)  # below float32's spacing at 1, and still there
    for row in (4, 5):
        assert values(stats, row)["least_confidence"] == pytest.approx(rest, rel=1e-6)
        assert values(stats, row)["entropy"] == pytest.approx(31 * rest, rel=1e-6)
        assert values(stats, row)["expected_entropy"] == pytest.approx(31 * rest, rel=1e-6)


def test_binary_is_multiclass_of_two() -> None:
    z_NT1 = torch.randn(50, 8, 1, generator=torch.Generator().manual_seed(2)) * 6
    two_NT2 = torch.cat([torch.zeros_like(z_NT1), z_NT1], -1)
    binary = row_stats(z_NT1, "binary", SCORES_OF_TASK["binary"])
    multiclass = row_stats(two_NT2, "multiclass", SCORES_OF_TASK["binary"])
    assert torch.equal(binary.prediction, multiclass.prediction)
    for name, value in binary.scores.items():
        torch.testing.assert_close(value, multiclass.scores[name], rtol=0, atol=3e-6)


def test_multilabel_reductions_and_prediction() -> None:
    rows = [[[0.0, 9.0, -INF], [0.0, 9.0, -INF]], [[INF, 1.0, INF], [-INF, 1.0, INF]]]
    total, largest = score(rows, "multilabel"), score(rows, "multilabel", reduce="max")
    assert total.prediction.tolist() == [1, 2]
    assert total.confidence is not None
    assert total.confidence.tolist() == pytest.approx([1 / (1 + math.exp(-9)), 1.0])
    assert largest.scores["entropy"].tolist() == pytest.approx([math.log(2)] * 2)
    assert largest.scores["bald"].tolist() == pytest.approx([0, math.log(2)], abs=1e-6)
    assert torch.equal(total.scores["mean_std"], largest.scores["mean_std"])
    assert total.scores["mean_std"].tolist() == pytest.approx([0, 0.5 / 3], abs=1e-6)


def test_regression_variance_does_not_cancel() -> None:
    """Population variance 1.25e-4 on top of 1e4: mean y² - (mean y)² in float32 would be noise of size 8."""
    y_NTD = torch.tensor([[[1e4], [1e4 + 1 / 64], [1e4 + 2 / 64], [1e4 + 3 / 64]]])
    stats = row_stats(y_NTD, "regression", ["predictive_variance"])
    assert stats.scores["predictive_variance"].item() == pytest.approx(1.25 / 64**2, rel=0.01)
    assert score([[[1.0, 2.0, 0.0, math.log(3)]]], "regression", predicts_noise=True).scores[
        "predictive_variance"
    ].item() == pytest.approx(4)


def test_mean_std_does_not_cancel() -> None:
    logits_TC = [[0.0, 1e-3 * t] for t in range(4)]
    p = [1 / (1 + math.exp(-row[1])) for row in logits_TC]
    mean = sum(p) / 4
    std = math.sqrt(sum((x - mean) ** 2 for x in p) / 4)
    assert values(score([logits_TC]))["mean_std"] == pytest.approx(std, rel=1e-3)


@pytest.mark.parametrize("width", [1, 2, 3, 7, 8, 1000, 4097])
def test_sum_last(width: int) -> None:
    x = torch.rand(3, 2, width, generator=torch.Generator().manual_seed(width))
    before = x.clone()
    exact = torch.tensor([[math.fsum(row.tolist()) for row in rows] for rows in x])
    torch.testing.assert_close(sum_last(x), exact, rtol=1e-6, atol=0)
    assert torch.equal(x, before)


def test_non_negative() -> None:
    got = non_negative(torch.tensor([-0.0, -1e-7, 0.5, NAN]))
    assert got[:3].tolist() == pytest.approx([0, 0, 0.5])
    assert not torch.signbit(got[:3]).any()
    assert got[3].isnan()
