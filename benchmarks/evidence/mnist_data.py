"""MNIST as its files give it, and Repeated-MNIST."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poolscore.jobs.pack.idx import open_idx

MEAN, STD = 0.1307, 0.3081
BLOCK = 10_000  # rows

Images = NDArray[np.float32]  # [N, 1, 28, 28], normalised
Classes = NDArray[np.int64]  # [N]


def read_mnist(folder: Path, part: str) -> tuple[Images, Classes]:
    """The normalised images and their digits; `part` is train or t10k."""
    images, digits = read_mnist_bytes(folder, part)
    x = (images.astype(np.float32) / 255 - MEAN) / STD
    return x.astype(np.float32, copy=False), digits


def read_mnist_bytes(folder: Path, part: str) -> tuple[NDArray[np.uint8], Classes]:
    """The images [N, 1, 28, 28] as they lie there."""
    images, digits = (_read(folder / f"{part}-{kind}-ubyte.gz") for kind in ("images-idx3", "labels-idx1"))
    return images[:, None], digits.astype(np.int64)


def repeated(x: Images, y: Classes, images: int, copies: int, sigma: float) -> tuple[Images, Classes]:
    """Copies of a random part of the images, each with Gaussian noise of its own (Kirsch et al. 2019). Row i is a copy
    of image i modulo `images`. The part and the noise are the same whenever they are asked for."""
    rng = np.random.default_rng(0)
    part = rng.permutation(len(x))[:images]
    noise = rng.standard_normal((copies * images, *x.shape[1:]), np.float32) * np.float32(sigma)
    return np.tile(x[part], (copies, 1, 1, 1)) + noise, np.tile(y[part], copies)


def balanced(y: Classes, each: int, seed: int) -> list[int]:
    """Places of `each` random rows of every class."""
    rng = np.random.default_rng(seed)
    return [int(i) for c in np.unique(y) for i in rng.choice(np.flatnonzero(y == c), each, replace=False)]


def _read(path: Path) -> NDArray[Any]:
    return np.concatenate(list(open_idx(path).blocks(BLOCK)))
