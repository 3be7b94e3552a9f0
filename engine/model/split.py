"""Cut a traced model at its stochastic frontier: what no live dropout reaches runs once per row, the rest T times.

    prefix   inputs [N, …] → features [N, …]                  nodes that no `poolscore::drop` reaches
    suffix   features, masks → logits [N·T, C]                all the others; each drop became x·factor + offset

The suffix is a pure function of features and masks. Shape arithmetic on the number of rows is done again for N·T rows.
A feature that is only dropped from is never repeated: the mask's broadcast does it.

Legend: N rows, T passes; row n under pass t lies at n·T + t.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import SymInt, Tensor
from torch.fx import Graph, GraphModule, Node

from poolscore.engine.model.dropout import DropoutLayer, apply_affine
from poolscore.engine.model.folded_linear import FoldedLinear
from poolscore.engine.model.trace import Untraceable

DROP = torch.ops.poolscore.drop.default


@dataclass(frozen=True)
class Feature:
    """A tensor at the frontier."""

    name: str
    batch_dim: int | None  # the dimension that grows with the rows; None: the same for all rows
    fold: int  # how many entries a row has there


@dataclass(frozen=True)
class Split:
    """A model in two parts."""

    prefix: GraphModule  # inputs → tuple of features
    frontier: tuple[Feature, ...]  # what the prefix gives
    suffix: GraphModule  # features, factor and offset of each layer, N·T, T → logits
    layers: tuple[DropoutLayer, ...]  # live
    operators: tuple[int, int]  # before and behind the frontier
    modules: tuple[tuple[str, ...], tuple[str, ...]]  # before and behind it
    folded: Mapping[int, tuple[int, FoldedLinear]] = field(default_factory=dict)  # by layer (`fold.py`): which feature
    # its Linear takes, and the Linear; what that gives stands in the place of the layer's factor


def split(graph: GraphModule, layers: Sequence[DropoutLayer]) -> Split:
    """Cut the graph of `trace`.

    Raises:
        Untraceable: the graph does not let itself be cut.
    """
    layers = [layer for layer in layers if layer.live]
    drops = [node for node in graph.graph.nodes if node.target is DROP]
    if [node.args[1] for node in drops] != [layer.index for layer in layers]:
        raise Untraceable(f"the graph has {len(drops)} dropout calls, the trial run had {len(layers)}")
    rows = _rows(graph.graph)
    for node, layer in zip(drops, layers, strict=True):
        size = node.meta["val"].shape[layer.batch_dim]
        if not isinstance(size, SymInt) or _per_row(size, rows) != layer.fold:
            raise Untraceable(f"dropout '{layer.name}' does not take every row")
    live = _reached_from(drops, graph.graph)
    output = _output(graph.graph)
    if output not in live:
        raise Untraceable("no dropout reaches the output")
    frontier = _frontier(graph.graph, live)
    features = {node: _feature(node, rows) for node in frontier}
    prefix = _prefix(graph, live, frontier)
    suffix = _Suffix(graph, live, features, layers, rows).build(output)
    operators, modules = (_operators(prefix), _operators(suffix)), (_modules(prefix), _modules(suffix))
    return Split(prefix, tuple(features.values()), suffix, tuple(layers), operators, modules)


def _reached_from(drops: Sequence[Node], graph: Graph) -> set[Node]:
    live: set[Node] = set()
    for node in graph.nodes:
        if node.op != "output" and (node in drops or any(a in live for a in node.all_input_nodes)):
            live.add(node)
    return live


def _output(graph: Graph) -> Node:
    value = next(node for node in graph.nodes if node.op == "output").args[0]
    node = value[0] if isinstance(value, tuple | list) else value
    assert isinstance(node, Node)
    return node


def _frontier(graph: Graph, live: set[Node]) -> list[Node]:
    found: dict[Node, None] = {}
    for node in graph.nodes:
        if node in live:
            for a in node.all_input_nodes:
                if a not in live and a.op != "get_attr" and isinstance(a.meta.get("val"), Tensor):
                    found[a] = None
    return list(found)


def _rows(graph: Graph) -> Any:
    """The symbol that stands for the number of rows in the shapes of the graph."""
    first = next(node for node in graph.nodes if node.op == "placeholder")
    return first.meta["val"].shape[0].node.expr


def _feature(node: Node, rows: Any) -> Feature:
    growing = [d for d, size in enumerate(node.meta["val"].shape) if isinstance(size, SymInt)]
    if not growing:
        return Feature(node.name, None, 1)
    if len(growing) > 1:
        raise Untraceable(f"'{node.name}' grows with the rows in several dimensions")
    fold = _per_row(node.meta["val"].shape[growing[0]], rows)
    if fold is None:
        raise Untraceable(f"the size of '{node.name}' is not a multiple of the rows")
    return Feature(node.name, growing[0], fold)


def _per_row(size: SymInt, rows: Any) -> int | None:
    """k where the size is k times the number of rows."""
    expression = size.node.expr
    k = expression.subs(rows, 1)
    return int(k) if k.is_integer and (expression - k * rows).expand() == 0 else None


def _prefix(graph: GraphModule, live: set[Node], frontier: Sequence[Node]) -> GraphModule:
    prefix, copies = Graph(), dict[Node, Node]()
    for node in graph.graph.nodes:
        if node not in live and node.op != "output":
            copies[node] = prefix.node_copy(node, copies.__getitem__)
    prefix.output(tuple(copies[node] for node in frontier))
    prefix.eliminate_dead_code()
    return GraphModule(graph, prefix)


class _Suffix:
    """Builds the graph behind the frontier."""

    def __init__(
        self,
        graph: GraphModule,
        live: set[Node],
        frontier: dict[Node, Feature],
        layers: Sequence[DropoutLayer],
        rows: Any,
    ) -> None:
        self._symbol = rows
        self._from = graph
        self._live = live
        self._frontier = frontier
        self._graph = Graph()
        self._once = {node: self._placeholder(feature.name, node) for node, feature in frontier.items()}
        self._masks = {
            i: (layer, self._graph.placeholder(f"factor_{i}"), self._graph.placeholder(f"offset_{i}"))
            for i, layer in ((layer.index, layer) for layer in layers)
        }
        self._rows = self._graph.placeholder("rows")  # N·T
        self._passes = self._graph.placeholder("passes")  # T
        self._done: dict[Node, Node] = {}

    def build(self, output: Node) -> GraphModule:
        for node in self._from.graph.nodes:
            if node in self._live:
                self._done[node] = self._drop(node) if node.target is DROP else self._graph.node_copy(node, self._get)
        self._graph.output(self._done[output])
        self._graph.eliminate_dead_code()
        return GraphModule(self._from, self._graph)

    def _drop(self, node: Node) -> Node:
        x, index = node.args
        assert isinstance(x, Node)
        assert isinstance(index, int)
        layer, factor, offset = self._masks[index]
        feature = self._frontier.get(x)
        if feature is not None and (feature.batch_dim, feature.fold) == (layer.batch_dim, layer.fold):
            done = self._call(apply_affine, self._once[x], factor, offset, layer.batch_dim, layer.fold, 1)
        else:
            done = self._call(apply_affine, self._get(x), factor, offset, layer.batch_dim, layer.fold, self._passes)
        done.meta = node.meta
        return done

    def _get(self, node: Node) -> Node:
        """The node's value in the suffix: computed there, repeated for each pass, or shape arithmetic done again."""
        if node not in self._done:
            value = node.meta.get("val")
            if node in self._frontier:
                feature = self._frontier[node]
                once = self._once[node]
                self._done[node] = (
                    self._call(torch.clone, once)  # the suffix may write to it
                    if feature.batch_dim is None
                    else self._call(repeat_rows, once, feature.batch_dim, feature.fold, self._passes)
                )
                self._done[node].meta = {"val": node.meta["val"]}
            elif isinstance(value, SymInt):
                k = _per_row(value, self._symbol)
                if k is None:
                    raise Untraceable(f"'{node.name}' is not a multiple of the rows")
                self._done[node] = self._call(operator.mul, self._rows, k)
            elif node.op == "get_attr":
                self._done[node] = self._graph.node_copy(node)
            else:
                raise Untraceable(f"'{node.name}' cannot be done again behind the frontier")
        return self._done[node]

    def _placeholder(self, name: str, node: Node) -> Node:
        placeholder = self._graph.placeholder(name)
        placeholder.meta = node.meta
        return placeholder

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Node:
        return self._graph.call_function(function, arguments)


def repeat_rows(x: Tensor, batch_dim: int, fold: int, passes: int) -> Tensor:
    """Every row T times: row n becomes rows n·T … n·T + T − 1 of `batch_dim`."""
    rows: Tensor = x.unflatten(batch_dim, (-1, 1, fold))
    shape = list(rows.shape)
    shape[batch_dim + 1] = passes
    repeated: Tensor = rows.expand(shape).flatten(batch_dim, batch_dim + 2)
    is_view = passes == 1 or x.shape[batch_dim] == fold
    return repeated.clone() if is_view else repeated  # the suffix may write to it


def _operators(graph: GraphModule) -> int:
    return sum(1 for node in graph.graph.nodes if node.op == "call_function")


def _modules(graph: GraphModule) -> tuple[str, ...]:
    """Names of the innermost modules that the graph's operators come from, in their order."""
    stacks = (node.meta.get("nn_module_stack") for node in graph.graph.nodes if node.op == "call_function")
    names = (next(reversed(stack.values()))[0] for stack in stacks if stack)
    return tuple(dict.fromkeys(name.removeprefix("model.") for name in names if name.startswith("model.")))
