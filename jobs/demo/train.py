"""Train the demonstration's network; an ordinary training loop."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import save_file

from poolscore.jobs.demo.model import digits_cnn


def train(pictures: NDArray[np.uint8], digits: NDArray[np.int64], out: Path, epochs: int, seed: int = 0) -> None:
    """Fit `digits_cnn` with Adam and write its weights.

    Args:
        pictures: uint8 [N, 8, 8]; scaled to −1..1 as the configuration's decode does.
        digits: int64 [N].
        out: a .safetensors file.
        epochs: full passes, in batches of 32.
        seed: of weights, order and dropout.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = digits_cnn()
        x = (torch.from_numpy(pictures).float().div(255) - 0.5)[:, None] / 0.5
        y = torch.from_numpy(digits)
        optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
        for _ in range(epochs):
            for batch in torch.randperm(len(y)).split(32):
                optimizer.zero_grad()
                F.cross_entropy(model(x[batch]), y[batch]).backward()
                optimizer.step()
    save_file(model.state_dict(), out)
