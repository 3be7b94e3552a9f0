"""The seam between the engine and where a model came from: what a loaded model must be able to do.

`torch_network.py` is a torch module. A model is looked at once (`probe`), and then runs in one of two ways that give
the same answer: as a `Whole`, every input repeated for each pass, or `cut` at its stochastic frontier.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from poolscore.engine.model.masks import Masks
from poolscore.engine.model.probe import Inputs, Probe


class Forward(Protocol):
    """How inputs and passes become logits."""

    rows_per_call: int  # N·T rows that one tensor should hold

    def once(self, inputs: Inputs) -> Sequence[Tensor]:
        """What is computed once for each row: [N, …] inputs → features."""

    def passes(self, features: Sequence[Tensor], row_keys_N: Tensor, passes: range, masks: Masks) -> Tensor:
        """The given passes of N rows, [N·len(passes), C]; row n under the i-th of them at n·len(passes) + i."""


class Whole(Forward, Protocol):
    """A model whose inputs are repeated for each pass: nothing is computed once."""

    def without_dropout(self, inputs: Inputs) -> Tensor:
        """One deterministic pass, [N, C]."""


class Cut(Forward, Protocol):
    """A model that was cut at its stochastic frontier."""

    operators: tuple[int, int]  # before and behind the frontier
    folded: frozenset[int]  # indices of the layers whose masks went into a Linear


class Network(Protocol):
    """A loaded model."""

    weights: str  # SHA-256 of its weights, 32 digits
    description: str  # beside its weights, what two runs of one model have in common

    def probe(self, inputs: Inputs) -> Probe:
        """Find the live dropout by running a few rows (at least 3), on the CPU.

        Raises:
            ConfigError: it cannot be scored.
        """

    def whole(self, probe: Probe, names: Sequence[str], device: torch.device) -> Whole:
        """The model as it is, on the device.

        Args:
            names: of the inputs, in their order.
        """

    def cut(self, probe: Probe, sample: Inputs, masks: Masks, device: torch.device) -> Cut:
        """The model in two parts, on the device. Comes after `whole`, with which it may share weights.

        Raises:
            Untraceable: with the reason.
        """

    def flops(self, run: Callable[[], object]) -> int:
        """Floating-point operations of this model's forwards during `run`."""
