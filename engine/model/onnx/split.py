"""Put masks in the place of dropout, and cut an ONNX graph at its stochastic frontier.

    prefix   inputs [N, …] → features [N, …]        what no live dropout reaches
    suffix   features, masks → logits [N·T, C]      all the rest; each live Dropout became a multiplication

In the suffix every value has the name that it has in the file, but for N·T rows: a feature of that name is its input
repeated T times. What depends on shapes alone (the arithmetic on the number of rows, constants spread over the rows) is
not a feature but computed again, from N·T. A feature that is only dropped from is never repeated: the mask's broadcast
does it.

Legend: N rows, T passes; row n under pass t lies at n·T + t.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper
from torch import Tensor

from poolscore.engine.model.dropout import DropoutLayer
from poolscore.engine.model.onnx.builder import PREFIX, Builder
from poolscore.engine.model.onnx.observe import Layout
from poolscore.engine.model.onnx.read import Drop, OnnxModel
from poolscore.engine.model.onnx.wiring import Kind, attributes, is_op, kinds, needed_for, part_of, reached_from, reads
from poolscore.engine.model.trace import Untraceable

LOGITS = f"{PREFIX}logits"
EXPAND_SINCE = 8  # opset


@dataclass(frozen=True)
class Live:
    """A Dropout node that is answered with masks."""

    drop: Drop
    layer: DropoutLayer
    dtype: int  # ONNX's number of the type that it drops from

    @property
    def mask(self) -> str:
        """The input that takes the masks."""
        return f"{PREFIX}mask_{self.layer.index}"

    @property
    def layout(self) -> Layout:
        """Of what it drops from."""
        d, fold, shape = self.layer.batch_dim, self.layer.fold, self.layer.shape
        return Layout((*shape[:d], fold, *shape[d + (fold > 1) :]), d, fold)

    def place(self, factor: Tensor) -> Tensor:
        """Masks [n, T, *layer.shape] as the graph wants them: n and T in front of the dimension of the rows."""
        d = self.layer.batch_dim
        factor = factor.unsqueeze(2 + d) if self.layer.fold == 1 else factor
        return factor.movedim((0, 1), (d, d + 1)).contiguous()


@dataclass(frozen=True)
class Frontier:
    """Where a graph is cut."""

    behind: list[NodeProto]  # the suffix, in order, the nodes of `counted` included
    features: list[str]
    counted: dict[str, str]  # what a Shape node makes of a value of the prefix, by its output: that value


def without_dropout(model: OnnxModel, outputs: int) -> ModelProto:
    """The whole model as it is with dropout off, [N, …] → [N, C]."""
    builder = Builder()
    builder.nodes += needed_for(model.proto, [model.output])
    return _finish(model, builder, model.inputs.values(), outputs)


def with_masks(model: OnnxModel, live: Sequence[Live], outputs: int) -> ModelProto:
    """The whole model for inputs that are repeated already: [N·T, …], masks → [N·T, C]."""
    builder = Builder()
    passes = _passes(builder, live)
    answers = {x.drop.y: x for x in live}
    for node in needed_for(model.proto, [model.output]):
        if x := answers.get(node.output[0]):
            _drop(builder, x, x.drop.x, passes)
        else:
            builder.nodes.append(node)
    return _finish(model, builder, [*model.inputs.values(), *_mask_inputs(live)], outputs)


def find_frontier(model: OnnxModel, live: Sequence[Live]) -> Frontier:
    """Where the graph is to be cut.

    Raises:
        Untraceable: no live dropout reaches the output, or the graph counts entries.
    """
    reached = reached_from(model.proto, [x.drop.y for x in live])
    if model.output not in reached:
        raise Untraceable("no live dropout reaches the output")
    depends = kinds(model.proto)
    wanted, features, counted = {model.output}, dict[str, None](), dict[str, str]()
    behind = []
    for node in reversed(model.proto.graph.node):
        if wanted.isdisjoint(node.output):
            continue
        behind.append(node)
        if is_op(node, "Shape", "Size") and node.input[0] not in reached and depends[node.input[0]] is Kind.DATA:
            if node.op_type == "Size":
                raise Untraceable(f"the graph counts the entries of '{node.input[0]}'")
            counted[node.output[0]] = node.input[0]
            continue
        for name in reads(node):
            if name in reached or depends[name] is not Kind.DATA:
                wanted.add(name)
            else:
                features[name] = None
    return Frontier(behind[::-1], list(features)[::-1], counted)


def make_prefix(model: OnnxModel, computed: Sequence[str]) -> ModelProto:
    """The graph before the frontier, for the features that are not inputs themselves."""
    nodes = needed_for(model.proto, computed)
    read = {name for node in nodes for name in reads(node)}
    return part_of(model.proto, nodes, [value for name, value in model.inputs.items() if name in read], computed)


def make_suffix(
    model: OnnxModel,
    live: Sequence[Live],
    frontier: Frontier,
    layouts: Mapping[str, Layout],
    dtypes: Mapping[str, int],
    outputs: int,
) -> ModelProto:
    """The graph behind the frontier.

    Args:
        layouts: of the features, and of the values that are counted.
        dtypes: of the features.

    Raises:
        Untraceable: no feature tells the number of rows.
    """
    builder = Builder()
    passes = _passes(builder, live)
    answers = {x.drop.y: x for x in live}
    unrepeated = {x.drop.y for x in live if x.drop.x in frontier.features and layouts[x.drop.x] == x.layout}
    others = [node for node in frontier.behind if node.output[0] not in unrepeated | frontier.counted.keys()]
    read = {name for node in others for name in reads(node)}
    for name in frontier.features:
        if name in read:
            _repeat(builder, name, layouts[name], passes, "Expand" if model.opset >= EXPAND_SINCE else "Tile")
    rows = _rows(builder, frontier, layouts, passes) if frontier.counted else ""
    for node in frontier.behind:
        if x := answers.get(node.output[0]):
            broadcast = node.output[0] in unrepeated
            _drop(builder, x, once(x.drop.x) if broadcast else x.drop.x, 1 if broadcast else passes)
        elif counted := frontier.counted.get(node.output[0]):
            _count(builder, node, layouts[counted], rows)
        else:
            builder.nodes.append(node)
    features = [_input(once(name), dtypes[name], layouts[name]) for name in frontier.features]
    return _finish(model, builder, [*features, *_mask_inputs(live)], outputs)


def once(name: str) -> str:
    """The input that takes a feature, each row once."""
    return f"{PREFIX}once/{name}"


def _finish(model: OnnxModel, builder: Builder, inputs: Iterable[ValueInfoProto], outputs: int) -> ModelProto:
    builder.reshape(model.output, [-1, outputs], LOGITS)  # a vector [N] counts as one column
    return part_of(model.proto, builder.nodes, list(inputs), [LOGITS], builder.constants)


def _passes(builder: Builder, live: Sequence[Live]) -> str:
    """T, from the masks: what comes from a Shape node stays on the CPU, which an input would not."""
    return builder.size(live[0].mask, live[0].layer.batch_dim + 1) if live else builder.ints(1)


def _rows(builder: Builder, frontier: Frontier, layouts: Mapping[str, Layout], passes: str) -> str:
    """N·T."""
    for name in frontier.features:
        d, fold = layouts[name].batch_dim, layouts[name].fold
        if d is not None:
            rows = builder.op("Div", builder.size(once(name), d), builder.ints(fold))
            return builder.op("Mul", rows, passes)
    raise Untraceable("no feature tells the number of rows")


def _repeat(builder: Builder, name: str, layout: Layout, passes: str, op_type: str) -> None:
    """Every row T times: row n becomes rows n·T … n·T + T − 1."""
    d, shape = layout.batch_dim, layout.shape
    if d is None:
        builder.op("Identity", once(name), output=name)
        return
    unfolded = builder.reshape(once(name), [*shape[:d], -1, 1, *shape[d:]])
    times = builder.shape(*[1] * (d + 1), passes, *[1] * len(shape[d:]))
    repeated = builder.op(op_type, unfolded, times)
    builder.reshape(repeated, [*shape[:d], -1, *shape[d + 1 :]], name)


def _drop(builder: Builder, x: Live, value: str, passes: int | str) -> None:
    """value·mask, computed at least in float32 and rounded to the value's own type."""
    d, shape = x.layer.batch_dim, x.layout.shape
    wide = _at_least_float(x.dtype)
    unfolded = builder.reshape(value, [*shape[:d], -1, passes, *shape[d:]])
    if x.dtype != wide:
        unfolded = builder.op("Cast", unfolded, to=wide)
    dropped = builder.op("Mul", unfolded, x.mask)
    if x.dtype != wide:
        dropped = builder.op("Cast", dropped, to=x.dtype)
    builder.reshape(dropped, [*shape[:d], -1, *shape[d + 1 :]], x.drop.y)


def _count(builder: Builder, node: NodeProto, layout: Layout, rows: str) -> None:
    """The shape that a value of the prefix would have for N·T rows."""
    sizes: list[int | str] = list(layout.shape)
    if layout.batch_dim is not None:
        sizes[layout.batch_dim] = builder.op("Mul", rows, builder.ints(layout.fold))
    asked = attributes(node)
    builder.op("Identity", builder.shape(*sizes[asked.get("start", 0) : asked.get("end")]), output=node.output[0])


def _input(name: str, dtype: int, layout: Layout) -> ValueInfoProto:
    sizes = [None if d == layout.batch_dim else size for d, size in enumerate(layout.shape)]
    return helper.make_tensor_value_info(name, dtype, sizes)


def _at_least_float(dtype: int) -> int:
    return TensorProto.DOUBLE if dtype == TensorProto.DOUBLE else TensorProto.FLOAT


def _mask_inputs(live: Sequence[Live]) -> list[ValueInfoProto]:
    found = []
    for x in live:
        d, shape = x.layer.batch_dim, x.layout.shape
        sizes = [*shape[:d], None, None, *shape[d:]]
        found.append(helper.make_tensor_value_info(x.mask, _at_least_float(x.dtype), sizes))
    return found
