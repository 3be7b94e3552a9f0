"""An ONNX file as a Network: see `../network.py`.

Its Dropout nodes were kept by the exporter. ONNX Runtime would draw numbers of its own in them; instead each becomes a
multiplication with a mask that is an input of the graph (`split.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import onnxruntime
import torch
from torch import Tensor

from poolscore.engine.errors import ConfigError
from poolscore.engine.model.masks import Masks
from poolscore.engine.model.network import Build
from poolscore.engine.model.onnx.flops import flops_per_row, values_counted
from poolscore.engine.model.onnx.forward import Meter, OnnxCut, OnnxWhole
from poolscore.engine.model.onnx.observe import Shapes, observe_shapes
from poolscore.engine.model.onnx.probe import named, probe_onnx, value_types
from poolscore.engine.model.onnx.read import graph_digest, read_onnx, weights_digest
from poolscore.engine.model.onnx.session import PROVIDERS, require_device
from poolscore.engine.model.onnx.split import Live
from poolscore.engine.model.probe import Inputs, Probe
from poolscore.engine.model.trace import Untraceable


class OnnxNetwork:
    """See Network.

    Raises:
        ConfigError: the file cannot be read or scored.
    """

    def __init__(self, path: Path, source: str | None = None) -> None:
        self._model = read_onnx(path, source)
        self._meter = Meter()
        self._shapes: Shapes = {}  # of what is counted for `flops`; known once the model was probed
        self.profile: Mapping[str, str | int] = {}
        self.weights = weights_digest(self._model.proto)
        dropout = ", ".join(f"{drop.name} p={drop.p:g}" for drop in self._model.drops)
        self.code = ""
        self.description = f"ONNX graph {graph_digest(self._model.proto)} with dropout {dropout or 'nowhere'}"

    def probe(self, inputs: Inputs) -> Probe:
        """See Network."""
        sample = self._on_cpu(inputs)
        probe = probe_onnx(self._model, self._types, sample)
        self._shapes = observe_shapes(self._model.proto, sample, values_counted(self._model.proto.graph.node))
        return probe

    def whole(self, probe: Probe, names: Sequence[str], device: torch.device) -> OnnxWhole:
        """See Network."""
        require_device(device)
        self.profile = {"onnxruntime": onnxruntime.__version__, "provider": PROVIDERS[device.type]}
        flops = flops_per_row(self._model.proto.graph.node, self._shapes) if self._shapes else 0
        return OnnxWhole(self._model, self._live(probe), probe.outputs, device, self._meter, flops)

    def cut(self, probe: Probe, sample: Inputs, masks: Masks, build: Build) -> OnnxCut:
        """See Network."""
        try:
            return OnnxCut(
                self._model, self._live(probe), self._on_cpu(sample), probe.outputs, build.device, self._meter
            )
        except ConfigError as error:  # ONNX Runtime does not take one of the parts
            raise Untraceable(str(error)) from error

    def flops(self, run: Callable[[], object]) -> int:
        """See Network; zero in a process where the model was not probed."""
        before = self._meter.flops
        run()
        return self._meter.flops - before

    def _on_cpu(self, inputs: Inputs) -> dict[str, Tensor]:
        return named(self._model, {name: x.cpu() for name, x in inputs.items()})

    def _live(self, probe: Probe) -> list[Live]:
        pairs = zip(self._model.drops, probe.layers, strict=True)
        return [Live(drop, layer, self._types[drop.x]) for drop, layer in pairs if layer.live]

    @cached_property
    def _types(self) -> dict[str, int]:
        return value_types(self._model, [self._model.output, *(drop.x for drop in self._model.drops)])
