"""Floating-point operations of a graph for each row: two for each multiplication and addition, as torch counts them."""

from __future__ import annotations

import math
from collections.abc import Iterable

from onnx import NodeProto

from poolscore.engine.model.onnx.observe import Shape, Shapes
from poolscore.engine.model.onnx.wiring import attributes, is_op

COUNTED = ("Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN")


def values_counted(nodes: Iterable[NodeProto]) -> list[str]:
    """The values whose shapes `flops_per_row` asks for."""
    return [name for node in nodes if is_op(node, *COUNTED) for name in _values(node)]


def flops_per_row(nodes: Iterable[NodeProto], shapes: Shapes) -> int:
    """What these nodes compute for each further row."""
    total = 0
    for node in nodes:
        if is_op(node, *COUNTED):
            two, three = ([shapes[name][i] for name in _values(node)] for i in range(2))
            total += _flops(node, three) - _flops(node, two)
    return total


def _values(node: NodeProto) -> list[str]:
    return [name for name in (*node.input[:3], *node.output[:1]) if name]


def _flops(node: NodeProto, shapes: list[Shape]) -> int:
    a, b, output = shapes[0], shapes[1], shapes[-1]
    if node.op_type == "Conv":
        return 2 * math.prod(output) * math.prod(b[1:])
    if node.op_type == "ConvTranspose":
        return 2 * math.prod(a) * math.prod(b[1:])
    if node.op_type == "Gemm":
        return 2 * math.prod(output) * a[0 if attributes(node).get("transA") else 1]
    if node.op_type == "MatMul":
        return 2 * math.prod(output) * a[-1]
    return 2 * math.prod(a[:2]) * (math.prod(b) + math.prod(shapes[2]))  # recurrent: X, W and R; steps and rows
