"""The networks of the experiments, as their authors published them."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn


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


def gal_cnn() -> nn.Sequential:
    """The MNIST network of Gal et al. 2017, the CNN of Keras' examples of their time: float32 [N, 1, 28, 28] in 0..1 →
    [N, 10]. Weights begin as Keras' do: uniform by Glorot's rule, biases zero."""
    layers: dict[str, nn.Module] = {
        "conv1": nn.Conv2d(1, 32, 4),
        "relu1": nn.ReLU(),
        "conv2": nn.Conv2d(32, 32, 4),
        "relu2": nn.ReLU(),
        "pool": nn.MaxPool2d(2),
        "dropout1": nn.Dropout(0.25),
        "flat": nn.Flatten(),
        "fc128": nn.Linear(32 * 11 * 11, 128),
        "relu3": nn.ReLU(),
        "dropout2": nn.Dropout(0.5),
        "fc10": nn.Linear(128, 10),
    }
    return _as_in_keras(nn.Sequential(OrderedDict(layers)))


def uci_net(features: int, dropout: float, hidden: int = 50) -> nn.Sequential:
    """The regression network of Gal & Ghahramani 2016 (yaringal/DropoutUncertaintyExps): float32 [N, features] →
    [N, 1], with dropout before both layers."""
    layers: dict[str, nn.Module] = {
        "dropout1": nn.Dropout(dropout),
        "first": nn.Linear(features, hidden),
        "relu": nn.ReLU(),
        "dropout2": nn.Dropout(dropout),
        "last": nn.Linear(hidden, 1),
    }
    return _as_in_keras(nn.Sequential(OrderedDict(layers)))


def vehicle_cnn() -> nn.Sequential:
    """A small network for colour pictures: float32 [N, 3, 48, 48] → [N, 3]."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.25),
        nn.Linear(64 * 6 * 6, 64),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(64, 3),
    )


def relevance_net(features: int, dropout: float) -> nn.Sequential:
    """Two hidden layers: float32 [N, features] → [N, 1], the logit of being relevant."""
    return nn.Sequential(
        nn.Linear(features, 64),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(64, 64),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(64, 1),
    )


def moons_net() -> nn.Sequential:
    """Points of the plane: float32 [N, 2] → [N, 2]."""
    return nn.Sequential(
        nn.Linear(2, 128),
        nn.ReLU(),
        nn.Dropout(0.25),
        nn.Linear(128, 128),
        nn.ReLU(),
        nn.Dropout(0.25),
        nn.Linear(128, 2),
    )


class IntentNet(nn.Module):
    """The sum of a text's word vectors over the root of their number, and two layers: int64 [N, length] → [N, classes].
    Id 0 is padding."""

    def __init__(self, words: int, classes: int, width: int = 256, hidden: int = 128, dropout: float = 0.5) -> None:
        super().__init__()
        self.words = nn.Embedding(words, width, padding_idx=0)
        self.first, self.last = nn.Linear(width, hidden), nn.Linear(hidden, classes)
        self.dropout1, self.dropout2 = nn.Dropout(dropout / 2), nn.Dropout(dropout)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Logits [N, classes]."""
        lengths = (input_ids != 0).sum(1, keepdim=True).clamp(min=1)
        text = self.words(input_ids).sum(1) / lengths.sqrt()
        logits: Tensor = self.last(self.dropout2(torch.relu(self.first(self.dropout1(text)))))
        return logits


def _as_in_keras(network: nn.Sequential) -> nn.Sequential:
    for layer in network:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
    return network
