"""A model that was cut at its stochastic frontier: the prefix once per row, the suffix for every pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from poolscore.engine.model.channels_last import put_channels_last
from poolscore.engine.model.compiled import compile_part
from poolscore.engine.model.dropout import DropoutLayer
from poolscore.engine.model.fold import fold_linears
from poolscore.engine.model.head import keep_logits_full
from poolscore.engine.model.in_place import relu_in_place
from poolscore.engine.model.masks import Masks, SharedMasks
from poolscore.engine.model.network import Build, rows_first
from poolscore.engine.model.probe import Inputs
from poolscore.engine.model.split import Split, split
from poolscore.engine.model.trace import trace

# Bytes of the largest tensor behind the frontier: what a CPU's caches hold, what a GPU's memory spares.
PIECE_BYTES = {"cpu": 8 << 20, "cuda": 1 << 30}
LEAST_ROWS = 64
ATEN = torch.ops.aten
RECURRENT = {ATEN.lstm.input, ATEN.gru.input, ATEN.rnn_tanh.input, ATEN.rnn_relu.input}


class Features(NamedTuple):
    """What was computed once per row."""

    frontier: tuple[Tensor, ...]
    folded: dict[int, tuple[Tensor, ...]]  # by layer: what its Linear needs


class SplitModel:
    """See Cut (`network.py`)."""

    def __init__(self, parts: Split, build: Build) -> None:
        self.parts = parts
        self.operators = parts.operators
        self.modules = parts.modules
        self.folded = frozenset(parts.folded)
        self.bytes = sum(linear.bytes for _, linear in parts.folded.values())
        self._channels_last = put_channels_last(parts)
        self._changes_inputs = any(_writes(node) for node in parts.prefix.graph.nodes)
        for graph in (parts.prefix, parts.suffix):
            relu_in_place(graph)
        budget = PIECE_BYTES.get(build.device.type, PIECE_BYTES["cpu"])
        self.rows_per_call = max(LEAST_ROWS, budget // max(1, _bytes_per_row(parts)))
        self._compiled_for: int | None = None
        self._compiled: tuple[Callable[..., Any], Callable[..., Any]] = parts.prefix, parts.suffix

    @classmethod
    def of(
        cls,
        model: nn.Module,
        layers: Sequence[DropoutLayer],
        sample: Inputs,
        masks: Masks,
        build: Build,
    ) -> SplitModel:
        """Trace and cut a model that is on its device.

        Raises:
            Untraceable: with the reason.
        """
        parts = split(trace(model, layers, sample), layers)
        if isinstance(masks, SharedMasks):
            parts = fold_linears(parts, masks, build.precision)
        keep_logits_full(parts.suffix, build.precision)
        return cls(parts, build)

    def compile_for(self, rows: int | None) -> bool:
        """See Cut. Another number of rows, such as the few that something is tried on, is not worth a compilation."""
        graphs = (self.parts.prefix, self.parts.suffix)
        if any(node.target in RECURRENT for graph in graphs for node in graph.graph.nodes):
            return False  # the compiler would unroll every step in time
        self._compiled_for = rows
        self._compiled = compile_part(self.parts.prefix), compile_part(self.parts.suffix)
        return True

    def once(self, inputs: Inputs) -> Features:
        """See Forward: the prefix."""
        tensors = [x.clone() for x in inputs.values()] if self._changes_inputs else list(inputs.values())
        tensors = [x.contiguous(memory_format=self._order(x)) for x in tensors]
        prefix = self._compiled[0] if len(tensors[0]) == self._compiled_for else self.parts.prefix
        frontier: tuple[Tensor, ...] = prefix(*tensors)
        folded = {index: linear.once(frontier[at]) for index, (at, linear) in self.parts.folded.items()}
        return Features(frontier, folded)

    def _order(self, x: Tensor) -> torch.memory_format:
        return torch.channels_last if self._channels_last and x.ndim == 4 else torch.contiguous_format

    def by_row(self, features: Features, rows: int) -> list[Tensor]:
        """See Forward."""
        found = zip(features.frontier, self.parts.frontier, strict=True)
        return [rows_first(x, of.batch_dim, rows) for x, of in found if of.batch_dim is not None]

    def passes(self, features: Features, row_keys_N: Tensor, passes: range, masks: Masks) -> Tensor:
        """See Forward: the suffix."""
        answers: list[Tensor | None] = []
        for layer in self.parts.layers:
            if layer.index in self.parts.folded:
                _, linear = self.parts.folded[layer.index]
                answers += (linear.passes(features.folded[layer.index], passes), None)
            else:
                answers += masks.affine(layer.index, row_keys_N, passes)
        suffix = self._compiled[1] if len(row_keys_N) == self._compiled_for else self.parts.suffix
        logits: Tensor = suffix(*features.frontier, *answers, len(row_keys_N) * len(passes), len(passes))
        return logits


def _writes(node: torch.fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and bool(schema.is_mutable)


def _bytes_per_row(parts: Split) -> int:
    """Bytes of the largest tensor behind the frontier, for one row under one pass."""
    values = [node.meta.get("val") for node in parts.suffix.graph.nodes if node.op.startswith("call_")]
    return max((_size_of_one(v) for v in values if isinstance(v, Tensor)), default=0)


def _size_of_one(value: Tensor) -> int:
    """Bytes of a traced tensor if there was one row."""
    entries = 1
    for size in value.shape:
        symbolic: Any = getattr(size, "node", None)
        entries *= int(symbolic.expr.subs(dict.fromkeys(symbolic.expr.free_symbols, 1))) if symbolic else int(size)
    return entries * value.element_size()
