"""What the probe finds, what it leaves off and names, and what it refuses."""

from __future__ import annotations

import pickle
import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from dropout_nets import CASES, Case, Fn, HandWritten, keys_of, scorer, with_linears
from torch import Tensor, nn

from poolscore.engine.errors import ConfigError
from poolscore.engine.model.probe import Probe, as_logits, probe_model
from poolscore.engine.model.recurrent import split_recurrent_layers

ROWS = 3
DROP = nn.Dropout(0.3)


def probe(model: nn.Module, *shape: int) -> Probe:
    g = torch.Generator().manual_seed(3)
    return probe_model(model.eval(), {"": torch.randn(ROWS, *(shape or (6,)), generator=g)})


def refusal(model: nn.Module, *shape: int) -> str:
    with pytest.raises(ConfigError) as caught:
        probe(model, *shape)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ------------------------------------------------------------------------------------------------ what it finds


def test_layers() -> None:
    found = probe(CASES["cnn, Dropout2d"].model(), 2, 6, 6)
    assert found.outputs == 3
    assert found.stays_off == {}
    assert [(x.index, x.name, x.kind, x.p, x.batch_dim, x.fold, x.shape, x.elements) for x in found.layers] == [
        (0, "2", "feature", 0.25, 0, 1, (5,), 5),
        (1, "5", "element", 0.5, 0, 1, (80,), 80),
    ]


@pytest.mark.parametrize(
    ("name", "places"),
    [
        ("batch second", [(1, 1, (4, 16))]),
        ("batch last", [(2, 1, (4, 16))]),
        ("batch second, folded", [(1, 2, (4, 2, 8))]),
        ("windows", [(0, 2, (2, 2, 16)), (0, 2, (2, 2))]),
        ("vector", [(0, 1, ())]),
        ("sdpa", [(0, 1, (4, 4, 4))]),
        ("sdpa, heads in the batch", [(0, 4, (4, 4, 4))]),
        ("MultiheadAttention, no mask, weights, sequence first", [(0, 4, (4, 4, 4))]),
        ("MultiheadAttention, no mask, no weights, sequence first", [(0, 1, (4, 4, 4))]),
    ],
)
def test_where_the_rows_are(name: str, places: list[tuple[int, int, tuple[int, ...]]]) -> None:
    case = CASES[name]
    assert [(x.batch_dim, x.fold, x.shape) for x in probe(case.model(), *case.shape).layers] == places


def test_names_of_modules() -> None:
    found = probe(CASES["encoder, batch first, norm last"].model(), 4, 6)
    parts = ("self_attn", "dropout1", "dropout", "dropout2")
    assert [layer.name for layer in found.layers] == [f"encoder.layers.{i}.{part}" for i in (0, 1) for part in parts]


def test_no_dropout_is_fine() -> None:
    found = probe(nn.Linear(6, 2))
    assert (found.layers, found.outputs, found.training) == ((), 2, ())


@pytest.mark.parametrize("name", ["encoder, batch first, norm last", "encoder, batch first, norm first"])
def test_the_fast_path_does_not_lose_dropout(name: str) -> None:
    case = CASES[name]
    inputs, model = case.inputs(ROWS), case.model()
    for layer in model.encoder.layers:
        layer.dropout.p = layer.dropout1.p = layer.dropout2.p = 0.0  # leaves attention, which the fast path would lose
    assert torch.backends.mha.get_fastpath_enabled()
    logits = scorer(model, inputs, count=4).logits(inputs, keys_of(ROWS))
    assert logits.std(1).max() > 1e-3


def test_a_hidden_rate_becomes_live() -> None:
    case = CASES["hand-written attention"]
    found = probe(case.model(), *case.shape)
    assert found.training == ("one", "two")
    assert [layer.kind for layer in found.layers] == ["element", "attention"]


class TrainingOnly(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            x = F.dropout(x, 0.3)
        return x


def test_a_dropout_behind_the_training_flag_becomes_live() -> None:
    model = nn.Sequential(TrainingOnly(), nn.Linear(6, 3), nn.Dropout(0.2), TrainingOnly())
    found = probe(model)
    assert (found.training, found.stays_off) == (("0", "3"), {})
    assert [(layer.name, layer.p) for layer in found.layers] == [("0", 0.3), ("2", 0.2), ("3", 0.3)]


def test_the_model_itself_may_hide_a_dropout() -> None:
    class Net(TrainingOnly):
        def __init__(self) -> None:
            super().__init__()
            self.line = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.line(super().forward(x))

    model = Net()
    found = probe(model)
    assert (found.training, found.stays_off) == (("",), {})
    inputs = {"": torch.randn(ROWS, 6)}
    logits = scorer(model, inputs, count=4).logits(inputs, keys_of(ROWS))
    assert logits.std(1).max() > 1e-3


def test_noise_of_a_model_that_gives_something_else_in_training_is_named() -> None:
    def forward(self: Any, x: Tensor) -> Any:
        return (self.line(x + torch.randn_like(x)), x) if self.training else self.drop(self.line(x))

    found = probe(Fn(forward, line=nn.Linear(6, 3), drop=DROP))
    assert (found.training, found.stays_off) == ((), {"(root)": "Fn"})
    assert [layer.name for layer in found.layers] == ["drop"]


def test_a_rate_that_hides_nothing_changes_nothing() -> None:
    """GoogLeNet and its like keep a rate and give a tuple in training mode; others give other logits, fail, want
    targets, or update their state there."""

    class Holder(nn.Module):
        def __init__(self, in_training: Any) -> None:
            super().__init__()
            self.dropout = 0.2
            self.in_training = in_training
            self.line = nn.Linear(6, 3)
            self.aux = nn.Sequential(nn.Linear(6, 3), nn.Dropout(0.5))
            self.register_buffer("count", torch.zeros(3))

        def forward(self, x: Tensor) -> Any:
            y = F.dropout(self.line(x), self.dropout, self.training)
            return self.in_training(self, x, y) if self.training else y

    def fails(self: Any, x: Tensor, y: Tensor) -> Any:
        raise ValueError("targets should not be none")

    def counts(self: Any, x: Tensor, y: Tensor) -> Any:
        self.count += 1
        return F.dropout(y, 0.4)

    for in_training in (
        lambda self, x, y: (y, self.aux(x)),
        lambda self, x, y: SimpleNamespace(logits=y, aux=self.aux(x)).__dict__,
        lambda self, x, y: self.aux(y @ torch.ones(3, 6))[:, :2],
        lambda self, x, y: y + 1,
        fails,
        counts,
    ):
        model = Holder(in_training)
        found = probe(model)
        assert found.training == ()
        assert found.stays_off == {}
        assert [layer.name for layer in found.layers] == ["(root)"]
        assert not any(module.training for module in model.modules())
        assert model.count.eq(0).all()


# ---------------------------------------------------------------------------------------------- what stays off


class DropPath(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.drop_prob = 0.5

    def forward(self, x: Tensor) -> Tensor:
        return x * x.new_empty(len(x), 1).bernoulli_(0.5) if self.training else x


class SkipsBlocks(DropPath):
    """Stochastic depth by another name."""


class GaussianNoise(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x) if self.training else x


class OwnDropout(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.p = 0.5

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.bernoulli(torch.full_like(x, 1 - self.p)) / (1 - self.p) if self.training else x


class NoisyDropout(GaussianNoise):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(super().forward(x), 0.2) if self.training else x


class CountingNoise(GaussianNoise):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.count = self.count + 1
        return super().forward(x)


class LayerDrop(nn.Module):
    def __init__(self, draw: Any) -> None:
        super().__init__()
        self.layerdrop = 0.5
        self.draw = draw

    def forward(self, x: Tensor) -> Tensor:
        return x if self.training and self.draw() < self.layerdrop else x * 2


@pytest.mark.parametrize(
    "layer",
    [
        DropPath(),
        SkipsBlocks(),
        nn.RReLU(),
        LayerDrop(lambda: torch.rand([])),
        LayerDrop(lambda: random.random()),
        LayerDrop(lambda: np.random.uniform(0, 1)),
        GaussianNoise(),
        OwnDropout(),
        NoisyDropout(),
        CountingNoise(),
    ],
    ids=["DropPath", "own name", "RReLU", "torch.rand", "random", "numpy", "noise", "own dropout", "both", "counts"],
)
def test_other_randomness_stays_off_and_is_named(layer: nn.Module) -> None:
    model = nn.Sequential(nn.Linear(6, 3), layer, nn.Dropout(0.3), layer)
    found = probe(model)
    assert found.stays_off == {"1": type(layer).__name__}
    assert [one.name for one in found.layers] == ["2"]
    assert all(buffer.eq(0).all() for buffer in model[1].buffers())
    inputs = {"": torch.randn(ROWS, 6)}
    mc = scorer(model, inputs, count=3)
    state = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    assert mc.logits(inputs, keys_of(ROWS)).equal(mc.logits(inputs, keys_of(ROWS)))
    assert torch.get_rng_state().equal(state[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == state[1:]


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_dropout_that_cannot_be_split_stays_off_and_is_named(kind: Any) -> None:
    class Own(kind):  # type: ignore[misc]
        def forward(self, x: Tensor) -> Any:
            return super().forward(x)

    def forward(self: Any, x: Tensor) -> Tensor:
        return self.b(self.drop(self.rnn(x)[0][:, -1]))

    model = Fn(forward, rnn=Own(6, 8, 2, dropout=0.5, batch_first=True), drop=DROP, b=nn.Linear(8, 2))
    split_recurrent_layers(model)
    found = probe(model, 4, 6)
    assert found.stays_off == {"rnn": "Own"}
    assert len(found.layers) == 1
    one = Fn(forward, rnn=kind(6, 8, 1, batch_first=True), drop=DROP, b=nn.Linear(8, 2))
    assert probe(one, 4, 6).stays_off == {}


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_dropout_in_torchscript_stays_off_and_is_named() -> None:
    script = torch.jit.script(nn.Sequential(nn.Linear(6, 3), nn.Dropout(0.5)).eval())
    found = probe(nn.Sequential(script, nn.Dropout(0.3)))
    assert found.stays_off == {"0.1": "RecursiveScriptModule"}
    assert [layer.name for layer in found.layers] == ["1"]


# --------------------------------------------------------------------------------------------- what is refused


RANDOM: dict[str, Any] = {
    "randn_like": lambda x: x + torch.randn_like(x),
    "rand": lambda x: x * torch.rand(3),
    "exponential_": lambda x: F.gumbel_softmax(x),
    "normal_": lambda x: x + torch.nn.init.normal_(torch.empty(3)),
    "bernoulli": lambda x: x * torch.bernoulli(torch.full((3,), 0.5)),
    "native_dropout": lambda x: torch.native_dropout(x, 0.5, True)[0],
    "rrelu_with_noise": lambda x: F.rrelu(x, training=True),
    "_standard_gamma": lambda x: x * torch.distributions.Gamma(torch.ones(3), torch.ones(3)).rsample(),
    "multinomial": lambda x: x + torch.distributions.Categorical(logits=x).sample()[:, None],
    "randperm": lambda x: x[:, torch.randperm(3)],
    "rand, own generator": lambda x: x * torch.rand(3, generator=torch.Generator().manual_seed(0)),
    "Python's or NumPy's random": lambda x: x * random.random(),
}


@pytest.mark.parametrize("function", RANDOM)
def test_noise_in_eval_mode_is_refused_by_name(function: str) -> None:
    model = nn.Sequential(nn.Linear(6, 3), nn.Sequential(Fn(lambda self, x: RANDOM[function](x))), nn.Dropout(0.3))
    message = refusal(model)
    assert message.startswith(f"model: module '1.0' (Fn) calls {function.split(',')[0]} even in eval mode")


def test_numpy_noise_is_named_by_the_module_that_draws() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        scale = np.random.rand()
        return self.line(x) * scale

    assert "module '0' (Fn)" in refusal(nn.Sequential(Fn(forward, line=nn.Linear(6, 3)), nn.Dropout(0.3)))


@pytest.mark.parametrize("p", [1.0, 1])
def test_p_1(p: float) -> None:
    assert refusal(nn.Sequential(nn.Linear(6, 3), nn.Dropout(p))) == (
        "model: dropout '1' has p=1, which drops everything; use p below 1"
    )


OUTPUTS: dict[str, tuple[Any, str]] = {
    "3d": (lambda x: x[:, None], "[2, 1, 6] torch.float32"),
    "tuple": (lambda x: (x, x), "a tuple"),
    "dict": (lambda x: {"logits": x}, "a dict"),
    "none": (lambda x: None, "a NoneType"),
    "scalar": (lambda x: x.mean(), "[] torch.float32"),
    "turned": (lambda x: x.t(), "[6, 2] torch.float32"),
    "classes": (lambda x: x.argmax(1), "[2, 1] torch.int64"),
    "bool": (lambda x: x > 0, "[2, 6] torch.bool"),
    "pooled": (lambda x: x[:1], "[1, 6] torch.float32"),
}


@pytest.mark.parametrize("output", OUTPUTS)
def test_outputs_that_are_no_logits(output: str) -> None:
    function, found = OUTPUTS[output]
    message = refusal(nn.Sequential(nn.Dropout(0.3), Fn(lambda self, x: function(x))))
    assert f"must give a float tensor [N, C]; for N=2 it gave {'a tensor ' if '[' in found else ''}{found}" in message


def test_outputs_that_are() -> None:
    x = torch.randn(3, 2)
    assert as_logits(x, 3) is x
    assert as_logits(x[:, 0], 3).shape == (3, 1)
    assert as_logits(SimpleNamespace(logits=x, loss=None), 3) is x
    model = nn.Sequential(nn.Dropout(0.3), Fn(lambda self, x: SimpleNamespace(logits=x)))
    assert probe(model).outputs == 6
    assert probe(CASES["vector"].model()).outputs == 1
    assert as_logits(x[:0], 0).shape == (0, 2)


def rows_turned(self: Any, x: Tensor) -> Tensor:
    return self.b(self.drop(self.a(x).flip(0)).flip(0))


def heads_first(self: Any, x: Tensor) -> Tensor:
    """Set Transformer: heads are put before rows, so entry n of N·heads is not of row n // heads."""
    h = torch.cat(self.a(x).split(8, -1), 0)
    return self.b(torch.cat(self.drop(h).chunk(2, 0), -1))


def mixes_rows(self: Any, x: Tensor) -> Tensor:
    h = self.a(x)
    return self.b(self.drop(h - h.mean(0)))


@pytest.mark.parametrize("forward", [rows_turned, heads_first, mixes_rows])
def test_rows_that_are_not_in_their_order_are_refused(forward: Any) -> None:
    message = refusal(with_linears(forward, drop=DROP))
    assert message.startswith("model: dropout 'drop' on [")
    assert message.endswith("rows are not in their order along dimension 0, or see each other")


def test_batch_statistics_are_refused() -> None:
    """Without running statistics, BatchNorm uses those of the batch in eval mode too."""
    model = nn.Sequential(
        nn.Linear(6, 4), nn.Dropout(0.3), nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 2)
    )
    assert "depends on the other rows of the batch" in refusal(model)
    assert "depends on the other rows of the batch" in refusal(nn.Sequential(DROP, Fn(lambda self, x: x @ x.t())))
    masked = torch.tensor([False, False, False, False, False, True])  # −inf must not hide it
    forward = lambda self, x: (x - x.mean(0)).masked_fill(masked, -torch.inf)  # noqa: E731
    assert "depends on the other rows of the batch" in refusal(nn.Sequential(DROP, Fn(forward)))
    forward = lambda self, x: x.masked_fill(x == x.max(), -torch.inf)  # noqa: E731
    assert "depends on the other rows of the batch" in refusal(nn.Sequential(DROP, Fn(forward)))


SHAPES: dict[str, tuple[Any, str]] = {
    "a parameter": (lambda x: x + F.dropout(torch.ones(6), 0.2), "on [6] and [6] has no dimension of rows"),
    "pairs of rows": (lambda x: x + F.dropout(x @ x.t(), 0.2).sum(1, True), "on [2, 2] and [3, 3] has no dimension"),
    "a row more": (lambda x: F.dropout(torch.cat([x[:1], x]))[1:], "on [3, 6] and [4, 6] has no dimension of rows"),
    "dimensions": (lambda x: F.dropout(x[None] if len(x) > 2 else x).view_as(x), "has no dimension of rows"),
    "channels second": (lambda x: F.dropout2d(x.t()[:, :, None, None])[..., 0, 0].t(), "needs [N, C, ...], got [6, 2"),
    "Dropout1d of lines": (lambda x: F.dropout1d(x), "needs [N, C, ...], got [1, 2, 6]"),
    "Dropout3d of lines": (lambda x: F.dropout3d(x[..., None, None])[..., 0, 0], "needs [N, C, ...], got [1, 2, 6, 1"),
    "channels of a vector": (lambda x: x + torch.feature_alpha_dropout(x[:, 0], 0.2, True)[:, None], "needs [N, C"),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_dropout_without_rows_is_refused(shape: str) -> None:
    function, found = SHAPES[shape]
    assert found in refusal(Fn(lambda self, x: function(x)))


def test_other_calls_for_other_rows_are_refused() -> None:
    model = Fn(lambda self, x: F.dropout(F.dropout(x) if len(x) > 2 else x))
    assert "another number of dropout calls for 2 rows than for 3" in refusal(model)


def test_a_model_that_fails() -> None:
    message = refusal(nn.Linear(5, 3))
    assert message.startswith("model.source: the model fails on input [2, 6] torch.float32: RuntimeError: mat1 and")
    case = CASES["two inputs"]
    with pytest.raises(ConfigError, match=r"fails on tokens \[2, 4\] torch.int64: TypeError"):
        probe_model(case.model(), {"tokens": case.inputs(ROWS)["tokens"]})


# ------------------------------------------------------------------------------------------- nothing is left behind


def test_a_refused_model_has_no_hooks() -> None:
    for model in (
        nn.Linear(5, 3),
        nn.Sequential(nn.Linear(6, 3), nn.Dropout(1.0)),
        nn.Sequential(Fn(lambda s, x: 1 / 0)),
    ):
        before = dict(vars(F))
        refusal(model)
        assert not any(
            m._forward_hooks or m._forward_pre_hooks or m._forward_hooks_always_called for m in model.modules()
        )
        assert dict(vars(F)) == before


def test_the_probe_leaves_inputs_and_generators_alone() -> None:
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(6, 3), nn.Dropout(0.3))
    x = torch.randn(5, 6)
    kept, state = x.clone(), torch.get_rng_state()
    probe_model(model, {"": x})
    assert x.equal(kept)
    assert torch.get_rng_state().equal(state)


def test_a_probe_travels() -> None:
    found = probe(Case(lambda: Fn(lambda s, x: s.one(x).mean(1), one=HandWritten())).model(), 4, 6)
    assert pickle.loads(pickle.dumps(found)) == found
