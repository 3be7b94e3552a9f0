"""The UCI regression sets with the 20 splits of the MC-dropout paper, as `../shared/data/uci` keeps them."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Table:
    """N rows of D features and one target, and the test rows of each split."""

    x: Floats  # [N, D]
    y: Floats  # [N, 1]
    tests: list[NDArray[np.int64]]

    def training(self, split: int) -> NDArray[np.int64]:
        """The other rows of a split."""
        return np.setdiff1d(np.arange(len(self.x)), self.tests[split])


def read_uci(folder: Path) -> Table:
    """One of the sets."""
    with gzip.open(folder / "data.txt.gz", "rt") as file:
        data = np.loadtxt(file, dtype=np.float32)
    features, target = (np.loadtxt(folder / f"index_{of}.txt").astype(int) for of in ("features", "target"))
    with gzip.open(folder / "test_splits.txt.gz", "rt") as file:
        tests = [np.array(line.split(), float).astype(np.int64) for line in file if line.strip()]
    return Table(data[:, features], data[:, [int(target)]], tests)


def scale_of(values: Floats) -> tuple[Floats, Floats]:
    """Mean and standard deviation of every column; 1 where a column is constant."""
    std = values.std(0)
    return values.mean(0), np.where(std == 0, np.float32(1), std)
