"""Which ONNX files are taken, what their Dropout nodes say in every opset, and every refusal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx_nets import CLASSES, FEATURES, ROWS, constant, mlp, model_of, node, write

from poolscore.engine.errors import ConfigError
from poolscore.engine.model.onnx.network import OnnxNetwork
from poolscore.engine.model.onnx.read import Drop, read_onnx

X = {"": torch.ones(3, FEATURES)}
RATIO = constant("p", 0.3)
DROP = [RATIO, node("Dropout", ["r", "p"], "d")]


def drops_of(proto: ModelProto, folder: Path) -> list[tuple[float, str, str]]:
    return [(drop.p, drop.x, drop.y) for drop in read_onnx(write(proto, folder)).drops]


# ----------------------------------------------------------------------------------------------- dropout


@pytest.mark.parametrize(
    ("opset", "nodes", "p"),
    [
        (7, [node("Dropout", ["r"], "d", ratio=0.3)], 0.3),
        (9, [node("Dropout", ["r"], ["d", "mask"], ratio=0.3)], 0.3),
        (10, [node("Dropout", ["r"], "d")], 0.5),
        (11, [node("Dropout", ["r"], "d", ratio=0.1)], 0.1),
        (12, DROP, 0.3),
        (12, [node("Dropout", ["r"], "d")], 0.5),
        (13, [RATIO, constant("train", True, np.bool_), node("Dropout", ["r", "p", "train"], "d")], 0.3),
        (13, [RATIO, constant("train", False, np.bool_), node("Dropout", ["r", "p", "train"], ["d", "mask"])], 0.3),
        (17, [constant("train", True, np.bool_), node("Dropout", ["r", "", "train"], "d", seed=3)], 0.5),
        (17, [constant("p", 0.3, np.float64), node("Dropout", ["r", "p"], "d")], 0.3),
        (20, [constant("q", 0.7), constant("1", 1.0), node("Sub", ["1", "q"], "p"), node("Dropout", ["r", "p"], "d")],
         1 - np.float32(0.7)),
        (22, DROP, 0.3),
    ],
)  # fmt: skip
def test_dropout_nodes_of_every_opset(opset: int, nodes: list[NodeProto], p: float, tmp_path: Path) -> None:
    ((found, x, y),) = drops_of(mlp(nodes, opset), tmp_path)
    assert (x, y) == ("r", "d")
    assert found == pytest.approx(float(p), rel=1e-6)
    assert found == 0.3 or p != 0.3  # as it was written, not as float32 has it


def test_a_ratio_of_zero_is_off(tmp_path: Path) -> None:
    nodes = [RATIO, constant("0", 0.0), node("Dropout", ["r", "0"], "e"), node("Dropout", ["e", "p"], "d")]
    assert drops_of(mlp(nodes), tmp_path) == [(0.3, "e", "d")]


def test_the_ratio_may_be_a_weight(tmp_path: Path) -> None:
    proto = mlp([node("Dropout", ["r", "ratio"], "d")])
    proto.graph.initializer.append(numpy_helper.from_array(np.float32([0.25]), "ratio"))
    proto.graph.input.append(helper.make_tensor_value_info("ratio", TensorProto.FLOAT, [1]))  # as old files have it
    assert drops_of(proto, tmp_path) == [(0.25, "r", "d")]


def test_local_functions_are_inlined(tmp_path: Path) -> None:
    body = helper.make_function(
        "torch", "dropped", ["x"], ["y"], [RATIO, helper.make_node("Dropout", ["x", "p"], ["y"])],
        [helper.make_opsetid("", 18)],
    )  # fmt: skip
    twice = [
        helper.make_node("dropped", ["r"], ["e"], domain="torch"),
        helper.make_node("dropped", ["e"], ["d"], domain="torch"),
    ]
    proto = mlp(twice, opset=18, domain="torch")
    proto.functions.append(body)
    found = drops_of(proto, tmp_path)
    assert [p for p, _, _ in found] == [0.3, 0.3]
    assert (found[0][1], found[1][2]) == ("r", "d")
    assert found[0][2] == found[1][1]


@pytest.mark.parametrize(
    ("scopes", "name"),
    [
        ("['', 'encoder.layers.0', 'encoder.layers.0.drop', 'dropout']", "encoder.layers.0.drop"),
        ("['', 'dropout']", "(root)"),
        ("['dropout']", "Dropout of d"),
        ("not Python", "Dropout of d"),
    ],
)
def test_a_layer_is_called_as_its_module(scopes: str, name: str, tmp_path: Path) -> None:
    proto = mlp(DROP)
    entry = next(n for n in proto.graph.node if n.op_type == "Dropout").metadata_props.add()
    entry.key, entry.value = "pkg.torch.onnx.name_scopes", scopes
    assert read_onnx(write(proto, tmp_path)).drops == (Drop(name, 0.3, "r", "d"),)


def test_digest_and_description(tmp_path: Path) -> None:
    first = OnnxNetwork(write(mlp(DROP), tmp_path, "first.onnx"))
    again = OnnxNetwork(write(mlp(DROP), tmp_path, "again.onnx"))
    assert (first.weights, first.description) == (again.weights, again.description)
    assert len(first.weights) == 32
    other_rate = OnnxNetwork(write(mlp([constant("p", 0.4), DROP[1]]), tmp_path))
    assert other_rate.weights == first.weights
    assert other_rate.description != first.description
    proto = mlp(DROP)
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.ones((6, 16), np.float32), "w"))
    other_weights = OnnxNetwork(write(proto, tmp_path))
    assert other_weights.weights != first.weights
    assert other_weights.description == first.description


def test_weights_beside_the_file(tmp_path: Path) -> None:
    inside = OnnxNetwork(write(mlp(DROP), tmp_path))
    onnx.save(mlp(DROP), tmp_path / "beside.onnx", save_as_external_data=True, location="beside.bin", size_threshold=0)
    assert (tmp_path / "beside.bin").stat().st_size > 0
    assert OnnxNetwork(tmp_path / "beside.onnx").weights == inside.weights
    (tmp_path / "beside.bin").unlink()
    with pytest.raises(ConfigError, match=r"beside.onnx cannot be read: .*beside.bin"):
        OnnxNetwork(tmp_path / "beside.onnx")


# ---------------------------------------------------------------------------------------------- refusals


def in_a_branch() -> ModelProto:
    body = helper.make_graph(
        [RATIO, node("Dropout", ["r", "p"], "y")], "body", [], [helper.make_tensor_value_info("y", 1, None)]
    )
    return mlp([constant("yes", True, np.bool_), node("If", ["yes"], "d", then_branch=body, else_branch=body)])


def fixed_batch() -> ModelProto:
    return mlp(DROP, inputs={"x": (1, FEATURES)})


def two_outputs(name: str) -> ModelProto:
    proto = mlp([*DROP, node("Neg", ["d"], "other")])
    proto.graph.node[-1].output[0] = name
    del proto.graph.output[:]
    proto.graph.output.extend([onnx.ValueInfoProto(name=name), onnx.ValueInfoProto(name="other")])
    return proto


def in_training() -> ModelProto:
    names = ["scale", "bias", "mean", "var"]
    proto = mlp(
        [*DROP[:1], node("BatchNormalization", ["r", *names], ["n", "m", "v2"], training_mode=1),
         node("Dropout", ["n", "p"], "d")], 15,
    )  # fmt: skip
    proto.graph.initializer.extend(numpy_helper.from_array(np.ones(16, np.float32), name) for name in names)
    return proto


READING = {
    "opset": (lambda: mlp([node("Dropout", ["r"], "d", is_test=1)], 6), "has opset 6; export it again with opset 12"),
    "p = 1": (lambda: mlp([constant("p", 1.0), DROP[1]]), "dropout 'Dropout of d' has p=1; use p below 1"),
    "p < 0": (lambda: mlp([node("Dropout", ["r"], "d", ratio=-0.5)], 11), "dropout 'Dropout of d' has p=-0.5; use p"),
    "computed p": (
        lambda: mlp([node("ReduceMean", ["x"], "p", keepdims=0), DROP[1]]),
        "the ratio of dropout 'Dropout of d' is computed; it must be a constant",
    ),
    "p by rows": (
        lambda: mlp([node("Shape", ["x"], "n"), node("Cast", ["n"], "f", to=1),
                     node("ReduceMax", ["f"], "p", keepdims=0), DROP[1]]),
        "the ratio of dropout 'Dropout of d' is computed",
    ),
    "mask": (
        lambda: mlp([RATIO, node("Dropout", ["r", "p"], ["e", "kept"]), node("Cast", ["kept"], "f", to=1),
                     node("Mul", ["e", "f"], "d")]),
        "the mask of the Dropout 'Dropout of e' is read, and there will be none",
    ),
    "random": (
        lambda: mlp([node("RandomUniformLike", ["r"], "d")]),
        "'RandomUniformLike of d' is a RandomUniformLike, which draws its own numbers",
    ),
    "Bernoulli": (lambda: mlp([node("Bernoulli", ["r"], "d")], 15), "'Bernoulli of d' is a Bernoulli, which draws"),
    "fused": (
        lambda: mlp([helper.make_node("BitmaskDropout", ["r"], ["d"], domain="com.microsoft")]),
        "'d' is a BitmaskDropout, which draws its own numbers",
    ),
    "in a branch": (in_a_branch, "a Dropout inside the If 'If of d' cannot be answered"),
    "in training": (in_training, "'BatchNormalization of n' is a BatchNormalization in training mode"),
    "rows": (fixed_batch, "input 'x' takes 1 rows and no others; export it with a dynamic batch axis"),
    "scalar": (lambda: mlp(DROP, inputs={"x": ()}), "input 'x' is no tensor [N, …]"),
    "outputs": (lambda: two_outputs("one"), "has the outputs one, other; export it with one, or call the right one"),
    "order": (
        lambda: model_of([node("Relu", ["h"], "logits"), node("MatMul", ["x", "w"], "h")]),
        "'Relu of logits' reads 'h' before anything makes it",
    ),
    "empty": (lambda: model_of([]), "is no ONNX model"),
}  # fmt: skip


@pytest.mark.parametrize("case", READING)
def test_files_that_are_refused(case: str, tmp_path: Path) -> None:
    build, message = READING[case]
    path = write(build(), tmp_path)
    with pytest.raises(ConfigError) as error:
        OnnxNetwork(path)
    assert str(error.value).startswith(f"model.source: {path}")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("content", "message"), [(b"not a model", "cannot be read: "), (b"", "is no ONNX model")])
def test_files_that_are_no_models(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    with pytest.raises(ConfigError, match="there is no file"):
        OnnxNetwork(path)
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        OnnxNetwork(path)


def pairs() -> ModelProto:
    return mlp([*DROP[:1], node("ReduceMean", ["r"], "m", axes=[0]), node("Sub", ["r", "m"], "c"),
                node("Dropout", ["c", "p"], "d")])  # fmt: skip


def one_row_inside() -> ModelProto:
    shapes = [constant("flat", [1, -1], np.int64), constant("shape", [1, 16], np.int64)]
    return mlp([RATIO, *shapes, node("Dropout", ["r", "p"], "e"), node("Reshape", ["e", "flat"], "f"),
                node("Reshape", ["f", "shape"], "d")])  # fmt: skip


PROBING: dict[str, tuple[Any, Any, str]] = {
    "names": (mlp(DROP), {"y": X[""]}, "has the inputs 'x', but pool.inputs has 'y'"),
    "one of two": (
        mlp([*DROP, node("Add", ["x", "z"], "unused")], inputs={"x": (ROWS, FEATURES), "z": (ROWS, FEATURES)}),
        X,
        "has the inputs 'x', 'z'; give each of them in pool.inputs",
    ),
    "dtype": (mlp(DROP), {"": X[""].long()}, "its input 'x' is float32, the pool gives int64; say the right dtype"),
    "rank": (mlp(DROP), {"": torch.ones(3, 2, FEATURES)}, "its input 'x' is [N, 6], the pool gives [N, 2, 6]"),
    "size": (mlp(DROP), {"": torch.ones(3, 7)}, "its input 'x' is [N, 6], the pool gives [N, 7]"),
    "see each other": (pairs(), {"": torch.randn(3, FEATURES)}, "on [2, 16] and [3, 16]: rows are not in their order"),
    "rows inside": (one_row_inside(), X, "export it with a dynamic batch axis"),
    "int output": (
        model_of([node("Cast", ["x"], "logits", to=TensorProto.INT64)]), X,
        "the model must give a float tensor [N, C]; for N=2 it gave a tensor [2, 6] torch.int64",
    ),
    "3d output": (
        model_of([constant("s", [-1, 2, 3], np.int64), node("Reshape", ["x", "s"], "logits")]), X,
        "the model must give a float tensor [N, C]; for N=2 it gave a tensor [2, 2, 3] torch.float32",
    ),
    "text output": (
        model_of([node("Cast", ["x"], "logits", to=TensorProto.STRING)]), X,
        "its value 'logits' is a tensor(string), which torch has not",
    ),
    "unknown operator": (model_of([node("Telepathy", ["x"], "logits")]), X, "ONNX Runtime does not take it: "),
}  # fmt: skip


@pytest.mark.parametrize("case", PROBING)
def test_models_that_are_refused_once_they_are_tried(case: str, tmp_path: Path) -> None:
    proto, inputs, message = PROBING[case]
    network = OnnxNetwork(write(proto, tmp_path))
    with pytest.raises(ConfigError) as error:
        network.probe(inputs)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_the_output_called_logits_is_taken(tmp_path: Path) -> None:
    network = OnnxNetwork(write(two_outputs("logits"), tmp_path))
    assert network.probe(X).outputs == CLASSES


def test_a_gpu_that_is_not_there(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    network = OnnxNetwork(write(mlp(DROP), tmp_path))
    probe = network.probe(X)
    with pytest.raises(ConfigError, match=r"run.device: ONNX Runtime .* cannot use CUDA here; install"):
        network.whole(probe, [""], torch.device("cuda"))
