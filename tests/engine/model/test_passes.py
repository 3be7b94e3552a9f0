"""T passes against the oracle, in pieces, beside other rows, and against torch's own dropout."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from dropout_nets import CASES, CPU, Case, Fn, expected, keys_of, scorer, with_linears
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from poolscore.engine.config import PassesConfig
from poolscore.engine.errors import PoolscoreError
from poolscore.engine.model.dropout import DropoutMode
from poolscore.engine.model.passes import McDropout
from poolscore.engine.model.torch_network import TorchNetwork

ROWS = 3
FEW = ["mlp", "cnn, Dropout2d", "AlphaDropout", "batch second, folded", "encoder, batch first, norm last"]
ONE_ATTENTION = [name for name in CASES if "MultiheadAttention" not in name or "3d" in name]
BOTH = ["shared", "independent"]


def unsigned(keys: Tensor) -> list[int]:
    return [int(key) for key in keys.numpy().view(np.uint64)]


# ------------------------------------------------------------------------------------------ the right answer


@pytest.mark.parametrize(
    ("name", "masks", "repeat"),
    [
        *((name, "shared", "for the test") for name in CASES),
        *((name, "independent", "for the test") for name in ONE_ATTENTION),
        *((name, "shared", None) for name in ONE_ATTENTION),  # split; tracing takes a second or so
        *((name, "independent", None) for name in FEW),
    ],
)
def test_the_oracle_agrees(name: str, masks: str, repeat: str | None) -> None:
    """float64 nets, so that what is left is the rounding of factors and logits to float32, 6e-8 of them each."""
    case, passes, keys = CASES[name], 3, keys_of(ROWS)
    model, inputs = case.model().double(), case.inputs(ROWS, torch.float64)
    want, calls = expected(model, inputs, passes, seed=11, keys=None if masks == "shared" else unsigned(keys))
    network = TorchNetwork(model)
    probe = network.probe(inputs)
    mc = McDropout(network, probe, PassesConfig(count=passes, masks=masks, seed=11), CPU, inputs, repeat_because=repeat)
    assert mc.repeated_because == repeat
    got = mc.logits(inputs, keys)
    assert [(layer.kind, layer.p) for layer in probe.layers] == calls
    assert [layer.index for layer in probe.layers] == list(range(case.layers))
    assert got.dtype == torch.float32
    assert want.std(dim=1).max() > 1e-3  # the passes differ
    torch.testing.assert_close(got.double(), want, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ONE_ATTENTION)
def test_the_oracle_agrees_in_float32(name: str) -> None:
    """Within 1e-6 beyond four times what another batch size and float32 cost the model without dropout."""
    case, passes = CASES[name], 2
    model, inputs = case.model(), case.inputs(ROWS)
    want, _ = expected(model, inputs, passes, keys=unsigned(keys_of(ROWS)))
    mc = scorer(model, inputs, count=passes, masks="independent")
    exact = copy.deepcopy(mc._whole._model).double()
    double = {key: x.double() if x.is_floating_point() else x for key, x in inputs.items()}
    with torch.no_grad(), DropoutMode(lambda kind, p, x: x):
        truth = exact(double[""]) if "" in double else exact(**double)
    cost = (mc.without_dropout(inputs)[:, 0].double() - truth.view(ROWS, -1)).abs().max().item()
    torch.testing.assert_close(mc.logits(inputs, keys_of(ROWS)), want, rtol=1e-6, atol=1e-6 + 4 * cost)


def test_weights_of_attention_do_not_change_the_masks() -> None:
    """need_weights=True drops by F.dropout, need_weights=False inside F.scaled_dot_product_attention."""
    logits = []
    for weights in ("weights", "no weights"):
        case = CASES[f"MultiheadAttention, no mask, {weights}, batch first"]
        inputs = case.inputs(ROWS)
        logits.append(scorer(case.model(), inputs, count=4).logits(inputs, keys_of(ROWS)))
    torch.testing.assert_close(*logits, rtol=1e-6, atol=1e-6)


@settings(max_examples=15, deadline=None)
@given(
    passes=st.integers(1, 21),
    rows=st.integers(1, 9),
    p=st.floats(0.01, 0.95),
    masks=st.sampled_from(BOTH),
    seed=st.integers(0, 2**64 - 1),
    rows_per_call=st.integers(1, 64),
)
def test_any_size_and_rate(passes: int, rows: int, p: float, masks: Any, seed: int, rows_per_call: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 9), nn.Dropout(p), nn.Linear(9, 2), nn.AlphaDropout(p / 2)).double()
    inputs, keys = Case(lambda: model).inputs(9, torch.float64), keys_of(rows)
    mc = scorer(model, inputs, count=passes, masks=masks, seed=seed, rows_per_call=rows_per_call)
    some = {"": inputs[""][:rows]}
    want, _ = expected(model, some, passes, seed, None if masks == "shared" else unsigned(keys))
    torch.testing.assert_close(mc.logits(some, keys).double(), want, rtol=1e-6, atol=1e-6)


# ------------------------------------------------------------------------------------------------- pieces


@pytest.mark.parametrize("masks", BOTH)
@pytest.mark.parametrize("name", FEW)
def test_pieces_of_the_passes(name: str, masks: str) -> None:
    """rows_per_call cuts T. The masks stay, so what changes is what another batch size does to the model: nothing in
    float64, once the logits are rounded to float32, beyond the last bit."""
    case, rows, passes = CASES[name], 4, 7
    model, inputs, keys = case.model().double(), case.inputs(4, torch.float64), keys_of(rows)
    mc = scorer(model, inputs, count=passes, masks=masks, rows_per_call=10_000)
    whole = mc.logits(inputs, keys)
    for rows_per_call in (1, 4, 9, 12, 27, 28):
        mc.rows_per_call = rows_per_call
        torch.testing.assert_close(mc.logits(inputs, keys), whole, rtol=1.2e-7, atol=1e-9)
        assert mc.logits(inputs, keys).equal(mc.logits(inputs, keys))


def test_pieces_are_the_same_bits_where_no_blas_is_called() -> None:
    case = Case(lambda: nn.Sequential(nn.Dropout(0.3), nn.Tanh(), nn.AlphaDropout(0.4)))
    inputs, keys = case.inputs(5), keys_of(5)
    whole = scorer(case.model(), inputs, count=21, rows_per_call=10_000).logits(inputs, keys)
    for rows_per_call in (1, 5, 11, 50, 104, 105):
        assert scorer(case.model(), inputs, count=21, rows_per_call=rows_per_call).logits(inputs, keys).equal(whole)


@pytest.mark.parametrize("masks", BOTH)
def test_fewer_passes_are_the_first_of_more(masks: str) -> None:
    case = CASES["root"]
    inputs, keys = case.inputs(ROWS), keys_of(ROWS)
    most = scorer(case.model(), inputs, count=21, masks=masks).logits(inputs, keys)
    for count in range(1, 21):
        assert scorer(case.model(), inputs, count=count, masks=masks).logits(inputs, keys).equal(most[:, :count])


@pytest.mark.parametrize("masks", BOTH)
@pytest.mark.parametrize("name", FEW)
def test_a_batch_of_one_and_of_none(name: str, masks: str) -> None:
    case = CASES[name]
    inputs, keys = case.inputs(ROWS, torch.float64), keys_of(ROWS)
    mc = scorer(case.model().double(), inputs, count=3, masks=masks)
    whole = mc.logits(inputs, keys)
    alone = torch.cat([mc.logits({"": inputs[""][n : n + 1]}, keys[n : n + 1]) for n in range(ROWS)])
    torch.testing.assert_close(alone, whole, rtol=1.2e-7, atol=1e-9)
    if name in ("mlp", "AlphaDropout"):
        assert mc.logits({"": inputs[""][:0]}, keys[:0]).shape == (0, 3, 3)


# ---------------------------------------------------------------------------------------------- neighbours


@pytest.mark.parametrize("name", [*FEW, "sdpa", "windows", "two inputs"])
def test_neighbours_do_not_matter(name: str) -> None:
    """Same place, other content around it: the same bits, with shared masks even under other keys."""
    case = CASES[name]
    inputs, others = case.inputs(4), case.inputs(4, seed=99)
    mc = scorer(case.model(), inputs, count=5)
    before = mc.logits(inputs, keys_of(4))[2]
    mixed = {key: torch.cat([others[key][:2], x[2:3], others[key][3:]]) for key, x in inputs.items()}
    assert mc.logits(mixed, keys_of(4, first=50))[2].equal(before)


@pytest.mark.parametrize("name", [*FEW, "windows", "two inputs"])
def test_independent_masks_go_with_the_key(name: str) -> None:
    case = CASES[name]
    inputs, others = case.inputs(4, torch.float64), case.inputs(6, torch.float64, seed=99)
    mc = scorer(case.model().double(), inputs, count=5, masks="independent")
    before = mc.logits(inputs, keys_of(4))
    moved = {key: torch.cat([others[key][:5], x[1:2]]) for key, x in inputs.items()}
    keys = torch.cat([keys_of(5, first=50), keys_of(4)[1:2]])
    torch.testing.assert_close(mc.logits(moved, keys)[5], before[1], rtol=1e-6, atol=1e-6)
    twins = {key: x[[1, 1, 1, 1]] for key, x in inputs.items()}  # the same row under four keys
    logits = mc.logits(twins, keys_of(4))
    torch.testing.assert_close(logits[1], before[1], rtol=1e-6, atol=1e-6)
    assert all((logits[n] - logits[1]).abs().max() > 1e-3 for n in (0, 2, 3))
    shared = scorer(case.model().double(), inputs, count=5).logits(twins, keys_of(4))
    torch.testing.assert_close(shared, shared[:1].expand_as(shared), rtol=1e-6, atol=1e-6)


# ---------------------------------------------------------------------------------------------- statistics


def attention_net() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        return self.b(self.mha(x, x, x, need_weights=False)[0].mean(1))

    return Fn(forward, mha=nn.MultiheadAttention(6, 2, dropout=0.3, batch_first=True), b=nn.Linear(6, 2))


STATISTICS = {
    "element": Case(lambda: nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.3), nn.Linear(8, 2))),
    "feature": Case(
        lambda: nn.Sequential(nn.Conv1d(2, 5, 3), nn.Dropout1d(0.4), nn.Flatten(), nn.Linear(20, 2)), (2, 6)
    ),
    "alpha": Case(lambda: nn.Sequential(nn.Linear(6, 8), nn.AlphaDropout(0.3), nn.Linear(8, 2))),
    "feature_alpha": Case(
        lambda: nn.Sequential(nn.Conv1d(2, 5, 3), nn.FeatureAlphaDropout(0.4), nn.Flatten(), nn.Linear(20, 2)), (2, 6)
    ),
    "attention": Case(attention_net, (4, 6)),
}


@pytest.mark.parametrize("masks", BOTH)
@pytest.mark.parametrize("kind", STATISTICS)
def test_mean_and_variance_are_those_of_torch(kind: str, masks: str) -> None:
    """20,000 passes of one row against 20,000 rows in torch's training mode; 4.5 standard errors of the samples."""
    case, passes = STATISTICS[kind], 20_000
    model, inputs = case.model(), case.inputs(ROWS)
    one = inputs[""][:1]
    mc = scorer(model, inputs, count=passes, masks=masks)
    assert mc.layers[0].kind == kind
    ours = mc.logits({"": one}, keys_of(1))[0].double()
    torch.manual_seed(5)
    with torch.no_grad():
        theirs = model.train()(one.expand(passes, *one.shape[1:])).double()
    model.eval()

    def moments(x_TC: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        off = x_TC - x_TC.mean(0)
        variance = (off**2).mean(0)
        return x_TC.mean(0), variance / passes, variance, ((off**4).mean(0) - variance**2) / passes

    a, b = moments(ours), moments(theirs)
    assert (a[2] > 1e-4).all()
    assert ((a[0] - b[0]).abs() < 4.5 * (a[1] + b[1]).sqrt()).all()
    assert ((a[2] - b[2]).abs() < 4.5 * (a[3] + b[3]).sqrt()).all()


# --------------------------------------------------------------------------------------- the model is not hurt


def test_batch_norm_stays_as_it_is() -> None:
    case = CASES["cnn, Dropout2d"]
    inputs = case.inputs(32)
    model = case.model()
    model[1].running_mean.normal_()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    mc = scorer(model, inputs, count=5)
    large = mc.logits(inputs, keys_of(32))
    small = torch.cat([mc.logits({"": inputs[""][n : n + 8]}, keys_of(8, n)) for n in range(0, 32, 8)])
    torch.testing.assert_close(small, large, rtol=1e-5, atol=1e-6)
    assert all(value.equal(before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", ["cnn, Dropout2d", "encoder, batch first, norm last", "in place", "two inputs"])
def test_nothing_is_left_behind(name: str) -> None:
    case = CASES[name]
    model, inputs = case.model(), case.inputs(ROWS)
    torch_functions, before = dict(vars(F)), copy.deepcopy(model.state_dict())
    kept = {key: x.clone() for key, x in inputs.items()}
    mc = scorer(model, inputs, count=3)
    mc.logits(inputs, keys_of(ROWS))
    mc.without_dropout(inputs)
    assert all(value.equal(before[key]) for key, value in model.state_dict().items())
    assert all(x.equal(kept[key]) for key, x in inputs.items())
    assert not any(m._forward_hooks or m._forward_pre_hooks or m._forward_hooks_always_called for m in model.modules())
    assert dict(vars(F)) == torch_functions


def test_inputs_changed_in_place_are_copies() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        return self.b(self.drop(self.a(x.sub_(0.5).div_(0.1)).relu_()))

    case = Case(lambda: with_linears(forward, drop=nn.Dropout(0.3)))
    inputs = case.inputs(ROWS)
    kept = inputs[""].clone()
    mc = scorer(case.model(), inputs, count=1)
    first = mc.logits(inputs, keys_of(ROWS))
    assert mc.without_dropout(inputs).equal(mc.without_dropout(inputs))
    assert mc.logits(inputs, keys_of(ROWS)).equal(first)
    assert inputs[""].equal(kept)


def test_an_exception_inside_leaves_torch_as_it_was() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        if self.broken:
            raise RuntimeError("lost")
        return self.b(self.mha(self.a(x), self.a(x), self.a(x))[0].mean(1))

    case = Case(
        lambda: with_linears(forward, broken=False, mha=nn.MultiheadAttention(16, 2, 0.3, batch_first=True)), (4, 6)
    )
    model, inputs = case.model(), case.inputs(ROWS)
    before = dict(vars(F))
    mc = scorer(model, inputs, count=2, repeat="what is traced no longer runs the model's code")
    model.broken = True
    with pytest.raises(RuntimeError, match="lost"):
        mc.logits(inputs, keys_of(ROWS))
    assert dict(vars(F)) == before
    x = torch.ones(100)
    assert F.dropout(x, 0.5, False) is x  # no mode is left that would answer


def test_the_flags_come_with_the_probe() -> None:
    """A worker builds the model anew and has only the probe."""
    case = CASES["hand-written attention"]
    inputs = case.inputs(ROWS)
    probe = TorchNetwork(case.model()).probe(inputs)
    a, b = (
        McDropout(TorchNetwork(model), probe, PassesConfig(count=3), CPU, inputs).logits(inputs, keys_of(ROWS))
        for model in (case.model(), case.model().train())
    )
    assert a.equal(b)


# ------------------------------------------------------------------------------- calls that depend on the data


def skips(self: Any, x: Tensor) -> Tensor:
    h = self.a(x)
    return self.b(self.drop(h) if x.max() < 50 else h)


def adds(self: Any, x: Tensor) -> Tensor:
    h = self.drop(self.a(x))
    return self.b(self.drop(h) if x.max() > 50 else h)


def other_rate(self: Any, x: Tensor) -> Tensor:
    return self.b(F.dropout(self.a(x), 0.2 if x.max() > 50 else 0.3))


def other_rows(self: Any, x: Tensor) -> Tensor:  # a mixture of experts: only some rows reach the layer
    h = self.a(x)
    chosen = x.amax(1) < 50
    h[chosen] = self.drop(h[chosen])
    return self.b(h)


def other_length(self: Any, x: Tensor) -> Tensor:  # two tokens, or one that a mask would silently broadcast over
    return self.b(self.drop(self.a(x)[:, None].expand(-1, 1 if x.max() > 50 else 2, -1)).mean(1))


@pytest.mark.parametrize("forward", [skips, adds, other_rate, other_rows, other_length])
@pytest.mark.parametrize("masks", BOTH)
def test_data_dependent_calls_are_refused(forward: Any, masks: str) -> None:
    case = Case(lambda: with_linears(forward, drop=nn.Dropout(0.3)))
    inputs = case.inputs(4)
    mc = scorer(case.model(), inputs, count=2, masks=masks)
    mc.logits(inputs, keys_of(4))
    inputs[""][0] = 100.0
    inputs[""][1] = 100.0  # two of four, so that other_rows is left with a multiple of T rows
    with pytest.raises(PoolscoreError, match="depend on the data"):
        mc.logits(inputs, keys_of(4))


# ------------------------------------------------------------------------------------- layouts and precisions


@pytest.mark.parametrize("name", ["cnn, Dropout2d", "Dropout3d", "encoder, sequence first, norm first"])
def test_strides_do_not_matter(name: str) -> None:
    case = CASES[name]
    inputs = case.inputs(ROWS, torch.float64)
    x = inputs[""]
    model = case.model().double()
    plain = scorer(model, inputs, count=3).logits(inputs, keys_of(ROWS))
    gaps = torch.zeros(*x.shape, 2, dtype=x.dtype)[..., 0].copy_(x)
    turned = x.transpose(1, -1).contiguous().transpose(1, -1)
    forms = [gaps, turned]
    if x.ndim == 4:
        forms.append(x.contiguous(memory_format=torch.channels_last))
        model = model.to(memory_format=torch.channels_last)
    for form in forms:
        assert form.equal(x)
        assert not form.is_contiguous()
        logits = scorer(model, {"": form}, count=3).logits({"": form}, keys_of(ROWS))
        torch.testing.assert_close(logits, plain, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize(
    "name", [*FEW, "sdpa, bool mask by row", "transformer", "MultiheadAttention, 3d, weights, batch first"]
)
def test_low_precision(name: str, precision: str) -> None:
    """The same masks, so the logits are those of fp32 up to a few roundings: 2⁻⁸ and 2⁻¹¹ of the largest values."""
    case = CASES[name]
    model, inputs = case.model(), case.inputs(ROWS)
    exact = scorer(model, inputs, count=4).logits(inputs, keys_of(ROWS))
    low = scorer(model, inputs, count=4, precision=precision).logits(inputs, keys_of(ROWS))
    assert low.dtype == torch.float32
    assert not low.equal(exact)
    unit = {"bf16": 2**-8, "fp16": 2**-11}[precision]
    torch.testing.assert_close(low, exact, rtol=0, atol=8 * unit * exact.abs().max().item())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("name", FEW)
def test_models_of_another_dtype(name: str, dtype: torch.dtype) -> None:
    """A mask of float32 does not promote what the next layer sees: linear layers refuse another dtype than theirs."""
    case = CASES[name]
    model, inputs = case.model().to(dtype), case.inputs(ROWS, dtype)
    logits = scorer(model, inputs, count=2).logits(inputs, keys_of(ROWS))
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()


def test_mask_memory() -> None:
    case = CASES["AlphaDropout"]
    inputs = case.inputs(ROWS)
    assert scorer(case.model(), inputs, count=5).mask_bytes == 2 * 4 * 5 * 16  # factor and offset
    assert scorer(case.model(), inputs, count=5, masks="independent").mask_bytes == 0
