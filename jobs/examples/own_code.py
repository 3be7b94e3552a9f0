"""What a user brings: a network with dropout, and a function that reads a row. Named in the configuration of own.py."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import nn


def network(classes: int) -> nn.Module:
    """A factory: [N, 1, 8, 8] → logits [N, classes]. Called in every process; the weights come from a file."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.3), nn.Linear(128, classes))


def read_row(value: bytes) -> NDArray[np.float32]:
    """64 bytes of grey → [1, 8, 8] in [-1, 1]. What it raises sets the row aside, with the message."""
    if len(value) != 64:
        raise ValueError(f"{len(value)} bytes, not 64")
    return (np.frombuffer(value, np.uint8).reshape(1, 8, 8) / 127.5 - 1).astype(np.float32)
