"""The plain way: every input is repeated T times and goes through the whole model, its dropout calls answered."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from poolscore.engine.errors import ConfigError
from poolscore.engine.model.dropout import Calls, DropoutLayer, DropoutMode, apply_affine
from poolscore.engine.model.masks import Masks
from poolscore.engine.model.probe import Inputs, as_logits, call_model

DATA_DEPENDENT = "model: its dropout calls depend on the data; such a model cannot be scored"
ROWS_PER_CALL = {"cpu": 512, "cuda": 16_384}  # beyond this a CPU's caches overflow and rows get dearer (NOTES, 1)


class RepeatedModel:
    """See Whole (`network.py`). A model that changes its inputs in place is given copies."""

    def __init__(self, model: nn.Module, layers: Sequence[DropoutLayer], names: Sequence[str], device: str) -> None:
        self._model = model
        self._layers = layers
        self._names = names
        self.rows_per_call = ROWS_PER_CALL.get(device, ROWS_PER_CALL["cpu"])

    def once(self, inputs: Inputs) -> tuple[Tensor, ...]:
        """See Forward: nothing is computed beforehand."""
        return tuple(inputs[name].contiguous() for name in self._names)

    def by_row(self, features: Sequence[Tensor], rows: int) -> list[Tensor]:
        """See Forward: the inputs."""
        return list(features)

    def passes(self, features: Sequence[Tensor], row_keys_N: Tensor, passes: range, masks: Masks) -> Tensor:
        """See Forward."""
        rows, t = len(row_keys_N), len(passes)
        repeated = {name: x.repeat_interleave(t, dim=0) for name, x in zip(self._names, features, strict=True)}
        calls = Calls(self._layers)

        def answer(kind: str, p: float, x: Tensor) -> Tensor:
            layer = calls.next()
            if layer is None or not layer.fits(kind, p, tuple(x.shape), rows * t):
                raise ConfigError(DATA_DEPENDENT)
            if not layer.live:
                return x
            factor, offset = masks.affine(layer.index, row_keys_N, passes)
            return apply_affine(x, factor, offset, layer.batch_dim, layer.fold, t)

        with DropoutMode(answer, calls.skips):
            output = call_model(self._model, repeated)
        if calls.left:
            raise ConfigError(DATA_DEPENDENT)
        return as_logits(output, rows * t)

    def without_dropout(self, inputs: Inputs) -> Tensor:
        """See Whole."""
        copies = {name: x.clone(memory_format=torch.contiguous_format) for name, x in inputs.items()}
        with torch.no_grad(), DropoutMode(lambda kind, p, x: x, lambda: True):
            return as_logits(call_model(self._model, copies), len(next(iter(inputs.values()))))
