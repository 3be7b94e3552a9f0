"""Training from scratch and measuring: the same seed gives the same weights on one machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TEST_ROWS = 1000  # in one forward


@dataclass(frozen=True)
class Recipe:
    """A fixed number of steps of Adam, whatever the number of labels: nothing is stopped by a validation set, which
    would be labels that nobody counts."""

    steps: int
    batch: int = 32
    learning_rate: float = 1e-3


def train(network: Callable[[], nn.Module], x: Tensor, y: Tensor, recipe: Recipe, seed: int) -> nn.Module:
    """A new network, trained on the labelled rows, in eval mode.

    Rows are drawn as in BatchBALD: shuffled, and again from the start when they are used up, so that a batch is full
    even where there are fewer labels than it holds.

    Args:
        network: makes the network with new random weights.
        x, y: the labelled rows [N, …] and their classes, int64 [N], on the device to train on.
        seed: of weights, order and dropout.
    """
    with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
        torch.manual_seed(seed)
        model = network().to(x.device)
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = torch.optim.Adam(model.parameters(), lr=recipe.learning_rate)
        places = torch.randperm(recipe.steps * recipe.batch, device=x.device) % len(y)
        for batch in places.split(recipe.batch):
            optimizer.zero_grad()
            F.cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
    return model.eval()


@torch.no_grad()
def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Share of rows whose class is the network's first choice, with its dropout off."""
    pairs = zip(x.split(TEST_ROWS), y.split(TEST_ROWS), strict=True)
    right = sum(int((model(rows).argmax(1) == classes).sum()) for rows, classes in pairs)
    return right / len(y)
