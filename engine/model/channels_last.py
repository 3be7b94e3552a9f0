"""Convolutions on channels-last memory, which is how the libraries of GPUs and CPUs compute them fastest."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import GraphModule, Node

from poolscore.engine.model.split import Split

CONV2D = torch.ops.aten.conv2d.default
VIEWS = {torch.ops.aten.view.default: torch.ops.aten.reshape.default}  # a view may need a copy on other strides


def put_channels_last(parts: Split) -> bool:
    """Lay out the weights of every 2-d convolution channels-last; whether there are any.

    The model that was traced keeps its own weights. A model that writes into a view of a tensor is left as it is: a
    reshape in the view's place could be a copy.
    """
    graphs = (parts.prefix, parts.suffix)
    convolutions = [(graph, node) for graph in graphs for node in graph.graph.nodes if node.target is CONV2D]
    if not convolutions or any(_writes_to_a_view(node) for graph in graphs for node in graph.graph.nodes):
        return False
    for graph, node in convolutions:
        _lay_out(graph, node.args[1])
    for graph in graphs:
        for node in graph.graph.nodes:
            node.target = VIEWS.get(node.target, node.target)
        graph.recompile()
    return True


def _lay_out(graph: GraphModule, weight: Any) -> None:
    """Give the graph its own copy of the weight that a get_attr node names."""
    if not isinstance(weight, Node) or weight.op != "get_attr":
        return
    owner, _, name = str(weight.target).rpartition(".")
    value = getattr(graph.get_submodule(owner), name)
    copy = f"channels_last_{len(dict(graph.named_buffers(recurse=False)))}"
    graph.register_buffer(copy, value.detach().to(memory_format=torch.channels_last), persistent=False)
    weight.target = copy


def _writes_to_a_view(node: Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    if schema is None or not schema.is_mutable:
        return False
    written = node.args[0]
    while isinstance(written, Node) and written.op == "call_function":
        if written.target in VIEWS:
            return True
        inner: Any = getattr(written.target, "_schema", None)
        if inner is None or not inner.is_mutable:
            return False
        written = written.args[0]
    return False
