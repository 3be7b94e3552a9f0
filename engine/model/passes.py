"""Monte-Carlo dropout: T stochastic passes of a batch.

Gal & Ghahramani 2016, Dropout as a Bayesian Approximation: passes with dropout left on are samples of the posterior.
What no live dropout reaches is computed once per row (`frontier.py`); a model that cannot be cut there is repeated as a
whole (`repeated.py`). Both give the same answer.
"""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from poolscore.engine.config import PassesConfig
from poolscore.engine.config_text import one_line
from poolscore.engine.machine.allocation import keep_freed_memory
from poolscore.engine.model.masks import DropAll, IndependentMasks, Masks, SharedMasks
from poolscore.engine.model.network import Build, Cut, Forward, Network
from poolscore.engine.model.probe import Inputs, Probe
from poolscore.engine.model.trace import Untraceable

LOG = logging.getLogger("poolscore.model")
LOG.addHandler(logging.NullHandler())  # the command line says it in its own way

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
CHECKED_PASSES = 3  # that both ways are compared on, before the split is believed
SAME = 1e-4  # largest difference, relative to the largest logit; a wrong mask or a torn alias is off by far more

SAME_ROUNDED = 0.05  # the same in bf16 and fp16, which round in other places on the two ways
MAP_EDGE = 4  # of a map of features, averaged


@dataclass(frozen=True)
class Cost:
    """Floating-point operations for one row."""

    one_pass: int  # of the model as it is
    once: int  # before the frontier
    all_passes: int  # T of them, what is computed once included

    @property
    def relative(self) -> float:
        """T passes, in units of one."""
        return self.all_passes / self.one_pass if self.one_pass else float("nan")


class McDropout:
    """Runs a probed model. The same rows with the same masks give the same bits in every process of one profile.

    Args:
        sample: inputs of a few rows, for tracing the model.
        repeat_because: why the model is to be repeated at its input; None lets it be split.
        verify: compare the split with repeating on the sample, and repeat if they differ.
        exact: the type of the logits; float64 for a model in float64.
    """

    def __init__(
        self,
        network: Network,
        probe: Probe,
        config: PassesConfig,
        device: torch.device,
        sample: Inputs,
        *,
        repeat_because: str | None = None,
        verify: bool = False,
        exact: torch.dtype = torch.float32,
    ) -> None:
        if device.type == "cpu":
            keep_freed_memory()
        self.layers = probe.live
        self._network = network
        self._device = device
        self._exact = exact
        self._passes = config.count
        self._autocast = AUTOCAST.get(config.precision)
        self._masks = _masks(probe, config, device)
        self.compiled = False
        self._whole = network.whole(probe, tuple(sample), device)
        self.cut: Cut | None = None
        self.repeated_because = repeat_because
        if repeat_because is None:
            try:
                self.cut = network.cut(probe, sample, self._masks, Build(device, self._autocast))
                if verify:
                    self._require_same(self.cut, sample)
            except Untraceable as reason:
                self.cut, self.repeated_because = None, str(reason)
                LOG.warning("every input is repeated at the model's input, because %s", reason)
        self._forward: Forward = self.cut or self._whole
        self.rows_per_call = config.rows_per_call or self._forward.rows_per_call
        self.mask_bytes = self._masks.bytes + (self.cut.bytes if self.cut else 0)

    @property
    def profile(self) -> dict[str, str | int]:
        """What the last bits depend on, beside device, libraries and configuration."""
        way = "repeated" if self.cut is None else "split"
        return {"passes": way, "rows_per_call": self.rows_per_call, **self._network.profile}

    def compile_for(self, inputs: Inputs, row_keys_N: Tensor) -> Tensor:
        """Compile for batches of this shape, if there is anything to compile; gives this one's logits."""
        self.compiled = self.cut is not None and self.cut.compile_for(len(row_keys_N))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the compiler, about itself
            return self.logits(inputs, row_keys_N)

    def try_compiled(self, inputs: Inputs, row_keys_N: Tensor) -> str | None:
        """Compile for batches of this shape, and keep that if it works and gives the same. Returns why not, if not."""
        plain = self.logits(inputs, row_keys_N)
        try:
            reason = self._difference(self.compile_for(inputs, row_keys_N), plain)
        except Exception as error:  # a compiler fails in many ways
            reason = one_line(f"{type(error).__name__}: {error}")[:300]
        if reason is None and not self.compiled:
            reason = "it holds something that torch.compile would make slower"
        if reason is not None:
            self.leave_uncompiled()
        return reason

    def leave_uncompiled(self) -> None:
        """Run as it is, from now on."""
        if self.cut is not None:
            self.cut.compile_for(None)
        self.compiled = False

    @torch.no_grad()
    def logits(self, inputs: Inputs, row_keys_N: Tensor, count: int | None = None) -> Tensor:
        """The passes of a batch.

        Args:
            inputs: tensors [N, …] on the device.
            row_keys_N: int64 [N], the bits of the rows' keys.
            count: only the first passes; default: all T.

        Returns:
            logits_NTC, float32.

        Raises:
            PoolscoreError: the model makes other dropout calls than it made on the probe's rows.
        """
        return self._logits(self._forward, inputs, row_keys_N, count or self._passes, self.rows_per_call)

    @torch.no_grad()
    def plain_logits(self, inputs: Inputs, row_keys_N: Tensor) -> Tensor:
        """The same by the plain way, which every other is measured against: repeated at the input, not compiled."""
        return self._logits(self._whole, inputs, row_keys_N, self._passes, self._whole.rows_per_call)

    @torch.no_grad()
    def once(self, inputs: Inputs) -> Any:
        """What all passes of a batch have in common: what is computed once per row, if the model could be cut."""
        with self._precision():
            return self._forward.once(inputs)

    @torch.no_grad()
    def features(self, inputs: Inputs) -> Tensor:
        """What the model knows of each row before any dropout: the tensors at its stochastic frontier (its inputs,
        where it is repeated), side by side as [N, F]. Maps are averaged down to 4x4."""
        with self._precision():
            rows = len(next(iter(inputs.values())))
            tensors = self._forward.by_row(self._forward.once(inputs), rows)
        return torch.cat([_as_vector(x.float()) for x in tensors], dim=1)

    @torch.no_grad()
    def without_dropout(self, inputs: Inputs) -> Tensor:
        """One deterministic pass, as [N, 1, C] float32."""
        with self._precision():
            return self._whole.without_dropout(inputs).float()[:, None]

    @torch.no_grad()
    def dropout_matters(self, sample: Inputs) -> bool:
        """Whether the output changes when everything is dropped."""
        keys = torch.zeros(len(next(iter(sample.values()))), dtype=torch.int64, device=self._device)
        with self._precision():
            dropped = self._whole.passes(self._whole.once(sample), keys, range(1), DropAll(self.layers, self._device))
        return not torch.equal(dropped.float(), self.without_dropout(sample)[:, 0])

    @torch.no_grad()
    def cost(self, sample: Inputs) -> Cost:
        """Floating-point operations for one row, counted on a few."""
        rows = len(next(iter(sample.values())))
        keys = torch.zeros(rows, dtype=torch.int64, device=self._device)
        features = self._forward.once(sample)
        one = self._network.flops(lambda: self.without_dropout(sample))
        once = self._network.flops(lambda: self._forward.once(sample))
        behind = self._network.flops(lambda: self._forward.passes(features, keys, range(self._passes), self._masks))
        return Cost(one // rows, once // rows, (once + behind) // rows)

    def _logits(self, forward: Forward, inputs: Inputs, row_keys_N: Tensor, total: int, rows_per_call: int) -> Tensor:
        at_once = max(1, min(total, rows_per_call // max(len(row_keys_N), 1)))
        with self._precision():
            features = forward.once(inputs)
            pieces = [
                self._piece(forward, features, row_keys_N, range(start, min(start + at_once, total)))
                for start in range(0, total, at_once)
            ]
        return torch.cat(pieces, dim=1)

    def _piece(self, forward: Forward, features: Any, row_keys_N: Tensor, passes: range) -> Tensor:
        logits = forward.passes(features, row_keys_N, passes, self._masks).to(self._exact)
        return logits.view(len(row_keys_N), len(passes), logits.shape[1])

    @torch.no_grad()
    def _require_same(self, cut: Cut, sample: Inputs) -> None:
        rows = len(next(iter(sample.values())))
        keys, passes = torch.arange(rows, device=self._device), range(min(CHECKED_PASSES, self._passes))
        given = ({name: x.clone() for name, x in sample.items()} for _ in range(2))
        with self._precision():
            plain = self._piece(self._whole, self._whole.once(next(given)), keys, passes)
            try:
                ours = self._piece(cut, cut.once(next(given)), keys, passes)
            except Exception as error:  # the whole model did run
                raise Untraceable(
                    f"the split model fails: {one_line(f'{type(error).__name__}: {error}')[:300]}"
                ) from error
        if difference := self._difference(ours, plain):
            raise Untraceable(f"the split model {difference}")

    def _difference(self, ours: Tensor, plain: Tensor) -> str | None:
        size = float(plain.nan_to_num(0.0, 0.0, 0.0).abs().max())  # −inf is the logit of a masked class, and no size
        limit = (SAME if self._autocast is None else SAME_ROUNDED) * max(1.0, size)
        if torch.allclose(ours, plain, rtol=0, atol=limit, equal_nan=True):
            return None
        return f"differs by {float((ours - plain).nan_to_num(0.0).abs().max()):.1e} on the first rows"

    def _precision(self) -> torch.autocast:
        return torch.autocast(self._device.type, dtype=self._autocast, enabled=self._autocast is not None)


def _as_vector(x: Tensor) -> Tensor:
    if x.ndim == 4 and min(x.shape[2:]) > MAP_EDGE:
        x = adaptive_avg_pool2d(x, MAP_EDGE)
    return x.flatten(1)


def _masks(probe: Probe, config: PassesConfig, device: torch.device) -> Masks:
    if config.masks == "shared":
        return SharedMasks(probe.live, config.seed, config.count, device)
    return IndependentMasks(probe.live, config.seed)
