"""Rows and comparisons that the tests of the row statistics share, whatever computes them."""

from __future__ import annotations

import math

import torch
from row_stats_oracle import oracle
from torch import Tensor

from poolscore.kernels.row_stats import RowStats, row_stats_reference

INF, NAN = math.inf, math.nan


def layouts(logits_NTC: Tensor) -> list[Tensor]:
    """The same logits contiguous, as a view of [T, N, C], and with gaps in every dimension."""
    gaps = torch.full([2 * s for s in logits_NTC.shape], NAN, dtype=logits_NTC.dtype, device=logits_NTC.device)
    gaps[::2, ::2, ::2] = logits_NTC
    return [
        logits_NTC.contiguous(),
        logits_NTC.transpose(0, 1).contiguous().transpose(0, 1),
        gaps[::2, ::2, ::2],
    ]


def fields(stats: RowStats) -> dict[str, Tensor]:
    """All tensors of a result by name."""
    rest = {"prediction": stats.prediction, "confidence": stats.confidence, "finite": stats.finite}
    return stats.scores | {name: value for name, value in rest.items() if value is not None}


def assert_same_bits(a: RowStats, b: RowStats, rows: slice = slice(None)) -> None:
    """b is the result for the `rows` of a's batch."""
    for name, value in fields(a).items():
        assert torch.equal(value[rows], fields(b)[name]), name


def random_rows(T: int, C: int, seed: int = 0) -> Tensor:
    """Rows from nearly uniform to nearly certain, some around an offset, float32 [6, T, C]."""
    logits_NTC = torch.randn(6, T, C, generator=torch.Generator().manual_seed(seed))
    scale_N = torch.tensor([0.01, 1.0, 3.0, 10.0, 40.0, 3.0])
    return logits_NTC * scale_N[:, None, None] + torch.tensor([0.0, 0, 0, 0, 0, 100])[:, None, None]


def adversarial_rows(T: int, C: int) -> Tensor:
    """What breaks careless formulas, float32 [N, T, C]. The first five rows are not finite for a softmax."""
    base_TC = torch.randn(T, C, generator=torch.Generator().manual_seed(T * 1000 + C)) * 3
    last, c = T - 1, C // 2

    def changed(t: int | slice, which: int | slice, value: float) -> Tensor:
        row_TC = base_TC.clone()
        row_TC[t, which] = value
        return row_TC

    one_hot_TC = torch.full((T, C), -INF)
    one_hot_TC[:, c] = 2.0
    disjoint_TC = torch.full((T, C), -INF)
    disjoint_TC[torch.arange(T), torch.arange(T) % C] = 0.0
    rows = [
        changed(last, c, NAN),
        changed(0, C - 1, NAN),
        changed(last, c, INF),
        changed(last, slice(None), -INF),
        torch.full((T, C), NAN),
        torch.zeros(T, C),
        torch.full((T, C), 1e4),
        torch.full((T, C), -1e4),
        torch.full((T, C), 3e38),
        torch.full((T, C), -3e38),
        base_TC.sign() * 1e4,
        base_TC * 1e-40,
        base_TC + 1e4,
        one_hot_TC,
        one_hot_TC.clamp(min=-3e38),
        disjoint_TC,
        disjoint_TC.clamp(min=-1e4),
        base_TC[:1].expand(T, C),
        base_TC.round(),  # ties
    ]
    if C > 1:
        rows += [changed(slice(None), 0, -INF), changed(last, slice(1, None), -INF)]
    return torch.stack(rows)


def assert_no_worse_than_plain(logits_NTC: Tensor, got: RowStats, task: str, **options: object) -> None:
    """Against float64: flags exactly, every score with at most 1e-6 (a label, where it sums over labels) more error
    than plain torch of the same dtype has.
    """
    logits_NTC = logits_NTC.cpu()
    slack = 1e-6 * (logits_NTC.shape[2] if task == "multilabel" else 1)
    want = list(got.scores)
    exact = row_stats_reference(logits_NTC.double(), task, want, **options)  # type: ignore[arg-type]
    plain = row_stats_reference(logits_NTC, task, want, **options)  # type: ignore[arg-type]
    good_N = got.finite.cpu()
    assert torch.equal(good_N, plain.finite)
    for name, value in fields(got).items():
        expected, ordinary = fields(exact)[name], fields(plain)[name]
        assert value.shape == expected.shape, name
        assert value.dtype == ordinary.dtype, name
        if value.is_floating_point() and good_N.any():
            error = (value.cpu().double() - expected)[good_N].abs().max()
            allowed = (ordinary.double() - expected)[good_N].abs().max() + slack
            assert error <= allowed, (name, error.item(), allowed.item())
    for name, value in got.scores.items():
        assert not torch.signbit(value.cpu()[good_N]).any(), f"{name} is negative, or -0.0"
    assert_prediction_is_best(logits_NTC, got, exact, task)


def assert_prediction_is_best(logits_NTC: Tensor, got: RowStats, exact: RowStats, task: str) -> None:
    """What is predicted is as probable as the most probable class, to rounding: exact ties may fall either way."""
    if task == "regression" or exact.confidence is None:
        return
    good_N = got.finite.cpu()
    predicted_N = got.prediction.cpu()[good_N]
    x = logits_NTC[good_N].double()
    if task == "multiclass":
        mean_NC = x.softmax(-1).mean(1)
    elif task == "binary":
        mean_NC = torch.stack([1 - x.sigmoid(), x.sigmoid()], -1)[:, :, 0].mean(1)
    else:
        mean_NC = x.sigmoid().mean(1)
    chosen_N = mean_NC.gather(1, predicted_N[:, None])[:, 0]
    torch.testing.assert_close(chosen_N, mean_NC.amax(-1), rtol=0, atol=3e-6)


def nearly_equal_passes(T: int, C: int, seed: int = 0) -> Tensor:
    """Rows whose passes differ by 1e-5 to 1e-2 in their logits: BALD is 1e-11 to 1e-4 nats, float32 [12, T, C]."""
    generator = torch.Generator().manual_seed(seed)
    base_N1C = torch.randn(12, 1, C, generator=generator) * 3
    spread_N11 = torch.logspace(-5, -2, 12)[:, None, None]
    return base_N1C + torch.randn(12, T, C, generator=generator) * spread_N11


def assert_bald_is_accurate(logits_NTC: Tensor, got: RowStats, task: str, reduce: str = "sum") -> None:
    """Relative to float64, and never negative: of B nats, with u = 2**-24, the rounding of the probabilities costs a
    few u/sqrt(B), that of sums and logarithms a few u.
    """
    good_N = got.finite.cpu()
    bald_N = got.scores["bald"].cpu()[good_N].double()
    exact_N = torch.from_numpy(oracle(logits_NTC.cpu()[good_N].double().numpy(), task, reduce)["bald"])
    bound_N = 8 * 2.0**-24 * exact_N.sqrt() + 2e-6 * exact_N + 1e-13
    error_N = (bald_N - exact_N).abs()
    assert (error_N <= bound_N).all(), (error_N / bound_N).max()
    assert not torch.signbit(bald_N).any(), "negative, or -0.0"
