"""Small networks for the tests; also imported by Ray workers, through `model.path`."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from poolscore.engine.config import ImageDecode
from poolscore.engine.inputs.picture import decode_picture


def cnn(classes: int = 10, p: float = 0.3) -> nn.Module:
    """Grey pictures of 8x8; dropout of channels and of elements, BatchNorm between."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Dropout2d(p),
        nn.Flatten(),
        nn.Linear(8 * 36, 32),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(32, classes),
    )


def mlp(inputs: int, outputs: int, p: float = 0.5) -> nn.Module:
    """Features → outputs."""
    return nn.Sequential(nn.Linear(inputs, 16), nn.ReLU(), nn.Dropout(p), nn.Linear(16, outputs))


class TwoInputs(nn.Module):
    """Token ids and numbers, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 8)
        self.drop = nn.Dropout(0.4)
        self.head = nn.Linear(8 + 2, 3)

    def forward(self, tokens: Tensor, numbers: Tensor) -> Tensor:
        return self.head(self.drop(torch.cat([self.embed(tokens).mean(1), numbers], 1)))


def softmaxed() -> nn.Module:
    return nn.Sequential(cnn(), nn.Softmax(-1))


def no_dropout(inputs: int = 64, outputs: int = 10) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, outputs))


def not_a_model() -> dict[str, int]:
    return {"answer": 42}


def broken(classes: int = 10) -> nn.Module:
    raise ValueError(f"no weights\nfor {classes} classes")


def drops_all() -> nn.Module:
    return cnn(p=1.0)


def unpooled() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.Dropout(0.5))


def two_answers() -> nn.Module:
    class Both(nn.Sequential):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return super().forward(x), x

    return Both(*cnn())


def dropout_aside() -> nn.Module:
    """Its dropout does not reach its output."""

    class Aside(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            nn.functional.dropout(x)
            return super().forward(x)

    return Aside(nn.Flatten(), nn.Linear(64, 10))


def only_in_fp32() -> nn.Module:
    """Writes what a Linear gives into a tensor of its input's type, which fails under autocast."""

    class Scatter(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            h = super().forward(x)
            return x.new_zeros(h.shape).scatter_(1, torch.zeros_like(h, dtype=torch.long), h)

    return Scatter(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 10))


def random_each_time() -> nn.Module:
    return cnn()


class BreaksGpu(nn.Sequential):
    """As on a GPU after an index out of range: once it has seen a row that begins with 70, it fails on everything."""

    broken = False  # of the process

    def forward(self, x: Tensor) -> Tensor:
        BreaksGpu.broken |= bool((x[:, 0] == 70).any())
        if BreaksGpu.broken:
            raise RuntimeError("CUDA error: device-side assert triggered")
        return super().forward(x)


def breaks_gpu() -> nn.Module:
    return BreaksGpu(*mlp(2, 3))


def lethal(value: dict[str, Any]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """A decode function: kills its process on rows whose 'kill' names a file, until that file has `lives` lines."""
    marker, lives = value["kill"], value["lives"]
    if marker and (not Path(marker).exists() or len(Path(marker).read_text().splitlines()) < lives):
        with Path(marker).open("a") as file:
            file.write("killed\n")
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(10)
    return np.asarray(value["x"], dtype=np.float32)


def slow_digit(value: bytes) -> np.ndarray[Any, np.dtype[np.float32]]:
    """A decode function for PNG digits that takes as many seconds as the environment says."""
    time.sleep(float(os.environ.get("SLOW_DIGIT", "0")))
    return decode_picture(value, ImageDecode(mode="L")).transpose(2, 0, 1).astype(np.float32) / 255
