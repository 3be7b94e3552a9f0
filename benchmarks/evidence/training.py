"""Training from scratch and measuring: the same seed gives the same weights on one machine.

Nothing is stopped by a validation set, which would be labels that nobody counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

TEST_ROWS = 1000  # in one forward
Loss = Callable[[Tensor, Tensor], Tensor]


class Recipe(Protocol):
    """How long to train with Adam, and on which rows."""

    @property
    def learning_rate(self) -> float: ...

    def batches(self, rows: int, device: torch.device) -> Sequence[Tensor]:
        """Places of the rows of every step, int64 each."""
        ...


@dataclass(frozen=True)
class Steps:
    """A fixed number of steps, whatever the number of labels. Rows are drawn as in BatchBALD: shuffled, and again when
    they are used up, so that a batch is full even where there are fewer labels than it holds."""

    steps: int
    batch: int = 32
    learning_rate: float = 1e-3

    def batches(self, rows: int, device: torch.device) -> Sequence[Tensor]:
        return torch.split(torch.randperm(self.steps * self.batch, device=device) % rows, self.batch)


@dataclass(frozen=True)
class Epochs:
    """Every row once an epoch, in an order of its own; the last batch of an epoch may be smaller."""

    epochs: int
    batch: int = 128
    learning_rate: float = 1e-3

    def batches(self, rows: int, device: torch.device) -> Sequence[Tensor]:
        return [part for _ in range(self.epochs) for part in torch.randperm(rows, device=device).split(self.batch)]


def train(
    network: Callable[[], nn.Module],
    x: Tensor,
    y: Tensor,
    recipe: Recipe,
    seed: int,
    loss: Loss = F.cross_entropy,
    l2: Mapping[str, float] | None = None,
) -> nn.Module:
    """A new network, trained on the labelled rows, in eval mode.

    Args:
        network: makes the network with new random weights.
        x, y: the labelled rows [N, …] and what is known of them [N] or [N, D], on the device to train on.
        seed: of weights, order and dropout.
        loss: of the network's output and `y`, the mean over the rows.
        l2: parameter → c, for c · Σ w² on top of the loss; every parameter where its name is ''.
    """
    with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
        torch.manual_seed(seed)
        model = network().to(x.device)
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = torch.optim.Adam(_groups(model, l2 or {}), lr=recipe.learning_rate)
        for batch in recipe.batches(len(y), x.device):
            optimizer.zero_grad()
            loss(model(x[batch]), y[batch]).backward()
            optimizer.step()
    return model.eval()


def _groups(model: nn.Module, l2: Mapping[str, float]) -> list[dict[str, object]]:
    """Adam adds weight_decay · w to the gradient, which is that of weight_decay / 2 · w²."""
    named = list(model.named_parameters())
    assert l2.keys() <= {"", *(name for name, _ in named)}, "no such parameter"
    return [{"params": [value], "weight_decay": 2 * l2.get(name, l2.get("", 0.0))} for name, value in named]


def save(model: nn.Module, file: Path) -> None:
    """Weights as poolscore reads them."""
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, file)


@torch.no_grad()
def outputs(model: nn.Module, x: Tensor) -> Tensor:
    """Of all rows [N, …], with dropout off."""
    return torch.cat([model(rows) for rows in x.split(TEST_ROWS)])


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Share of rows whose class is the network's first choice, with its dropout off."""
    return float((outputs(model, x).argmax(1) == y).double().mean())
