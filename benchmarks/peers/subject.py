"""What every contestant scores: a small CNN, its weights and a pool of pictures. Plain torch, for any interpreter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

PASSES = 20  # T
MEAN, STD = 33.3, 78.6  # of MNIST, as 0 … 255
FRONTIER = 5  # layers of the network before its first dropout


def small_cnn() -> nn.Sequential:
    """[N, 1, 28, 28] → logits [N, 10]."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout(0.25),
        nn.Flatten(),
        nn.Linear(64 * 12 * 12, 128),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(128, 10),
    )


def load_network(folder: Path) -> nn.Sequential:
    """The network with the weights of this comparison."""
    network = small_cnn()
    network.load_state_dict(torch.load(folder / "weights.pt", weights_only=True))
    return network.eval().requires_grad_(False)


def load_pool(folder: Path) -> Tensor:
    """The pool as the network takes it: [N, 1, 28, 28] float32."""
    return as_input(np.load(folder / "pool.npy"))


def as_input(pixels: NDArray[np.uint8]) -> Tensor:
    """uint8 [N, 28, 28] → normalised [N, 1, 28, 28]."""
    return torch.from_numpy((pixels[:, None].astype(np.float32) - MEAN) / STD)
