"""A model that was cut at its stochastic frontier: the prefix once per row, the suffix for every pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from poolscore.engine.model.dropout import DropoutLayer
from poolscore.engine.model.fold import fold_linears
from poolscore.engine.model.masks import Masks, SharedMasks
from poolscore.engine.model.probe import Inputs
from poolscore.engine.model.split import Split, split
from poolscore.engine.model.trace import trace

# Bytes of the largest tensor behind the frontier: what a CPU's caches hold, what a GPU's memory spares.
PIECE_BYTES = {"cpu": 8 << 20, "cuda": 1 << 30}
LEAST_ROWS = 64


class SplitModel:
    """See Cut (`network.py`)."""

    def __init__(self, parts: Split, device: str) -> None:
        self.parts = parts
        self.operators = parts.operators
        self.folded = parts.folded
        self._changes_inputs = any(_writes(node) for node in parts.prefix.graph.nodes)
        budget = PIECE_BYTES.get(device, PIECE_BYTES["cpu"])
        self.rows_per_call = max(LEAST_ROWS, budget // max(1, _bytes_per_row(parts)))

    @classmethod
    def of(
        cls, model: nn.Module, layers: Sequence[DropoutLayer], sample: Inputs, masks: Masks, device: str
    ) -> SplitModel:
        """Trace and cut a model.

        Raises:
            Untraceable: with the reason.
        """
        parts = split(trace(model, layers, sample), layers)
        if isinstance(masks, SharedMasks):
            parts = fold_linears(parts, masks)
        return cls(parts, device)

    def once(self, inputs: Inputs) -> tuple[Tensor, ...]:
        """See Forward: the prefix."""
        tensors = [x.clone() for x in inputs.values()] if self._changes_inputs else list(inputs.values())
        features: tuple[Tensor, ...] = self.parts.prefix(*tensors)
        return features

    def passes(self, features: Sequence[Tensor], row_keys_N: Tensor, passes: range, masks: Masks) -> Tensor:
        """See Forward: the suffix."""
        answers: list[Tensor | None] = []
        for layer in self.parts.layers:
            folded = layer.index in self.parts.folded
            answers += (None, None) if folded else masks.affine(layer.index, row_keys_N, passes)
        rows = len(row_keys_N) * len(passes)
        logits: Tensor = self.parts.suffix(*features, *answers, rows, len(passes), passes.start)
        return logits


def _writes(node: torch.fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and bool(schema.is_mutable)


def _bytes_per_row(parts: Split) -> int:
    """Bytes of the largest tensor behind the frontier, for one row under one pass."""
    values = [node.meta.get("val") for node in parts.suffix.graph.nodes if node.op != "placeholder"]
    return max((_size_of_one(v) for v in values if isinstance(v, Tensor)), default=0)


def _size_of_one(value: Tensor) -> int:
    """Bytes of a traced tensor if there was one row."""
    entries = 1
    for size in value.shape:
        symbolic: Any = getattr(size, "node", None)
        entries *= int(symbolic.expr.subs(dict.fromkeys(symbolic.expr.free_symbols, 1))) if symbolic else int(size)
    return entries * value.element_size()
