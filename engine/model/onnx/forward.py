"""The two ways of an ONNX model: as it is, every input repeated, or cut at its stochastic frontier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from poolscore.engine.model.frontier import LEAST_ROWS, PIECE_BYTES
from poolscore.engine.model.masks import Masks
from poolscore.engine.model.network import rows_first
from poolscore.engine.model.onnx.flops import flops_per_row, values_counted
from poolscore.engine.model.onnx.observe import entries_per_row, layout_of, observe_shapes
from poolscore.engine.model.onnx.probe import named, value_types
from poolscore.engine.model.onnx.read import OnnxModel
from poolscore.engine.model.onnx.session import Session
from poolscore.engine.model.onnx.split import (
    LOGITS,
    Live,
    find_frontier,
    make_prefix,
    make_suffix,
    once,
    with_masks,
    without_dropout,
)
from poolscore.engine.model.onnx.wiring import modules_of, needed_for
from poolscore.engine.model.probe import Inputs
from poolscore.engine.model.repeated import ROWS_PER_CALL

BYTES_PER_ENTRY = 4


@dataclass
class Meter:
    """Counts the floating-point operations that were asked for."""

    flops: int = 0


class OnnxWhole:
    """See Whole (`../network.py`). A session is made when it is first used."""

    def __init__(
        self, model: OnnxModel, live: Sequence[Live], outputs: int, device: torch.device, meter: Meter, flops: int
    ) -> None:
        self._model = model
        self._live = live
        self._outputs = outputs
        self._device = device
        self._meter = meter
        self._flops = flops  # for one row
        self.rows_per_call = ROWS_PER_CALL.get(device.type, ROWS_PER_CALL["cpu"])

    def once(self, inputs: Inputs) -> list[Tensor]:
        """See Forward: nothing is computed beforehand."""
        return list(named(self._model, inputs).values())

    def by_row(self, features: Sequence[Tensor], rows: int) -> list[Tensor]:
        """See Forward: the inputs."""
        return list(features)

    def passes(self, features: Sequence[Tensor], row_keys_N: Tensor, passes: range, masks: Masks) -> Tensor:
        """See Forward."""
        t = len(passes)
        repeated = {name: x.repeat_interleave(t, dim=0) for name, x in zip(self._model.inputs, features, strict=True)}
        return self._run(self._masked, repeated | _masks_for(self._live, row_keys_N, passes, masks))

    def without_dropout(self, inputs: Inputs) -> Tensor:
        """See Whole."""
        return self._run(self._plain, named(self._model, inputs))

    def _run(self, session: Session, inputs: Mapping[str, Tensor]) -> Tensor:
        rows = len(inputs[next(iter(self._model.inputs))])
        self._meter.flops += self._flops * rows
        (logits,) = session.run(inputs, {LOGITS: (rows, self._outputs)})
        return logits

    @cached_property
    def _masked(self) -> Session:
        return Session(with_masks(self._model, self._live, self._outputs), self._device)

    @cached_property
    def _plain(self) -> Session:
        return Session(without_dropout(self._model, self._outputs), self._device)


class OnnxCut:
    """See Cut (`../network.py`).

    Args:
        sample: a few rows, at least 3, on the CPU, by their names in the file.

    Raises:
        Untraceable: with the reason.
    """

    folded: frozenset[int] = frozenset()
    bytes = 0

    def __init__(
        self,
        model: OnnxModel,
        live: Sequence[Live],
        sample: Inputs,
        outputs: int,
        device: torch.device,
        meter: Meter,
    ) -> None:
        frontier = find_frontier(model, live)
        computed = [name for name in frontier.features if name not in model.inputs]
        before = needed_for(model.proto, computed)
        self._model = model
        self._live = live
        self._outputs = outputs
        self._meter = meter
        self._features = frontier.features
        self.operators = (len(before), len(frontier.behind))
        self.modules = (modules_of(before), modules_of(frontier.behind))

        made_behind = [*values_counted(frontier.behind), *(x.drop.x for x in live)]
        laid_out = [*frontier.features, *frontier.counted.values()]
        shapes = observe_shapes(model.proto, sample, {*made_behind, *laid_out, *values_counted(before)})
        layouts = {name: layout_of(name, shapes[name]) for name in laid_out}
        self._layouts = {name: layouts[name] for name in computed}
        self._flops = flops_per_row(before, shapes), flops_per_row(frontier.behind, shapes)
        largest = max(entries_per_row(shapes[name]) for name in made_behind) * BYTES_PER_ENTRY
        budget = PIECE_BYTES.get(device.type, PIECE_BYTES["cpu"])
        self.rows_per_call = max(LEAST_ROWS, budget // max(1, largest))

        dtypes = value_types(model, frontier.features)
        suffix = make_suffix(model, live, frontier, layouts, dtypes, outputs)
        self._prefix = Session(make_prefix(model, computed), device) if computed else None
        self._suffix = Session(suffix, device)

    def compile_for(self, rows: int | None) -> bool:
        """See Cut: ONNX Runtime optimised the parts when it took them."""
        return False

    def once(self, inputs: Inputs) -> list[Tensor]:
        """See Forward: the prefix."""
        given = named(self._model, inputs)
        rows = len(next(iter(given.values())))
        self._meter.flops += self._flops[0] * rows
        if self._prefix is not None:
            shapes = {name: layout.of(rows) for name, layout in self._layouts.items()}
            read = {name: x for name, x in given.items() if name in self._prefix.inputs}
            given |= dict(zip(shapes, self._prefix.run(read, shapes), strict=True))
        return [given[name] for name in self._features]

    def by_row(self, features: Sequence[Tensor], rows: int) -> list[Tensor]:
        """See Forward."""
        dims = [self._layouts[name].batch_dim if name in self._layouts else 0 for name in self._features]
        return [rows_first(x, dim, rows) for x, dim in zip(features, dims, strict=True) if dim is not None]

    def passes(self, features: Sequence[Tensor], row_keys_N: Tensor, passes: range, masks: Masks) -> Tensor:
        """See Forward: the suffix."""
        rows = len(row_keys_N) * len(passes)
        self._meter.flops += self._flops[1] * rows
        inputs = {once(name): x for name, x in zip(self._features, features, strict=True)}
        inputs |= _masks_for(self._live, row_keys_N, passes, masks)
        (logits,) = self._suffix.run(inputs, {LOGITS: (rows, self._outputs)})
        return logits


def _masks_for(live: Sequence[Live], row_keys_N: Tensor, passes: range, masks: Masks) -> dict[str, Tensor]:
    found = {}
    for x in live:
        factor, offset = masks.affine(x.layer.index, row_keys_N, passes)
        assert offset is None  # a Dropout node has none
        found[x.mask] = x.place(factor)
    return found
