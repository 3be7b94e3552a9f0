"""The interception of dropout calls and the map that answers them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as attention_by_name

from poolscore.engine.model.dropout import DROPOUT_CALLS, NATIVE, DropoutLayer, DropoutMode, apply_affine, row_shape


def calls_of(block: Callable[[Tensor], Any], x: Tensor) -> list[tuple[str, float, tuple[int, ...]]]:
    calls: list[tuple[str, float, tuple[int, ...]]] = []

    def answer(kind: str, p: float, x: Tensor) -> Tensor:
        calls.append((kind, p, tuple(x.shape)))
        return x * 2

    with DropoutMode(answer):
        block(x)
    return calls


@pytest.mark.parametrize("call", DROPOUT_CALLS, ids=lambda call: f"{call.__module__}.{call.__name__}")
@pytest.mark.parametrize("training", [False, True])
def test_every_call_is_answered(call: Any, training: bool) -> None:
    x = torch.ones(2, 3, 4, 5, 6) if "3d" in call.__name__ else torch.ones(2, 3, 4)
    kept = x.clone()
    results: list[Any] = []
    kind = DROPOUT_CALLS[call][0]
    assert calls_of(lambda x: results.append(call(x, 0.3, training)), x) == [(kind, 0.3, tuple(x.shape))]
    y, *mask = results[0] if call in NATIVE else [results[0]]
    assert y.equal(kept * 2)
    assert [m.dtype for m in mask] == [torch.bool] * (call in NATIVE)
    in_place = call.__name__.removesuffix(".default").endswith("_")
    assert (y is x) == in_place
    assert x.equal(y if in_place else kept)


@pytest.mark.parametrize("call", [f for f in DROPOUT_CALLS if f.__module__ == "torch.nn.functional"])
def test_in_place_changes_the_tensor_itself(call: Any) -> None:
    for arguments in ({"inplace": True}, {"training": True, "inplace": True}):
        x = torch.ones(2, 3, 4)
        y: list[Tensor] = []
        calls_of(lambda x, y=y, kw=arguments: y.append(call(x, p=0.3, **kw)), x)
        assert y[0] is x
        assert x.equal(torch.full((2, 3, 4), 2.0))
    x = torch.ones(2, 3, 4)
    calls_of(lambda x: call(x, 0.3, True, True), x)
    assert x.equal(torch.full((2, 3, 4), 2.0))


def test_arguments_in_every_form() -> None:
    x = torch.ones(2, 3)
    expected = [("element", 0.3, (2, 3))]
    assert calls_of(lambda x: F.dropout(input=x, p=0.3), x) == expected
    assert calls_of(lambda x: torch.dropout(input=x, p=0.3, train=False), x) == expected
    assert calls_of(lambda x: torch.dropout(x, p=0.3, train=False), x) == expected
    assert calls_of(lambda x: F.dropout(x), x) == [("element", 0.5, (2, 3))]
    assert calls_of(lambda x: F.dropout(x, 0), x) == []
    assert calls_of(lambda x: F.dropout(x, 0.0, inplace=True), x) == []
    assert x.equal(torch.ones(2, 3))


def test_lines_without_a_batch() -> None:
    """F.dropout1d of two dimensions and F.dropout3d of four take the first one for channels, not for rows; the probe
    refuses what it sees. F.dropout2d takes three as [N, C, L]."""
    assert calls_of(lambda x: F.dropout1d(x), torch.ones(2, 3)) == [("feature", 0.5, (1, 2, 3))]
    assert calls_of(lambda x: F.dropout3d(x), torch.ones(2, 3, 4, 5)) == [("feature", 0.5, (1, 2, 3, 4, 5))]
    assert calls_of(lambda x: F.dropout2d(x), torch.ones(2, 3, 4)) == [("feature", 0.5, (2, 3, 4))]
    assert calls_of(lambda x: torch.feature_dropout(x, 0.5, True), torch.ones(2, 3)) == [("feature", 0.5, (2, 3))]


def test_attention_is_answered_only_if_it_drops() -> None:
    q = torch.randn(2, 4, 3, 5)
    assert calls_of(lambda q: attention_by_name(q, q, q, None, 0.2), q) == [("attention", 0.2, (2, 4, 3, 3))]
    assert calls_of(lambda q: F.scaled_dot_product_attention(q, q, q), q) == []


FORMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "scale": {"scale": 0.3},
    "causal": {"is_causal": True},
    "bool": {"attn_mask": torch.tensor([[1, 0, 1, 1], [0, 0, 0, 0], [1, 1, 0, 0]], dtype=torch.bool)},
    "float": {"attn_mask": torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)},
    "empty rows": {"attn_mask": torch.full((3, 4), -math.inf, dtype=torch.float64)},
    "by row and head": {"attn_mask": torch.arange(2 * 4 * 3 * 4).reshape(2, 4, 3, 4) % 3 > 0},
    "grouped": {"enable_gqa": True},
}


@pytest.mark.parametrize("form", FORMS)
def test_attention_with_nothing_dropped_is_that_of_torch(form: str) -> None:
    torch.manual_seed(0)
    heads = 2 if form == "grouped" else 4
    q = torch.randn(2, 4, 3, 5, dtype=torch.float64)
    k, v = torch.randn(2, 2, heads, 4, 5, dtype=torch.float64)
    with DropoutMode(lambda kind, p, x: x):
        ours = F.scaled_dot_product_attention(q, k, v, dropout_p=0.5, **FORMS[form])
    torch.testing.assert_close(ours, F.scaled_dot_product_attention(q, k, v, **FORMS[form]), rtol=1e-12, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 4),
    passes=st.integers(1, 5),
    fold=st.integers(1, 3),
    before=st.lists(st.integers(1, 3), max_size=2),
    after=st.lists(st.integers(1, 3), max_size=2),
    shared=st.booleans(),
    channels=st.booleans(),
)
def test_each_entry_meets_its_own_mask(
    rows: int, passes: int, fold: int, before: list[int], after: list[int], shared: bool, channels: bool
) -> None:
    if channels:
        before, after = [], [2, *after]
    d = len(before)
    x = torch.randn(*before, rows * passes * fold, *after)
    kind = "feature_alpha" if channels else "alpha"
    shape = row_shape(kind, (*x.shape[:d], fold, *x.shape[d + 1 :]), d, fold)
    DropoutLayer(0, "", kind, 0.5, d, fold, shape)
    factor = torch.randn(1 if shared else rows, passes, *shape)
    offset = torch.randn_like(factor)
    y = apply_affine(x, factor, offset, d, fold, passes)
    assert y.shape == x.shape
    for n in range(rows):
        for t in range(passes):
            start = (n * passes + t) * fold
            one, m = x.narrow(d, start, fold), 0 if shared else n
            full = (*before, fold, *([after[0], *[1] * (len(after) - 1)] if channels else after))
            want = one * factor[m, t].reshape(full) + offset[m, t].reshape(full)
            torch.testing.assert_close(y.narrow(d, start, fold), want, rtol=0, atol=0)
    without = apply_affine(x, factor, None, d, fold, passes)
    assert without.equal(apply_affine(x, factor, offset * 0, d, fold, passes))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtype_and_layout(dtype: torch.dtype) -> None:
    DropoutLayer(0, "", "element", 0.25, 0, 1, (3, 4, 5))
    x = torch.randn(6, 3, 4, 5).to(dtype)
    factor = (torch.rand(1, 2, 3, 4, 5) > 0.25) / 0.75
    y = apply_affine(x, factor, None, 0, 1, 2)
    assert y.dtype == dtype
    for form in (x.contiguous(memory_format=torch.channels_last), x.transpose(0, 3).contiguous().transpose(0, 3)):
        assert apply_affine(form, factor, None, 0, 1, 2).equal(y)


def test_fits() -> None:
    layer = DropoutLayer(0, "", "element", 0.25, 1, 2, (4, 2, 5))
    assert layer.fits("element", 0.25, (4, 12, 5), 6)
    for call in (
        ("attention", 0.25, (4, 12, 5), 6),
        ("element", 0.2, (4, 12, 5), 6),
        ("element", 0.25, (4, 12, 5), 12),
        ("element", 0.25, (4, 12, 1), 6),
        ("element", 0.25, (4, 12, 5, 1), 6),
        ("element", 0.25, (4,), 6),
        ("element", 0.25, (), 6),
    ):
        assert not layer.fits(*call)
    assert DropoutLayer(0, "", "feature", 0.25, 0, 1, (4,)).fits("feature", 0.25, (6, 4, 7, 7), 6)
    assert not DropoutLayer(0, "", "feature", 0.25, 0, 1, (4,)).fits("feature", 0.25, (6, 5, 7, 7), 6)
    assert DropoutLayer(0, "", "element", 0.25, 0, 1, ()).fits("element", 0.25, (6,), 6)


def test_the_mode_is_gone_after_an_exception() -> None:
    before = dict(vars(F))
    with pytest.raises(ZeroDivisionError), DropoutMode(lambda kind, p, x: x / (1 // 0)):
        F.dropout(torch.ones(3))
    assert dict(vars(F)) == before
    x = torch.ones(3)
    assert F.dropout(x, 0.5, False) is x
