"""Trace a model into a graph in which every live dropout call is one node.

`torch.export` runs the model under the same `DropoutMode` that answers its calls in eager mode; here each call is
answered with the operator `poolscore::drop(x, layer)`. So the graph has the same layers in the same order, whatever the
call looked like in the model's code.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout

import torch
from torch import Tensor, nn
from torch.export import Dim, export
from torch.fx import Graph, GraphModule

from poolscore.engine.model.dropout import Calls, DropoutLayer, DropoutMode
from poolscore.engine.model.probe import Inputs, as_logits, call_model

MAX_ROWS = 1 << 24


class Untraceable(Exception):
    """Why a model has no graph; it is then scored by repeating its input."""


@torch.library.custom_op("poolscore::drop", mutates_args=())
def drop(x: Tensor, layer: int) -> Tensor:
    """Stands for a live dropout call in a traced graph; `split` puts the masks in its place."""
    return x.clone()


@drop.register_fake
def _(x: Tensor, layer: int) -> Tensor:
    return torch.empty_like(x)


class _Marked(nn.Module):
    """The model, with its live dropout calls answered by `poolscore::drop`."""

    def __init__(self, model: nn.Module, layers: Sequence[DropoutLayer], names: tuple[str, ...]) -> None:
        super().__init__()
        self.model = model
        self._layers = layers
        self._names = names

    def forward(self, *tensors: Tensor) -> Tensor:
        calls = Calls(self._layers)

        def mark(kind: str, p: float, x: Tensor) -> Tensor:
            layer = calls.next()
            if layer is None:
                raise Untraceable("it makes more dropout calls than in the trial run")
            return torch.ops.poolscore.drop(x, layer.index) if layer.live else x

        with DropoutMode(mark, calls.skips):
            output = call_model(self.model, dict(zip(self._names, tensors, strict=True)))
        return as_logits(output, tensors[0].shape[0])


def take_out_checks(graph: Graph) -> None:
    """Take out the checks of types and devices, which need not hold under autocast or on a GPU."""
    for node in graph.find_nodes(op="call_function", target=torch.ops.aten._assert_tensor_metadata.default):
        graph.erase_node(node)


@contextmanager
def quietly() -> Iterator[None]:
    """Without what torch prints, logs and warns of; what is wrong with a model is an exception, too."""
    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def trace(model: nn.Module, layers: Sequence[DropoutLayer], inputs: Inputs) -> GraphModule:
    """The graph of a probed model for any number of rows; its inputs are positional, in the order of `inputs`.

    Args:
        layers: that a trial run found.
        inputs: a few rows, at least 2.

    Raises:
        Untraceable: with the reason, in one line.
    """
    rows = Dim("rows", min=2, max=MAX_ROWS)
    shapes = {"tensors": tuple({0: rows} for _ in inputs)}
    try:
        with torch.no_grad(), quietly():
            marked = _Marked(model, layers, tuple(inputs))
            program = export(marked, tuple(inputs.values()), dynamic_shapes=shapes, strict=False)
            graph = program.module(check_guards=False)
            take_out_checks(graph.graph)
    except Untraceable:
        raise
    except Exception as error:  # the exporter fails in many ways; the model itself was run before
        raise Untraceable(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}") from error
    assert isinstance(graph, GraphModule)
    return graph
