"""Writes the nodes that take the place of dropout, and the shapes that they need. All of it is in opset 7."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

PREFIX = "poolscore/"


class Builder:
    """Nodes and constants of a graph that is being written."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []

    def op(self, op_type: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Add a node with one output; its name."""
        output = output or f"{PREFIX}{op_type}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, inputs, [output], **attributes))
        return output

    def ints(self, *values: int) -> str:
        """An int64 vector."""
        name = f"{PREFIX}ints_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    def shape(self, *sizes: int | str) -> str:
        """A shape of known sizes and of int64 [1] values."""
        parts: list[str] = []
        known: list[int] = []
        for size in sizes:
            if isinstance(size, int):
                known.append(size)
                continue
            if known:
                parts.append(self.ints(*known))
                known = []
            parts.append(size)
        if known or not parts:
            parts.append(self.ints(*known))
        return self.op("Concat", *parts, axis=0) if len(parts) > 1 else parts[0]

    def size(self, value: str, dim: int) -> str:
        """One size of a value, int64 [1]."""
        return self.op("Gather", self.op("Shape", value), self.ints(dim))

    def reshape(self, value: str, sizes: Sequence[int | str], output: str | None = None) -> str:
        """The value in another shape."""
        return self.op("Reshape", value, self.shape(*sizes), output=output)
