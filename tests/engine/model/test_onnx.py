"""T passes of ONNX files against the oracle of the torch nets, whole and cut, beside other rows, and node by node."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_nets
import pytest
import torch
from dropout_nets import CASES, CPU, expected, keys_of
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, save
from onnx_nets import FEATURES, ROWS, WEIGHTS, constant, mlp, mlp_expected, model_of, node, write
from torch import Tensor

from poolscore.engine.config import PassesConfig
from poolscore.engine.model.layers import choose_layers
from poolscore.engine.model.network import Build
from poolscore.engine.model.onnx.network import OnnxNetwork
from poolscore.engine.model.onnx.observe import Layout, layout_of
from poolscore.engine.model.passes import McDropout
from poolscore.engine.model.probe import Probe
from poolscore.engine.model.torch_network import TorchNetwork
from poolscore.engine.model.trace import Untraceable

# What the older exporter writes rightly: it loses writes to a dropout's own input.
NAMES = [
    "mlp", "cnn, Dropout2d", "Dropout1d", "AlphaDropout", "FeatureAlphaDropout", "functional, True", "root", "residual",
    "shared twice", "p = 0", "p = 1e-6, 0.9", "two inputs", "windows", "batch second", "batch last",
    "batch second, folded", "rows in one line", "vector", "Dropout2d of lines",
    "MultiheadAttention, padding, no weights, batch first", "MultiheadAttention, 3d, weights, sequence first",
    "sdpa, causal", "sdpa, heads in the batch",
]  # fmt: skip
INDEPENDENT = ["cnn, Dropout2d", "two inputs", "batch second, folded"]
DROP = [constant("p", 0.4), node("Dropout", ["r", "p"], "d")]


def given_model(proto: ModelProto, folder: Path) -> OnnxNetwork:
    return OnnxNetwork(write(proto, folder))


def both(network: OnnxNetwork, inputs: dict[str, Tensor], **passes: Any) -> tuple[McDropout, McDropout]:
    """The model cut, which must work, and whole."""
    probe, config = network.probe(inputs), PassesConfig(**passes)
    cut = McDropout(network, probe, config, CPU, inputs, verify=True)
    assert cut.repeated_because is None
    return cut, McDropout(network, probe, config, CPU, inputs, repeat_because="for the test")


def some_rows(rows: int = 3, features: int = FEATURES, seed: int = 0) -> dict[str, Tensor]:
    return {"": torch.randn(rows, features, generator=torch.Generator().manual_seed(seed))}


def shown(probe: Probe) -> list[tuple[float, int, int, int]]:
    return [(layer.p, layer.batch_dim, layer.fold, layer.elements) for layer in probe.layers]


# ------------------------------------------------------------------------------------ the same as in torch


@pytest.mark.parametrize(
    ("name", "masks"), [*((name, "shared") for name in NAMES), *((name, "independent") for name in INDEPENDENT)]
)
def test_the_oracle_of_the_torch_nets_agrees(name: str, masks: str, tmp_path: Path) -> None:
    """Float32 on both sides, but other kernels: 1e-5 of the largest logit."""
    case, passes, rows = CASES[name], 3, 4
    model, inputs, keys = case.model(), case.inputs(rows), keys_of(rows)
    network = OnnxNetwork(onnx_nets.export(model, case.inputs(3), tmp_path / "model.onnx"))
    cut, whole = both(network, inputs, count=passes, masks=masks, seed=11)
    assert shown(network.probe(inputs)) == shown(TorchNetwork(model).probe(inputs))
    row_keys = None if masks == "shared" else [int(key) for key in keys.numpy().view(np.uint64)]
    want, _ = expected(model, inputs, passes, seed=11, keys=row_keys)
    got = cut.logits(inputs, keys)
    assert want.std(dim=1).max() > 1e-3  # the passes differ
    torch.testing.assert_close(got, want, rtol=0, atol=1e-5 * max(1.0, float(want.abs().max())))
    assert cut.cut is not None
    assert cut.cut.operators[0] > 0 or name == "root"
    torch.testing.assert_close(whole.logits(inputs, keys), got, rtol=0, atol=2e-6 * max(1.0, float(want.abs().max())))


@settings(max_examples=25, deadline=None)
@given(
    passes=st.integers(1, 9),
    rows=st.integers(1, 9),
    p=st.sampled_from([1e-6, 0.1, 0.5, 0.9, 0.999]),
    independent=st.booleans(),
    opset=st.sampled_from([7, 12, 13]),
    rows_per_call=st.integers(1, 40),
)
def test_any_number_of_rows_and_passes(
    passes: int, rows: int, p: float, independent: bool, opset: int, rows_per_call: int
) -> None:
    import tempfile

    attribute = opset < 12
    dropout = (
        [node("Dropout", ["r"], "d", ratio=p)] if attribute else [constant("p", p), node("Dropout", ["r", "p"], "d")]
    )
    with tempfile.TemporaryDirectory() as folder:
        network = given_model(mlp(dropout, opset), Path(folder))
    masks = "independent" if independent else "shared"
    cut, whole = both(network, some_rows(), count=passes, masks=masks, rows_per_call=rows_per_call)
    inputs, keys = some_rows(rows, seed=1), keys_of(rows)
    want = mlp_expected(inputs[""], passes, p, keys.numpy().view(np.uint64) if independent else None)
    limit = 2e-6 * max(1.0, np.abs(want).max())
    for way in (cut, whole):
        np.testing.assert_allclose(way.logits(inputs, keys).numpy(), want, rtol=0, atol=limit)


def test_double_precision(tmp_path: Path) -> None:
    """The cut gives what the whole gives to 1e-12, and both what the formula says."""
    weights = {name: value.astype(np.float64) for name, value in WEIGHTS.items()}
    network = given_model(mlp(DROP, dtype=TensorProto.DOUBLE, weights=weights), tmp_path)
    inputs = {"": some_rows(5)[""].double()}
    cut, whole = both(network, inputs, count=4)
    keys = keys_of(5)
    a, b = (way._forward.passes(way._forward.once(inputs), keys, range(4), way._masks) for way in (cut, whole))
    assert a.dtype == torch.float64
    assert float((a - b).abs().max()) <= 1e-12 * float(a.abs().max())
    want = mlp_expected(inputs[""], 4, 0.4)
    np.testing.assert_allclose(a.view(5, 4, 3).numpy(), want, rtol=0, atol=1e-12)


def test_half_precision_rounds_as_torch_does(tmp_path: Path) -> None:
    """x·factor in float32, then rounded; the logits are float16 as the file says."""
    nodes = [
        node("Cast", ["x"], "h", to=TensorProto.FLOAT16), constant("p", 0.4, np.float16),
        node("Dropout", ["h", "p"], "d"), node("ReduceMax", ["d"], "top", axes=[1], keepdims=1),
        node("Add", ["d", "top"], "logits"),
    ]  # fmt: skip
    network = given_model(model_of(nodes), tmp_path)
    inputs, keys = some_rows(4), keys_of(4)
    for way in both(network, inputs, count=3):
        factor, _ = way._masks.affine(0, keys, range(3))
        dropped = (inputs[""].half()[:, None] * factor).half()
        assert torch.equal(way.logits(inputs, keys), (dropped + dropped.amax(-1, keepdim=True)).float())


# ---------------------------------------------------------------------------------------------- the cut


def test_a_score_does_not_depend_on_the_neighbours(tmp_path: Path) -> None:
    case = CASES["batch second, folded"]
    network = OnnxNetwork(onnx_nets.export(case.model(), case.inputs(3), tmp_path / "model.onnx"))
    inputs, others, keys = case.inputs(8), case.inputs(8, seed=9), keys_of(8)
    others[""][5] = inputs[""][5]
    for masks in ("shared", "independent"):
        for way in both(network, case.inputs(3), count=4, masks=masks):
            mine, beside_others = way.logits(inputs, keys), way.logits(others, keys)
            assert torch.equal(mine[5], beside_others[5])
            assert not torch.equal(mine[4], beside_others[4])


def test_only_what_lies_behind_the_chosen_dropout_is_repeated(tmp_path: Path) -> None:
    """A layer keeps its masks whatever others are live; one that is left off passes on what it gets."""
    case = CASES["mlp"]
    model, inputs, keys = case.model(), case.inputs(4), keys_of(4)
    onnx_network = OnnxNetwork(onnx_nets.export(model, case.inputs(3), tmp_path / "model.onnx"))
    found = []
    for network in (onnx_network, TorchNetwork(model)):
        probe = choose_layers(network.probe(inputs), "head")
        mc = McDropout(network, probe, PassesConfig(count=5), CPU, inputs, verify=True)
        assert mc.repeated_because is None
        found.append((mc.logits(inputs, keys), mc.cost(inputs)))
    (ours, cost), (theirs, _) = found
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    linear = 2 * 16  # FLOPs of one output of the two last layers
    assert cost.one_pass == 2 * 6 * 16 + linear * 16 + linear * 3
    assert cost.once == 2 * 6 * 16 + linear * 16
    assert cost.all_passes == cost.once + 5 * linear * 3


def test_flops_are_torchs(tmp_path: Path) -> None:
    case = CASES["cnn, Dropout2d"]
    model, inputs = case.model(), case.inputs(4)
    network = OnnxNetwork(onnx_nets.export(model, case.inputs(3), tmp_path / "model.onnx"))
    ours = both(network, inputs, count=5, masks="independent")[0].cost(inputs)
    theirs = TorchNetwork(model)
    assert ours == McDropout(
        theirs, theirs.probe(inputs), PassesConfig(count=5, masks="independent"), CPU, inputs
    ).cost(inputs)


def test_what_depends_on_shapes_alone_is_computed_again(tmp_path: Path) -> None:
    """Rows are taken by arange(N), and a bias by row number is added: both must be made for N·T rows, not repeated."""
    nodes = [
        node("MatMul", ["x", "w"], "h"), DROP[0], node("Dropout", ["h", "p"], "d"),
        node("Shape", ["h"], "shape"), constant("zero", 0, np.int64), constant("one", 1, np.int64),
        node("Gather", ["shape", "zero"], "rows"), node("Range", ["zero", "rows", "one"], "places"),
        node("Gather", ["d", "places"], "taken"), node("MatMul", ["taken", "v"], "logits"),
    ]  # fmt: skip
    network = given_model(model_of(nodes), tmp_path)
    inputs, keys = some_rows(4), keys_of(4)
    cut, whole = both(network, inputs, count=3)
    assert torch.equal(cut.logits(inputs, keys), whole.logits(inputs, keys))
    assert cut.logits(inputs, keys)[1:].std(dim=1).min() > 1e-3


@pytest.mark.parametrize("opset", [7, 13, 15])
def test_features_are_repeated_and_counted(opset: int, tmp_path: Path) -> None:
    """A residual, and the shape of a value of the prefix: [N·2, 8], two windows of a row; rows in either dimension."""
    dropout = [node("Dropout", ["t"], "d", ratio=0.4)] if opset < 12 else [DROP[0], node("Dropout", ["t", "p"], "d")]
    shape = [node("Shape", ["s"], "shape")]
    if opset == 15:
        shape = [node("Shape", ["s"], "n", start=-2, end=1), constant("8", [8], np.int64),
                 node("Concat", ["n", "8"], "shape", axis=0)]  # fmt: skip
    same = [node("Reshape", ["u", "shape"], "same")]
    if opset > 7:  # ONNX Runtime would find out by itself what the shape must be
        same = [node("ConstantOfShape", ["shape"], "zeros"), node("Add", ["u", "zeros"], "same")]
    nodes = [
        node("MatMul", ["x", "w"], "h"), constant("windows", [-1, 8], np.int64), node("Reshape", ["h", "windows"], "s"),
        node("Transpose", ["s"], "t", perm=[1, 0]), *dropout, node("Add", ["d", "t"], "sum"),
        node("Transpose", ["sum"], "u", perm=[1, 0]), *shape, *same,
        node("MatMul", ["same", "q"], "e"), constant("whole", [-1, 6], np.int64),
        node("Reshape", ["e", "whole"], "logits"),
    ]  # fmt: skip
    network = given_model(model_of(nodes, opset, weights={**WEIGHTS, "q": WEIGHTS["v"][:8]}), tmp_path)
    inputs, keys = some_rows(4), keys_of(4)
    for masks in ("shared", "independent"):
        cut, whole = both(network, inputs, count=3, masks=masks)
        assert [(x.batch_dim, x.fold, x.shape) for x in cut.layers] == [(1, 2, (8, 2))]
        assert torch.equal(cut.logits(inputs, keys), whole.logits(inputs, keys))


@pytest.mark.parametrize(
    ("shapes", "layout"),
    [
        (((2, 5), (3, 5)), Layout((1, 5), 0, 1)),
        (((5, 8), (5, 12)), Layout((5, 4), 1, 4)),
        (((5,), (5,)), Layout((5,), None, 1)),
        (((), ()), Layout((), None, 1)),
        (((3, 5), (4, 5)), "is not a multiple of the rows"),
        (((2, 2), (3, 3)), "grows with the rows in several dimensions"),
        (((2, 2), (3,)), "grows with the rows in several dimensions"),
    ],
)
def test_the_layout_of_a_value(shapes: Any, layout: Layout | str) -> None:
    if isinstance(layout, str):
        with pytest.raises(Untraceable, match=layout):
            layout_of("x", shapes)
    else:
        assert layout_of("x", shapes) == layout
        assert [layout.of(rows) for rows in (2, 3)] == list(shapes)


def test_a_subgraph_sees_the_value_of_every_pass(tmp_path: Path) -> None:
    """Its body takes a dropped value, a feature and a weight from outside."""
    from onnx import helper

    bodies = [
        helper.make_graph(
            [node("Add", ["d", "r"], f"{name} sum"), node("MatMul", [f"{name} sum", "v"], f"{name} logits")],
            name, [], [helper.make_tensor_value_info(f"{name} logits", TensorProto.FLOAT, None)],
        )
        for name in ("yes", "no")
    ]  # fmt: skip
    branch = node("If", ["always"], "logits", then_branch=bodies[0], else_branch=bodies[1])
    before = [node("MatMul", ["x", "w"], "h"), node("Relu", ["h"], "r"), *DROP, constant("always", True, np.bool_)]
    proto = model_of([*before, branch])
    proto.graph.initializer.append(onnx_nets.numpy_helper.from_array(WEIGHTS["v"], "v"))
    inputs, keys = some_rows(4), keys_of(4)
    cut, whole = both(given_model(proto, tmp_path), inputs, count=3)
    assert torch.equal(cut.logits(inputs, keys), whole.logits(inputs, keys))
    assert cut.cut is not None
    assert cut.cut.operators[0] == 2


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ([node("MatMul", ["r", "v"], "logits")], "no live dropout reaches the output"),
        (
            [node("Size", ["r"], "size"), node("Cast", ["size"], "count", to=1), node("Div", ["count", "count"], "one"),
             node("Mul", ["d", "one"], "e"), node("MatMul", ["e", "v"], "logits")],
            "the graph counts the entries of 'r'",
        ),
        (
            [node("Transpose", ["r"], "s", perm=[1, 0]), node("MatMul", ["r", "s"], "pairs"), constant("no", 0.0),
             node("Mul", ["pairs", "no"], "zeros"), node("MatMul", ["zeros", "d"], "none"),
             node("Add", ["none", "d"], "e"), node("MatMul", ["e", "v"], "logits")],
            "'zeros' grows with the rows in several dimensions",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_cut_is_repeated(nodes: list[Any], reason: str, tmp_path: Path) -> None:
    """The last one keeps its rows apart by a product with zeros, which is also an [N, N] of the prefix."""
    before = [node("MatMul", ["x", "w"], "h"), node("Relu", ["h"], "r"), *DROP]
    network, inputs = given_model(model_of([*before, *nodes]), tmp_path), some_rows(4)
    probe = network.probe(inputs)
    with pytest.raises(Untraceable, match=reason):
        network.cut(probe, inputs, None, Build(CPU))  # type: ignore[arg-type]
    mc = McDropout(network, probe, PassesConfig(count=3), CPU, inputs)
    assert mc.repeated_because == reason
    assert mc.logits(inputs, keys_of(4)).shape == (4, 3, 3)


def test_dropout_that_matters(tmp_path: Path) -> None:
    inputs = some_rows(4)
    assert both(given_model(mlp(DROP), tmp_path), inputs, count=3)[1].dropout_matters(inputs)
    idle = [
        *DROP[:1],
        node("Dropout", ["r", "p"], "e"),
        node("Sub", ["e", "e"], "zeros"),
        node("Add", ["zeros", "r"], "d"),
    ]
    assert not both(given_model(mlp(idle), tmp_path), inputs, count=3)[1].dropout_matters(inputs)


def test_weights_beyond_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message holds 2 GB; what is larger reaches ONNX Runtime through a file."""
    from poolscore.engine.model.onnx import session

    inputs, keys = some_rows(4), keys_of(4)
    weights = {"w": np.ones((FEATURES, 300), np.float32), "v": np.ones((300, 3), np.float32)}
    path = write(mlp(DROP, weights=weights), tmp_path)
    small = both(OnnxNetwork(path), inputs, count=3)[0].logits(inputs, keys)
    saved = []
    monkeypatch.setattr(session, "LARGEST_MESSAGE", 100)
    monkeypatch.setattr(session.onnx, "save", lambda *args, **options: saved.append(args) or save(*args, **options))
    assert torch.equal(both(OnnxNetwork(path), inputs, count=3)[0].logits(inputs, keys), small)
    assert len(saved) > 2


def test_named_inputs_in_any_order(tmp_path: Path) -> None:
    nodes = [node("Sub", ["a", "b"], "x"), *mlp(DROP).graph.node]
    network = given_model(model_of(nodes, inputs={"a": (ROWS, FEATURES), "b": (ROWS, FEATURES)}), tmp_path)
    x, y = some_rows(4)[""], some_rows(4, seed=1)[""]
    keys = keys_of(4)
    one = both(network, {"b": y, "a": x}, count=3)[0].logits({"b": y, "a": x}, keys)
    np.testing.assert_allclose(one.numpy(), mlp_expected(x - y, 3, 0.4), rtol=0, atol=1e-5)
