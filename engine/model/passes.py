"""Monte-Carlo dropout: T stochastic passes of a batch, every input repeated T times inside one tensor.

Gal & Ghahramani 2016, Dropout as a Bayesian Approximation: passes with dropout left on are samples of the posterior.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from poolscore.engine.config import PassesConfig
from poolscore.engine.errors import PoolscoreError
from poolscore.engine.model.dropout import DropoutMode, apply_affine
from poolscore.engine.model.masks import IndependentMasks, Masks, SharedMasks
from poolscore.engine.model.probe import Inputs, Probe, as_logits, call_model, make_dropout_live

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
ROWS_PER_CALL = {"cpu": 512, "cuda": 16_384}  # beyond this a CPU's caches overflow and rows get dearer (NOTES, 1)

DATA_DEPENDENT = "model: its dropout calls depend on the data; such a model cannot be scored"


class McDropout:
    """Runs a probed model. The same rows with the same masks give the same bits in every process of one profile.

    A model that changes its inputs in place is given copies.
    """

    def __init__(self, model: nn.Module, probe: Probe, config: PassesConfig, device: torch.device) -> None:
        self._model = model.to(device)
        make_dropout_live(self._model, probe.training)
        self._layers = probe.layers
        self._device = device
        self._passes = config.count
        self._autocast = AUTOCAST.get(config.precision)
        self.rows_per_call = config.rows_per_call or ROWS_PER_CALL.get(device.type, ROWS_PER_CALL["cpu"])
        self._masks: Masks
        if config.masks == "shared":
            self._masks = SharedMasks(probe.layers, config.seed, config.count, device)
        else:
            self._masks = IndependentMasks(probe.layers, config.seed)
        self.mask_bytes = self._masks.bytes

    @torch.no_grad()
    def logits(self, inputs: Inputs, row_keys_N: Tensor) -> Tensor:
        """All passes of a batch.

        Args:
            inputs: tensors [N, …] on the device.
            row_keys_N: int64 [N], the bits of the rows' keys.

        Returns:
            logits_NTC, float32.

        Raises:
            PoolscoreError: the model makes other dropout calls than it made on the probe's rows.
        """
        rows = len(row_keys_N)
        at_once = max(1, min(self._passes, self.rows_per_call // max(rows, 1)))
        pieces = [
            self._piece(inputs, row_keys_N, range(start, min(start + at_once, self._passes)))
            for start in range(0, self._passes, at_once)
        ]
        return torch.cat(pieces, dim=1)

    @torch.no_grad()
    def without_dropout(self, inputs: Inputs) -> Tensor:
        """One deterministic pass, as [N, 1, C] float32."""
        rows = len(next(iter(inputs.values())))
        with DropoutMode(lambda kind, p, x: x), self._precision():
            copies = {name: x.clone() for name, x in inputs.items()}
            return as_logits(call_model(self._model, copies), rows).float()[:, None]

    def _piece(self, inputs: Inputs, row_keys_N: Tensor, passes: range) -> Tensor:
        rows, t = len(row_keys_N), len(passes)
        repeated = {name: x.repeat_interleave(t, dim=0) for name, x in inputs.items()}
        layers = iter(self._layers)

        def answer(kind: str, p: float, x: Tensor) -> Tensor:
            layer = next(layers, None)
            if layer is None or not layer.fits(kind, p, tuple(x.shape), rows * t):
                raise PoolscoreError(DATA_DEPENDENT)
            factor, offset = self._masks.affine(layer.index, row_keys_N, passes)
            return apply_affine(x, factor, offset, layer.batch_dim, layer.fold, t)

        with DropoutMode(answer), self._precision():
            output = call_model(self._model, repeated)
        if next(layers, None) is not None:
            raise PoolscoreError(DATA_DEPENDENT)
        logits = as_logits(output, rows * t).float()
        return logits.view(rows, t, logits.shape[1])

    def _precision(self) -> torch.autocast:
        return torch.autocast(self._device.type, dtype=self._autocast, enabled=self._autocast is not None)
