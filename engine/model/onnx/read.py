"""Read an ONNX file and refuse what cannot be scored; nothing in it is run.

Every Dropout node with a ratio above 0 counts as dropout, whatever its training flag says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import onnx
import onnx.inliner
from onnx import ModelProto, NodeProto, ValueInfoProto, helper, numpy_helper

from poolscore.engine.config_text import one_line
from poolscore.engine.errors import ConfigError
from poolscore.engine.model.onnx.session import run_each
from poolscore.engine.model.onnx.wiring import (
    Kind,
    attributes,
    graph_inputs,
    is_op,
    kinds,
    module_of,
    nested,
    reads,
    subgraphs,
    with_outputs,
)
from poolscore.engine.model.probe import ROOT

LEAST_OPSET = 7  # before, Dropout had a flag that said whether this is a test
RATIO_IS_INPUT = 12  # from this opset on
DEFAULT_RATIO = 0.5
RANDOM = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli")
FUSED = ("BiasDropout", "BitmaskDropout", "BitmaskBiasDropout")  # of ONNX Runtime's training


@dataclass(frozen=True)
class Drop:
    """A Dropout node with a ratio above 0."""

    name: str  # of the torch module, where the exporter tells it, else of the node
    p: float
    x: str  # the value that it drops from
    y: str


@dataclass(frozen=True)
class OnnxModel:
    """What a file holds. All errors about it begin with `where`."""

    where: str
    proto: ModelProto  # without local functions; Dropout nodes are Identity nodes here
    inputs: dict[str, ValueInfoProto]
    output: str
    drops: tuple[Drop, ...]  # in the order of execution

    @property
    def opset(self) -> int:
        """Version of ONNX's own operators."""
        return _opset(self.proto)


def read_onnx(path: Path, source: str | None = None) -> OnnxModel:
    """Read a model with its weights.

    Args:
        path: the file.
        source: what errors call it; default: the path.

    Raises:
        ConfigError: it cannot be read or scored; one line each.
    """
    where = f"model.source: {source or path}"
    if not path.is_file():
        raise ConfigError(f"model.source: there is no file {source or path}")
    try:
        proto = onnx.load(path)
        if proto.functions:
            proto = onnx.inliner.inline_local_functions(proto)
    except Exception as error:  # a damaged file can make the reader fail in any way
        raise ConfigError(f"{where} cannot be read: {one_line(str(error)) or type(error).__name__}") from error
    if not proto.graph.node or not proto.graph.output:
        raise ConfigError(f"{where} is no ONNX model")
    if _opset(proto) < LEAST_OPSET:
        raise ConfigError(f"{where} has opset {_opset(proto)}; export it again with opset 12 or later")
    _check_nodes(proto, where)
    inputs = {value.name: value for value in graph_inputs(proto)}
    for value in inputs.values():
        _check_rows(value, where)
    drops = _take_dropouts(proto, where)
    return OnnxModel(where, proto, inputs, _output(proto, where), drops)


def files_beside(path: Path) -> list[str]:
    """Names of the files that an ONNX file keeps weights in, relative to its folder. None for a file that is damaged,
    which `read_onnx` tells of; and none outside of the folder, which onnx does not read."""
    try:
        graph = onnx.load(path, load_external_data=False).graph
    except Exception:  # a damaged file can make the reader fail in any way
        return []
    graphs = [graph, *(body for node in nested(graph) for body in subgraphs(node))]
    entries = [entry for of in graphs for weight in of.initializer for entry in weight.external_data]
    names = sorted({entry.value for entry in entries if entry.key == "location"})
    return [name for name in names if not PurePosixPath(name).is_absolute() and ".." not in PurePosixPath(name).parts]


def weights_digest(proto: ModelProto) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of all weights, shortened to 32 digits."""
    digest = sha256()
    for weight in sorted(proto.graph.initializer, key=lambda weight: weight.name):
        digest.update(f"{weight.name}\0{weight.data_type}\0{tuple(weight.dims)}\0".encode())
        digest.update(numpy_helper.to_array(weight).tobytes())
    return digest.hexdigest()[:32]


def graph_digest(proto: ModelProto) -> str:
    """SHA-256 over everything but the weights, shortened to 32 digits."""
    graph = helper.make_graph(proto.graph.node, "", graph_inputs(proto), proto.graph.output)
    model = helper.make_model(graph, opset_imports=proto.opset_import)
    return sha256(model.SerializeToString(deterministic=True)).hexdigest()[:32]


def _opset(proto: ModelProto) -> int:
    return max((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), default=1)


def _check_nodes(proto: ModelProto, where: str) -> None:
    known = {value.name for value in (*proto.graph.input, *proto.graph.initializer)}
    for node in proto.graph.node:
        if missing := [name for name in reads(node) if name not in known]:
            raise ConfigError(
                f"{where}: {_called(node)} reads '{missing[0]}' before anything makes it; export it again"
            )
        known.update(node.output)
        if any(inner.op_type == "Dropout" for graph in subgraphs(node) for inner in nested(graph)):
            raise ConfigError(f"{where}: a Dropout inside the {node.op_type} {_called(node)} cannot be answered")
    for node in nested(proto.graph):
        if is_op(node, *RANDOM) or node.op_type in FUSED:
            raise ConfigError(
                f"{where}: {_called(node)} is a {node.op_type}, which draws its own numbers; torch's own exporter "
                "writes dropout of channels like that, `poolscore export` does not"
            )
        if is_op(node, "BatchNormalization") and (attributes(node).get("training_mode") or len(node.output) > 1):
            raise ConfigError(
                f"{where}: {_called(node)} is a BatchNormalization in training mode, so rows would see each other; "
                "export it with only the dropout in training mode (`poolscore export` does)"
            )


def _check_rows(value: ValueInfoProto, where: str) -> None:
    shape = value.type.tensor_type.shape
    if not value.type.HasField("tensor_type") or (value.type.tensor_type.HasField("shape") and not shape.dim):
        raise ConfigError(f"{where}: input '{value.name}' is no tensor [N, …]")
    if shape.dim and shape.dim[0].HasField("dim_value"):
        raise ConfigError(
            f"{where}: input '{value.name}' takes {shape.dim[0].dim_value} rows and no others; export it with a "
            "dynamic batch axis"
        )


def _output(proto: ModelProto, where: str) -> str:
    names = [value.name for value in proto.graph.output]
    if len(names) > 1 and "logits" not in names:
        raise ConfigError(
            f"{where} has the outputs {', '.join(names)}; export it with one, or call the right one 'logits'"
        )
    return names[0] if len(names) == 1 else "logits"


def _take_dropouts(proto: ModelProto, where: str) -> tuple[Drop, ...]:
    """The Dropout nodes; in the model they are made to pass on what they get."""
    nodes = [node for node in proto.graph.node if is_op(node, "Dropout")]
    read = {name for node in proto.graph.node for name in reads(node)} | {v.name for v in proto.graph.output}
    for node in nodes:
        if any(mask in read for mask in node.output[1:]):
            raise ConfigError(f"{where}: the mask of the Dropout {_called(node)} is read, and there will be none")
    drops = []
    for node, p in zip(nodes, _ratios(proto, nodes, where), strict=True):
        if not 0.0 <= p < 1.0:
            raise ConfigError(f"{where}: dropout '{_module(node)}' has p={p:g}; use p below 1")
        if p > 0.0:
            drops.append(Drop(_module(node), p, node.input[0], node.output[0]))
        node.op_type = "Identity"
        del node.input[1:], node.output[1:], node.attribute[:]
    return tuple(drops)


def _ratios(proto: ModelProto, nodes: Sequence[NodeProto], where: str) -> list[float]:
    if _opset(proto) < RATIO_IS_INPUT:
        return [_as_written(np.float32(attributes(node).get("ratio", DEFAULT_RATIO))) for node in nodes]
    depends = kinds(proto)
    given = [node for node in nodes if len(node.input) > 1 and node.input[1]]
    for node in given:
        if depends[node.input[1]] is not Kind.CONSTANT:
            raise ConfigError(f"{where}: the ratio of dropout '{_module(node)}' is computed; it must be a constant")
    reading = [helper.make_node("Identity", [node.input[1]], [f"{node.output[0]} ratio"]) for node in given]
    (values,) = run_each(with_outputs(proto, reading, inputs=[]), [{}], [node.output[0] for node in reading])
    found = {node.output[0]: _as_written(value.ravel()[0]) for node, value in zip(given, values, strict=True)}
    return [found.get(node.output[0], DEFAULT_RATIO) for node in nodes]


def _as_written(p: Any) -> float:
    """The shortest decimal that is this number in its type: 0.3, not 0.30000001192."""
    return float(str(p))


def _module(node: NodeProto) -> str:
    module = module_of(node)
    return _name(node) if module is None else module or ROOT


def _called(node: NodeProto) -> str:
    return f"'{_name(node)}'"


def _name(node: NodeProto) -> str:
    return node.name or next(iter(node.output), node.op_type)
