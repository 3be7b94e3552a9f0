"""How the values of a graph grow with the number of rows, seen by running it on 2 and on 3."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from onnx import ModelProto, helper

from poolscore.engine.model.onnx.session import run_each
from poolscore.engine.model.onnx.wiring import with_outputs
from poolscore.engine.model.probe import ROWS, Inputs
from poolscore.engine.model.trace import Untraceable

Shape = tuple[int, ...]
Shapes = Mapping[str, tuple[Shape, Shape]]  # by value: for 2 rows and for 3


@dataclass(frozen=True)
class Layout:
    """The shape of a value for any number of rows."""

    shape: Shape  # of one row
    batch_dim: int | None  # the dimension that grows with the rows; None: the same for all rows
    fold: int  # how many entries a row has there

    def of(self, rows: int) -> Shape:
        """The shape for so many rows."""
        return tuple(size * rows if d == self.batch_dim else size for d, size in enumerate(self.shape))


def observe_shapes(model: ModelProto, inputs: Inputs, names: Iterable[str]) -> Shapes:
    """Shapes of these values; `inputs` has at least 3 rows, on the CPU."""
    names = list(dict.fromkeys(names))
    nodes = [helper.make_node("Shape", [name], [f"{name} shape"]) for name in names]
    part = with_outputs(model, nodes)
    outputs = [node.output[0] for node in nodes]
    batches = [{name: x[:rows] for name, x in inputs.items()} for rows in ROWS]
    runs = run_each(part, batches, outputs)
    return {name: (_ints(two), _ints(three)) for name, two, three in zip(names, *runs, strict=True)}


def layout_of(name: str, shapes: tuple[Shape, Shape]) -> Layout:
    """The rule behind two shapes.

    Raises:
        Untraceable: the value does not grow with the rows in one dimension, by so many entries for each.
    """
    two, three = shapes
    growing = [d for d, (a, b) in enumerate(zip(two, three, strict=False)) if a != b]
    if len(two) != len(three) or len(growing) > 1:
        raise Untraceable(f"'{name}' grows with the rows in several dimensions")
    if not growing:
        return Layout(two, None, 1)
    d = growing[0]
    fold = three[d] - two[d]
    if two[d] != fold * ROWS[0]:
        raise Untraceable(f"the size of '{name}' is not a multiple of the rows")
    return Layout((*two[:d], fold, *two[d + 1 :]), d, fold)


def entries_per_row(shapes: tuple[Shape, Shape]) -> int:
    """How many entries of a value come with each further row."""
    two, three = shapes
    return math.prod(three) - math.prod(two)


def _ints(shape: Sequence[int]) -> Shape:
    return tuple(int(size) for size in shape)
