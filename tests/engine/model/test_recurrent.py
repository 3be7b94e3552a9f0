"""Recurrent networks layer by layer: the same outputs without dropout, torch's own dropout with it, ours with masks."""

from __future__ import annotations

import copy
import warnings
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from dropout_nets import Fn, expected, keys_of, scorer
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from poolscore.engine.config import ModelConfig
from poolscore.engine.errors import ConfigError
from poolscore.engine.model.load import load_model
from poolscore.engine.model.probe import probe_model
from poolscore.engine.model.recurrent import RECURRENT_FLOPS, LayerByLayer, split_recurrent_layers
from poolscore.engine.model.torch_network import weights_digest
from poolscore.engine.scores import Task

ROWS, LENGTH, FEATURES, HIDDEN, DEPTH = 3, 5, 4, 8, 3
KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "LSTM": (nn.LSTM, {}),
    "LSTM, projected": (nn.LSTM, {"proj_size": 3}),
    "GRU": (nn.GRU, {}),
    "RNN, tanh": (nn.RNN, {}),
    "RNN, relu": (nn.RNN, {"nonlinearity": "relu"}),
}

PROJECTED = "ignore:LSTM with projections is not supported with oneDNN"  # torch tells once


def recurrent(kind: str, p: float = 0.3, **options: Any) -> Any:
    torch.manual_seed(2)
    build, more = KINDS[kind]
    return build(FEATURES, HIDDEN, DEPTH, dropout=p, **more, **options).eval().requires_grad_(False)


def split(rnn: Any) -> Any:
    rnn = copy.deepcopy(rnn)
    split_recurrent_layers(rnn)
    assert isinstance(rnn, LayerByLayer)
    return rnn.eval()


def flat(result: Any) -> list[Tensor]:
    output, state = result
    return [output, *(state if isinstance(state, tuple) else [state])]


# ------------------------------------------------------------------------------------------- without dropout


@pytest.mark.filterwarnings(PROJECTED)
@pytest.mark.parametrize("kind", KINDS)
def test_without_dropout_the_bits_are_the_same(kind: str) -> None:
    for bias, first, both, given in product([True, False], repeat=4):
        rnn = recurrent(kind, bias=bias, batch_first=first, bidirectional=both)
        x = torch.randn(*((ROWS, LENGTH) if first else (LENGTH, ROWS)), FEATURES)
        state: Any = None
        if given:
            _, zeros = rnn(x)
            state = tuple(map(torch.randn_like, zeros)) if isinstance(zeros, tuple) else torch.randn_like(zeros)
        ours, theirs = flat(split(rnn)(x, state)), flat(rnn(x, state))
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            assert a.equal(b)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_it_moves_like_any_module(dtype: torch.dtype) -> None:
    rnn = recurrent("LSTM")
    ours = split(rnn)
    for model in (rnn, ours):
        model.to(dtype)
    x = torch.randn(LENGTH, ROWS, FEATURES, dtype=dtype)
    for a, b in zip(flat(ours(x)), flat(rnn(x)), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=4 * torch.finfo(dtype).eps)
    assert ours.weight_ih_l1 is ours.rnn_l1.weight_ih_l0
    with torch.no_grad():  # the layers share the weights: they see what becomes of them
        ours.weight_ih_l1.zero_()
        rnn.weight_ih_l1.zero_()
    torch.testing.assert_close(ours(x)[0], rnn(x)[0], rtol=0, atol=4 * torch.finfo(dtype).eps)


def test_nothing_but_forward_changes_for_the_users_code() -> None:
    rnn = recurrent("LSTM", bidirectional=True)
    ours = split(rnn)
    assert isinstance(ours, nn.LSTM)
    assert "LSTM(\n  4, 8, num_layers=3, dropout=0.3, bidirectional=True\n  (rnn_l0): LSTM(4, 8, " in repr(ours)
    assert (ours.hidden_size, ours.num_layers, ours.dropout, ours.bidirectional) == (HIDDEN, DEPTH, 0.3, True)
    assert dict(ours.named_parameters()).keys() == dict(rnn.named_parameters()).keys()
    ours.flatten_parameters()
    x, wrong = torch.randn(LENGTH, ROWS, FEATURES), torch.zeros(DEPTH * 2 + 1, ROWS, HIDDEN)
    with pytest.raises(RuntimeError, match=r"Expected hidden\[0\] size"):
        ours(x, (wrong, wrong))
    assert flat(ours(input=x, hx=[wrong[1:], wrong[1:]]))[0].equal(rnn(x)[0])  # what torch takes


# ---------------------------------------------------------------------------------------------- with dropout


def reads(self: Any, x: Tensor) -> Tensor:
    output, state = self.rnn(x if self.rnn.batch_first else x.transpose(0, 1))
    h = state[0] if isinstance(state, tuple) else state
    return self.b(torch.cat([output.mean(1 if self.rnn.batch_first else 0), h[-1]], 1))


def by_hand(rnn: Any) -> nn.Module:
    """The same network as torch's documentation describes it: networks of one layer with dropout between them."""
    kind: Any = type(rnn)
    names = {nn.LSTM: ["proj_size"], nn.GRU: [], nn.RNN: ["nonlinearity"]}[kind]
    more = {name: getattr(rnn, name) for name in (*names, "bidirectional", "batch_first")}
    sizes = [FEATURES] + [(rnn.proj_size or HIDDEN) * (1 + rnn.bidirectional)] * (DEPTH - 1)
    stack = nn.ModuleList(kind(size, HIDDEN, **more) for size in sizes)
    for i, layer in enumerate(stack):
        layer.load_state_dict(
            {
                k.replace(f"_l{i}", "_l0"): v
                for k, v in rnn.named_parameters()
                if k.removesuffix("_reverse")[-1] == str(i)
            }
        )

    def forward(self: Any, x: Tensor) -> Any:
        for i, layer in enumerate(self.stack):
            x, state = layer(x if i == 0 else self.drop(x))
        return x, state

    return Fn(forward, stack=stack, drop=nn.Dropout(rnn.dropout), batch_first=rnn.batch_first)


def classifier(rnn: Any, like: Any) -> nn.Module:
    torch.manual_seed(4)
    size = like.proj_size or HIDDEN
    return Fn(reads, rnn=rnn, b=nn.Linear(size * (2 + like.bidirectional), 2)).double().eval().requires_grad_(False)


@pytest.mark.filterwarnings(PROJECTED)
@pytest.mark.parametrize(
    ("kind", "first", "both", "masks"),
    [
        ("LSTM", True, False, "shared"),
        ("LSTM", True, True, "independent"),
        ("LSTM, projected", False, True, "shared"),
        ("GRU", False, False, "independent"),
        ("RNN, relu", True, True, "shared"),
    ],
)
def test_the_oracle_agrees(kind: str, first: bool, both: bool, masks: str) -> None:
    """Our masks on the network as it was loaded, the oracle's on one that was put together by hand."""
    rnn = recurrent(kind, bidirectional=both, batch_first=first)
    x, keys = {"": torch.randn(ROWS, LENGTH, FEATURES, dtype=torch.float64)}, keys_of(ROWS)
    row_keys = None if masks == "shared" else [int(key) % 2**64 for key in keys]
    want, calls = expected(classifier(by_hand(rnn), rnn), x, 4, seed=9, keys=row_keys)
    model = classifier(rnn, rnn)
    split_recurrent_layers(model)
    size = (rnn.proj_size or HIDDEN) * (1 + both)
    for repeat in (None, "for the test"):
        mc = scorer(model, x, repeat, count=4, masks=masks, seed=9)
        assert mc.repeated_because == repeat
        assert [(layer.kind, layer.p) for layer in mc.layers] == calls == [("element", 0.3)] * (DEPTH - 1)
        assert [layer.name for layer in mc.layers] == ["rnn.dropout_l0", "rnn.dropout_l1"]
        assert {(layer.shape, layer.batch_dim) for layer in mc.layers} == {((LENGTH, size), 0 if first else 1)}
        torch.testing.assert_close(mc.logits(x, keys).double(), want, rtol=1e-6, atol=1e-6)
    assert want.std(1).max() > 1e-3


def test_mean_and_variance_are_those_of_torchs_training_mode() -> None:
    """10,000 passes of a row against 10,000 rows in torch's one operator; 4.5 standard errors of the samples."""
    rnn, passes = recurrent("LSTM", p=0.5, batch_first=True), 10_000
    x = torch.randn(ROWS, LENGTH, FEATURES)
    torch.manual_seed(1)
    theirs = rnn.train()(x[:1].expand(passes, -1, -1))[0].mean(1).double()
    model = Fn(lambda self, x: self.rnn(x)[0].mean(1), rnn=rnn.eval())
    split_recurrent_layers(model)
    ours = scorer(model, {"": x}, count=passes).logits({"": x[:1]}, keys_of(1))[0].double()
    a, b = ours.var(0), theirs.var(0)
    assert (b > 1e-5).all()
    assert ((ours.mean(0) - theirs.mean(0)).abs() < 4.5 * ((a + b) / passes).sqrt()).all()
    fourth = sum(((y - y.mean(0)) ** 4).mean(0) for y in (ours, theirs))
    assert ((a - b).abs() < 4.5 * (fourth / passes).sqrt()).all()


# --------------------------------------------------------------------------------------- what is left, or refused


class OwnForward(nn.LSTM):
    def forward(self, x: Tensor, hx: Any = None) -> Any:
        return super().forward(x * 2, hx)


class OwnStart(nn.LSTM):
    """No forward of its own: a subclass that only begins with other weights."""

    def reset_parameters(self) -> None:
        for weight in self.parameters():
            nn.init.constant_(weight, 0.1)


def test_what_is_left_alone_and_what_is_not() -> None:
    parametrized = recurrent("LSTM")
    nn.utils.parametrizations.weight_norm(parametrized, "weight_hh_l1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch: dropout needs more than one layer
        one_layer = nn.LSTM(4, 8, 1, dropout=0.3)
    own, start = OwnForward(4, 8, 2, dropout=0.3), OwnStart(4, 8, 2, dropout=0.3)
    for rnn in (parametrized, one_layer, own, recurrent("GRU", p=0.0)):
        before = type(rnn), dict(rnn.named_modules())
        split_recurrent_layers(rnn)
        assert (type(rnn), dict(rnn.named_modules())) == before
    split_recurrent_layers(start)
    assert isinstance(start, LayerByLayer)
    assert isinstance(start, OwnStart)
    tied = nn.LSTM(8, 8, 2, dropout=0.3)
    tied.weight_ih_l1 = tied.weight_ih_l0
    x = torch.randn(LENGTH, ROWS, 8)
    want = tied.eval()(x)[0]
    split_recurrent_layers(nn.ModuleDict({"a": tied, "b": tied}))
    assert isinstance(tied, LayerByLayer)
    assert tied.eval()(x)[0].equal(want)


def probed(forward: Any, rnn: Any) -> str:
    model = Fn(forward, rnn=rnn, b=nn.Linear(HIDDEN, 2)).eval().requires_grad_(False)
    split_recurrent_layers(model)
    with pytest.raises(ConfigError) as caught:
        probe_model(model, {"": torch.randn(ROWS, LENGTH, FEATURES)})
    assert "\n" not in str(caught.value)
    return str(caught.value)


def unbatched(self: Any, x: Tensor) -> Tensor:
    return self.b(torch.stack([self.rnn(row)[0][-1] for row in x]))


def packed(self: Any, x: Tensor) -> Tensor:
    rows = pack_padded_sequence(x, torch.full((len(x),), LENGTH), batch_first=True)
    return self.b(self.rnn(rows)[1][-1])


def test_inputs_whose_rows_cannot_be_told_apart_are_refused() -> None:
    start = "model: a GRU with dropout=0.3 between its layers was given "
    end = "; give it padded tensors [N, length, features], or build it with dropout=0"
    assert probed(unbatched, recurrent("GRU")) == f"{start}a tensor [5, 4]{end}"
    assert probed(packed, recurrent("GRU")) == f"{start}a PackedSequence, which hides its full length{end}"
    for forward in (unbatched, packed):  # as the message says
        model = Fn(forward, rnn=recurrent("GRU", p=0.0), b=nn.Linear(HIDDEN, 2)).eval().requires_grad_(False)
        assert probe_model(model, {"": torch.randn(ROWS, LENGTH, FEATURES)}).layers == ()


def test_p_1_is_refused() -> None:
    message = probed(lambda self, x: self.b(self.rnn(x)[0].mean(1)), recurrent("LSTM", p=1.0, batch_first=True))
    assert message == "model: dropout 'rnn.dropout_l0' has p=1, which drops everything; use p below 1"


def test_a_mask_is_the_same_at_every_length() -> None:
    """Element = [time, feature]: the mask of a longer input begins with that of a shorter one."""
    model = Fn(lambda self, x: self.rnn(x)[0][:, 0], rnn=recurrent("GRU", p=0.5, batch_first=True))
    split_recurrent_layers(model)
    x = torch.randn(ROWS, LENGTH, FEATURES)
    long, short = (
        scorer(model, {"": y}, "for the test", count=6).logits({"": y}, keys_of(ROWS)) for y in (x, x[:, :2])
    )
    torch.testing.assert_close(long, short, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_cost_counts_the_layers(kind: str) -> None:
    """Of one layer before the frontier and two behind it, and in one operator as in several."""
    model, x = classifier(recurrent(kind, batch_first=True), recurrent(kind)).float(), torch.randn(3, LENGTH, FEATURES)
    split_recurrent_layers(model)
    gates = {"LSTM": 4, "GRU": 3}[kind] * HIDDEN
    first, others, head = LENGTH * gates * (FEATURES + HIDDEN), 2 * LENGTH * gates * 2 * HIDDEN, 2 * 2 * HIDDEN
    cost = scorer(model, {"": x}, count=10).cost({"": x})
    assert cost.one_pass == 2 * (first + others + head)
    assert cost.once == 2 * first
    assert cost.all_passes == 2 * (first + 10 * (others + head))
    on_gpu = RECURRENT_FLOPS[torch.ops.aten._cudnn_rnn]
    assert on_gpu((LENGTH, 1, FEATURES), [(gates, FEATURES), (gates, HIDDEN), (gates,), (gates,)], 4) == 2 * first


def test_plan_names_modules_of_the_user() -> None:
    model, x = classifier(recurrent("LSTM", batch_first=True), recurrent("LSTM")), torch.randn(3, LENGTH, FEATURES)
    split_recurrent_layers(model)
    cut = scorer(model, {"": x.double()}, count=2).cut
    assert cut is not None
    assert cut.modules[0][0] == "rnn.rnn_l0"
    assert cut.modules[1] == ("rnn.dropout_l0", "rnn.rnn_l1", "rnn.dropout_l1", "rnn.rnn_l2", "rnn", "b")


def test_loading_does_it(tmp_path: Path) -> None:
    """The file has torch's names, the weights keep them, and another class of the same name is not in the way."""
    sizes = {"input_size": 4, "hidden_size": 8, "num_layers": 2, "dropout": 0.3}
    theirs = nn.LSTM(**sizes)
    torch.save(theirs.state_dict(), tmp_path / "weights.pt")
    model = load_model(
        ModelConfig(source="torch.nn:LSTM", args=sizes, weights=str(tmp_path / "weights.pt"), task=Task.REGRESSION)
    )
    assert isinstance(model, LayerByLayer)
    assert weights_digest(model) == weights_digest(theirs)
