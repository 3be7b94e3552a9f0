"""The training of `jobs/examples/loop.yaml`: digits_cnn on the labels so far, and its accuracy on digits set aside."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file

from poolscore.jobs.demo import read_digits
from poolscore.jobs.demo.model import digits_cnn
from poolscore.jobs.demo.train import train as fit

POOL = 1297  # digits of the pool; the other 500 are for testing


def train(labelled: Path, out: Path, round: int, seed: int) -> dict[str, float]:  # noqa: A002
    """What a loop calls: weights go into `out`, and metrics are returned."""
    table = pq.read_table(labelled)
    pictures = np.stack([np.asarray(Image.open(io.BytesIO(png))) for png in table["image"].to_pylist()])
    torch.set_num_threads(1)  # a small network is quicker so, and this process does nothing else
    fit(pictures, np.array(table["label"].to_pylist()), out / "weights.safetensors", epochs=40, seed=seed)
    return {"accuracy": accuracy(out / "weights.safetensors")}


def accuracy(weights: Path) -> float:
    """On the digits that are in no pool."""
    pictures, digits = read_digits()
    model = digits_cnn()
    model.load_state_dict(load_file(weights))
    with torch.no_grad():
        predicted = model.eval()(_scaled(pictures[POOL:])).argmax(1).numpy()
    return float((predicted == digits[POOL:]).mean())


def _scaled(pictures: NDArray[np.uint8]) -> torch.Tensor:
    """As `decode` of the configuration does it."""
    return (torch.from_numpy(pictures).float().div(255) - 0.5)[:, None] / 0.5
