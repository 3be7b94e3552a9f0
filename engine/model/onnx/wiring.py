"""Which value of an ONNX graph comes from which, and parts of a graph as models of their own."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from enum import IntEnum
from typing import Any

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

SCOPES = "pkg.torch.onnx.name_scopes"  # torch's exporter: names of the modules that a node lies in, then its own
NO_MODULE = "_empty_nn_module_stack_from_metadata_hook"  # what it calls the place of some operators that it added
LEAST_IR_VERSION = 4  # from here on an initialiser need not be listed among the inputs


class Kind(IntEnum):
    """What a value depends on."""

    CONSTANT = 0
    SHAPE = 1  # the shapes of the inputs, and so the number of rows
    DATA = 2  # what the inputs hold


def subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    """The bodies of If, Loop and Scan."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def nested(graph: GraphProto) -> Iterator[NodeProto]:
    """All nodes, those of subgraphs included."""
    for node in graph.node:
        yield node
        for inner in subgraphs(node):
            yield from nested(inner)


def reads(node: NodeProto) -> Iterator[str]:
    """The values that a node needs, those that its subgraphs take from outside included."""
    yield from (name for name in node.input if name)
    for graph in subgraphs(node):
        own = {value.name for value in (*graph.input, *graph.initializer)}
        own |= {name for inner in graph.node for name in inner.output}
        outer = [*(name for inner in graph.node for name in reads(inner)), *(value.name for value in graph.output)]
        yield from (name for name in outer if name not in own)


def graph_inputs(model: ModelProto) -> list[ValueInfoProto]:
    """What is fed; old files list their weights among the inputs as well."""
    weights = {weight.name for weight in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in weights]


def kinds(model: ModelProto) -> dict[str, Kind]:
    """What every value of the graph depends on."""
    found = {weight.name: Kind.CONSTANT for weight in model.graph.initializer}
    found |= {value.name: Kind.DATA for value in graph_inputs(model)}
    for node in model.graph.node:
        kind = max((found[name] for name in reads(node)), default=Kind.CONSTANT)
        if is_op(node, "Shape", "Size"):
            kind = min(kind, Kind.SHAPE)
        found |= dict.fromkeys(node.output, kind)
    return found


def reached_from(model: ModelProto, values: Iterable[str]) -> set[str]:
    """The values and all that comes from them."""
    found = set(values)
    for node in model.graph.node:
        if any(name in found for name in reads(node)):
            found.update(node.output)
    return found


def needed_for(model: ModelProto, values: Iterable[str]) -> list[NodeProto]:
    """The nodes that these values come from, in their order."""
    wanted = set(values)
    nodes = []
    for node in reversed(model.graph.node):
        if not wanted.isdisjoint(node.output):
            nodes.append(node)
            wanted.update(reads(node))
    return nodes[::-1]


def is_op(node: NodeProto, *op_types: str) -> bool:
    """Whether a node is one of ONNX's own operators of these names."""
    return node.op_type in op_types and node.domain in ("", "ai.onnx")


def attributes(node: NodeProto) -> dict[str, Any]:
    """A node's attributes as Python values."""
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def module_of(node: NodeProto) -> str | None:
    """The torch module that a node comes from; '' is the model itself, None if the file does not tell."""
    for entry in node.metadata_props:
        if entry.key == SCOPES:
            with suppress(ValueError, SyntaxError):
                *_, module, _ = ast.literal_eval(entry.value)
                return str(module) if module != NO_MODULE else ""
    return None


def modules_of(nodes: Iterable[NodeProto]) -> tuple[str, ...]:
    """Names of the torch modules that the nodes come from, in their order."""
    return tuple(dict.fromkeys(name for node in nodes if (name := module_of(node))))


def part_of(
    model: ModelProto,
    nodes: Sequence[NodeProto],
    inputs: Sequence[ValueInfoProto],
    outputs: Sequence[str],
    constants: Sequence[TensorProto] = (),
) -> ModelProto:
    """A model of these nodes, with the weights of `model` that they read and further constants."""
    read = {name for node in nodes for name in reads(node)}
    weights = [weight for weight in model.graph.initializer if weight.name in read]
    graph = helper.make_graph(
        nodes, "part", inputs, [ValueInfoProto(name=name) for name in outputs], [*weights, *constants]
    )
    return helper.make_model(
        graph, opset_imports=model.opset_import, ir_version=max(model.ir_version, LEAST_IR_VERSION)
    )


def with_outputs(
    model: ModelProto, nodes: Sequence[NodeProto], inputs: Sequence[ValueInfoProto] | None = None
) -> ModelProto:
    """What these further nodes need of the model, and they themselves; their outputs become the model's."""
    needed = needed_for(model, [name for node in nodes for name in reads(node)])
    outputs = [name for node in nodes for name in node.output]
    return part_of(model, [*needed, *nodes], graph_inputs(model) if inputs is None else inputs, outputs)
