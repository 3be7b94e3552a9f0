"""The seam between the engine and where a model came from: what a loaded model must be able to do.

`torch_network.py` is a torch module. A model is looked at once (`probe`), and then runs in one of two ways that give
the same answer: as a `Whole`, every input repeated for each pass, or `cut` at its stochastic frontier.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from poolscore.engine.model.masks import Masks
from poolscore.engine.model.probe import Inputs, Probe


@dataclass(frozen=True)
class Build:
    """How a model is to run."""

    device: torch.device
    precision: torch.dtype | None = None  # half precision under autocast; None: as the model is


class Forward(Protocol):
    """How inputs and passes become logits."""

    rows_per_call: int  # N·T rows that one tensor should hold

    def once(self, inputs: Inputs) -> Any:
        """What is computed once for each row: [N, …] inputs → features, whatever `passes` takes."""

    def by_row(self, features: Any, rows: int) -> list[Tensor]:
        """What `once` computed for each of the rows, each [rows, …]."""

    def passes(self, features: Any, row_keys_N: Tensor, passes: range, masks: Masks) -> Tensor:
        """The given passes of N rows, [N·len(passes), C]; row n under the i-th of them at n·len(passes) + i."""


class Whole(Forward, Protocol):
    """A model whose inputs are repeated for each pass: nothing is computed once."""

    def without_dropout(self, inputs: Inputs) -> Tensor:
        """One deterministic pass, [N, C]."""


class Cut(Forward, Protocol):
    """A model that was cut at its stochastic frontier."""

    operators: tuple[int, int]  # before and behind the frontier
    modules: tuple[tuple[str, ...], tuple[str, ...]]  # before and behind it, by name, in their order
    folded: frozenset[int]  # indices of the layers whose masks went into a Linear
    bytes: int  # of weights that were copied for that

    def compile_for(self, rows: int | None) -> bool:
        """From now on, run batches of so many rows compiled; None: none. False: it has nothing to compile."""


def rows_first(x: Tensor, batch_dim: int, rows: int) -> Tensor:
    """x as [rows, …], where its dimension `batch_dim` has one entry for each row, or several that follow each other."""
    x = x.movedim(batch_dim, 0)
    return x if len(x) == rows else x.reshape(rows, -1)


class Network(Protocol):
    """A loaded model."""

    weights: str  # SHA-256 of its weights, 32 digits
    description: str  # beside its weights, what two runs of one model have in common
    code: str  # digest of the user's own Python in it; '' where there is none
    profile: Mapping[str, str | int]  # what else its last bits depend on (`engine/worker/profile.py`)

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

    def cut(self, probe: Probe, sample: Inputs, masks: Masks, build: Build) -> Cut:
        """The model in two parts. Comes after `whole`, with which it may share weights.

        Raises:
            Untraceable: with the reason.
        """

    def flops(self, run: Callable[[], object]) -> int:
        """Floating-point operations of this model's forwards during `run`."""
