"""The networks of the experiments, as their authors published them."""

from __future__ import annotations

from torch import nn


def batchbald_cnn() -> nn.Sequential:
    """The MNIST network of Kirsch et al. 2019 (BlackHC/BatchBALD, mnist_model.py): float32 [N, 1, 28, 28] → [N, 10].

    Whole channels are dropped behind the convolutions, and every p is 0.5.
    """
    return nn.Sequential(
        nn.Conv2d(1, 32, 5),
        nn.Dropout2d(0.5),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(32, 64, 5),
        nn.Dropout2d(0.5),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64 * 4 * 4, 128),
        nn.Dropout(0.5),
        nn.ReLU(),
        nn.Linear(128, 10),
    )
