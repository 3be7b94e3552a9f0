"""A torch module as a Network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from poolscore.engine.model.frontier import SplitModel
from poolscore.engine.model.masks import Masks
from poolscore.engine.model.network import Build
from poolscore.engine.model.probe import Inputs, Probe, make_dropout_live, probe_model
from poolscore.engine.model.recurrent import RECURRENT_FLOPS
from poolscore.engine.model.repeated import RepeatedModel
from poolscore.engine.model.source_code import code_digest


class TorchNetwork:
    """See Network (`network.py`)."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self.profile: Mapping[str, str | int] = {}
        self.weights = weights_digest(model)
        self.description = repr(model)
        self.code = code_digest(model)

    def probe(self, inputs: Inputs) -> Probe:
        """See Network."""
        return probe_model(self._model, {name: x.cpu() for name, x in inputs.items()})

    def whole(self, probe: Probe, names: Sequence[str], device: torch.device) -> RepeatedModel:
        """See Network."""
        make_dropout_live(self._model.to(device), probe.training)
        return RepeatedModel(self._model, probe.layers, names, device.type)

    def cut(self, probe: Probe, sample: Inputs, masks: Masks, build: Build) -> SplitModel:
        """See Network."""
        make_dropout_live(self._model.to(build.device), probe.training)
        return SplitModel.of(self._model, probe.layers, sample, masks, build)

    def flops(self, run: Callable[[], object]) -> int:
        """See Network."""
        with FlopCounterMode(display=False, custom_mapping=RECURRENT_FLOPS) as counter:
            run()
        return int(counter.get_total_flops())


def weights_digest(model: nn.Module) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of all parameters and buffers (also those that are in no
    checkpoint), shortened to 32 digits."""
    digest = sha256()
    for name, value in sorted({**dict(model.named_parameters()), **dict(model.named_buffers())}.items()):
        digest.update(f"{name}\0{value.dtype}\0{tuple(value.shape)}\0".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:32]
