"""The pools and the weights of a comparison, in a folder: by the parent, from fixed seeds."""

from __future__ import annotations

import gzip
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from workloads import CLASSES, FEATURES, JPEG_PIXELS, LENGTH, VOCABULARY, WORKLOADS, pool_file

from poolscore.jobs.bench.pools import drawn

LABELLED = 200  # rows that a network is trained on
EPOCHS = 20


def write_subject(name: str, folder: Path, data: Path, sizes: Sequence[int]) -> None:
    """Pools of the first so many rows, and the network's weights.

    Args:
        name: of the workload.
        data: folder of MNIST; where it is missing, the small CNN's pictures are random.
    """
    workload = WORKLOADS[name]
    table, classes = _rows(name, max(sizes) + LABELLED, data)
    for rows in sizes:
        file = pool_file(folder, rows)
        file.parent.mkdir(parents=True)
        pq.write_table(table[:rows], file, row_group_size=4096, compression="none", use_dictionary=False)
    torch.manual_seed(0)
    network = workload.network()
    if classes is not None:
        train(network, workload.decode(table[-LABELLED:]), torch.from_numpy(classes[-LABELLED:]))
    torch.save(network.state_dict(), folder / "weights.pt")


def train(network: torch.nn.Module, x: Tensor, y: Tensor) -> None:
    """So that BALD means something: for a few seconds, by Adam."""
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    network.train()
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(y)).split(32):
            optimizer.zero_grad()
            F.cross_entropy(network(x[batch]), y[batch]).backward()
            optimizer.step()


def _rows(name: str, count: int, data: Path) -> tuple[pa.Table, NDArray[np.int64] | None]:
    """Columns, and classes to train on: digits, or what a row's numbers say; None: the weights stay random."""
    rng = np.random.default_rng(0)
    classes: NDArray[np.int64] | None = None
    if name == "cnn":
        pixels, classes = _digits(count, data)
        columns = {"pixels": _lists(pixels)}
    elif name == "resnet50":
        columns = {"image": pa.array([_jpeg(drawn(rng, JPEG_PIXELS, JPEG_PIXELS)) for _ in range(count)], pa.binary())}
    elif name == "transformer":
        tokens = rng.integers(0, VOCABULARY, (count, LENGTH))
        columns, classes = {"tokens": _lists(tokens)}, tokens[:, 0] % CLASSES
    else:
        values = rng.standard_normal((count, FEATURES), dtype=np.float32)
        columns, classes = {f"f{i}": pa.array(values[:, i]) for i in range(FEATURES)}, values[:, :CLASSES].argmax(1)
    return pa.table({"id": np.arange(count), **columns}), classes


def _digits(count: int, data: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    images, labels = data / "train-images-idx3-ubyte.gz", data / "train-labels-idx1-ubyte.gz"
    if not (images.exists() and labels.exists()):
        rng = np.random.default_rng(0)
        return rng.integers(0, 256, (count, 28, 28), dtype=np.uint8), rng.integers(0, CLASSES, count)
    pixels = np.frombuffer(gzip.decompress(images.read_bytes()), np.uint8, offset=16).reshape(-1, 28, 28)
    classes = np.frombuffer(gzip.decompress(labels.read_bytes()), np.uint8, offset=8)
    return pixels[:count], classes[:count].astype(np.int64)


def _lists(rows: NDArray[np.generic]) -> pa.Array:
    values = rows.reshape(len(rows), -1)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])


def _jpeg(picture: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "jpeg", quality=90)
    return buffer.getvalue()
