"""The plain way to the scores of a few rows, in a precision above the run's: what `verify` measures a run against.

Every input is repeated T times through the whole model under the same masks, and the statistics are the specification
in plain torch. Nothing of it is shared with the fast way: no cut, no compiler, no kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from poolscore.engine.config import Config, PassesConfig
from poolscore.engine.config_text import one_line
from poolscore.engine.model.load import load_module, load_network
from poolscore.engine.model.passes import McDropout
from poolscore.engine.model.probe import PROBE_ROWS, Inputs
from poolscore.engine.model.torch_network import TorchNetwork
from poolscore.engine.prepare import Prepared
from poolscore.engine.scores import SCORES, Task, scores_of
from poolscore.kernels.random_score import uniform_from_keys
from poolscore.kernels.row_stats import row_stats_reference

Precision = Literal["float64", "fp32"]
Values = dict[str, NDArray[np.float64]]
Logits = Callable[[Inputs, Tensor], Tensor]


@dataclass(frozen=True)
class Both:
    """N rows by the plain way, twice. Without a higher precision both have the same logits."""

    run: Values  # score → [N], in the run's precision
    exact: Values  # in the higher one, statistics in float64
    error: float  # largest difference between the logits of both
    size: float  # largest logit
    gaps: NDArray[np.float64]  # [N, T]: how far apart the two largest logits of each pass are


class Reference:
    """Scores rows by the plain way.

    Args:
        precision: of the model, where it can run in it.
    """

    def __init__(self, prepared: Prepared, precision: Precision) -> None:
        self._config = prepared.config
        self._scorer = prepared.scorer
        self.precision = precision
        self.note: str | None = None  # why it is not the precision that was asked for
        self._exact = self._choose(prepared)

    @property
    def is_higher(self) -> bool:
        """Whether its precision is above the run's."""
        return self._exact is not None

    @torch.no_grad()
    def score(self, inputs: Inputs, row_keys_N: Tensor, keys_N: NDArray[np.uint64]) -> Both:
        """N rows, on the device; their keys in both forms."""
        run_NTC = self._scorer.model.plain_logits(inputs, row_keys_N)
        exact_NTC = run_NTC.double() if self._exact is None else self._exact(inputs, row_keys_N).double()
        finite = exact_NTC.isfinite()  # −inf is the logit of a masked class
        return Both(
            run=self._scores(run_NTC, keys_N),
            exact=self._scores(exact_NTC, keys_N),
            error=float((run_NTC - exact_NTC)[finite].abs().amax()) if finite.any() else 0.0,
            size=float(exact_NTC[finite].abs().amax()) if finite.any() else 0.0,
            gaps=_gaps(exact_NTC).cpu().numpy(),
        )

    def _scores(self, logits_NTC: Tensor, keys_N: NDArray[np.uint64]) -> Values:
        model, names = self._config.model, scores_of(self._config.model.task, self._config.passes.count)
        stats = row_stats_reference(
            logits_NTC,
            model.task.value,
            [name for name in names if SCORES[name].from_logits],
            reduce=self._config.score.reduce if model.task is Task.MULTILABEL else "sum",
            accurate_bald=self._config.score.accurate_bald,
            predicts_noise=model.predicts_noise,
        )
        values = {name: x.double().cpu().numpy() for name, x in stats.scores.items()}
        return {**values, "random": uniform_from_keys(keys_N, self._config.passes.seed).astype(np.float64)}

    def _choose(self, prepared: Prepared) -> Logits | None:
        config = self._config
        if config.model.source.endswith(".onnx"):
            self.precision, self.note = "fp32", "an ONNX file computes in its own types"
            return None
        if self.precision == "float64":
            try:
                return _in_float64(prepared)
            except Exception as error:  # the model is the user's code, and may insist on float32
                self.precision = "fp32"
                self.note = one_line(f"the model does not run in float64: {type(error).__name__}: {error}")[:300]
        if config.passes.precision == "fp32":
            return None
        decoder, probe = self._scorer.decoder, prepared.job.probe
        sample, network = decoder.blank(PROBE_ROWS), load_network(config.model)
        return McDropout(network, probe, _full(config), decoder.device, sample, repeat_because="it is compared").logits


def _in_float64(prepared: Prepared) -> Logits:
    decoder, probe = prepared.scorer.decoder, prepared.job.probe
    layers = tuple(replace(layer, dtype=torch.float64) for layer in probe.layers)
    network, sample = TorchNetwork(load_module(prepared.config.model).double()), decoder.blank(PROBE_ROWS)
    model = McDropout(
        *(network, replace(probe, layers=layers), _full(prepared.config), decoder.device, sample),
        repeat_because="it is compared",
        exact=torch.float64,
    )

    def logits(inputs: Inputs, row_keys_N: Tensor) -> Tensor:
        return model.logits({n: x.double() if x.is_floating_point() else x for n, x in inputs.items()}, row_keys_N)

    logits(sample, torch.zeros(PROBE_ROWS, dtype=torch.int64, device=decoder.device))  # fails here, if it does
    return logits


def _full(config: Config) -> PassesConfig:
    return config.passes.model_copy(update={"precision": "fp32"})


def _gaps(logits_NTC: Tensor) -> Tensor:
    if logits_NTC.shape[-1] == 1:
        return logits_NTC[..., 0].abs()
    best = logits_NTC.topk(2, dim=-1).values
    return best[..., 0] - best[..., 1]
