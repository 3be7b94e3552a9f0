"""Pools and a network for `bench_feed.py`: JPEGs, cut from the photos of ../shared/data or drawn, and a CNN so small
that feeding decides."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import simplejpeg
import torch
from numpy.typing import NDArray
from torch import nn

PHOTOS = Path(os.environ.get("POOLSCORE_DATA", Path(__file__).parents[2] / "shared" / "data")) / "photos/photos.parquet"
ARROW_PAGE, PACK_PAGE = 1024, 8  # rows that Arrow writes at least into a page: by default, and in `poolscore pack`
DISTINCT = 2000  # pictures of a pool that differ; each is used again under another id

Picture = NDArray[np.uint8]


def network() -> nn.Sequential:
    """Ten logits of any RGB picture; dropout before the head."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 5, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Dropout(), nn.Linear(128, 10)
    )


def write_pool(
    folder: Path, rows: int, height: int, width: int, group_rows: int, files: int = 4, page_rows: int = ARROW_PAGE
) -> Path:
    """`rows` JPEGs in so many files: columns id and image, uncompressed as they should be. A page ends at 1 MiB, which
    Arrow looks at after every `page_rows` rows."""
    folder.mkdir(parents=True)
    pictures = [simplejpeg.encode_jpeg(p, 90) for p in _pictures(min(rows, DISTINCT), height, width)]
    step = -(-rows // files)
    for file in range(files):
        numbers = range(file * step, min(rows, (file + 1) * step))
        images = pa.array([pictures[i % len(pictures)] for i in numbers], pa.binary())
        table = pa.table({"id": [f"picture-{i:08d}" for i in numbers], "image": images})
        pq.write_table(
            table,
            folder / f"{file:03d}.parquet",
            row_group_size=group_rows,
            compression="none",
            use_dictionary=False,
            write_batch_size=page_rows,
        )
    return folder


def write_weights(folder: Path) -> Path:
    """The network's weights as a checkpoint."""
    path = folder / "weights.pt"
    torch.save(network().state_dict(), path)
    return path


def _pictures(count: int, height: int, width: int) -> Iterator[Picture]:
    rng = np.random.default_rng(0)
    photos = _photos(height, width)
    for _ in range(count):
        if photos:
            photo = photos[int(rng.integers(len(photos)))]
            top = int(rng.integers(photo.shape[0] - height + 1))
            left = int(rng.integers(photo.shape[1] - width + 1))
            yield np.ascontiguousarray(photo[top : top + height, left : left + width])
        else:
            yield _drawn(rng, height, width)


def _photos(height: int, width: int) -> list[Picture]:
    if not PHOTOS.exists():
        return []
    table = pq.read_table(PHOTOS)
    column = next(f.name for f in table.schema if pa.types.is_binary(f.type) or pa.types.is_struct(f.type))
    photos = []
    for value in table[column].to_pylist():
        data = value["bytes"] if isinstance(value, dict) else value
        try:
            photo = simplejpeg.decode_jpeg(data, colorspace="RGB")
        except ValueError:
            continue
        if photo.shape[0] >= height and photo.shape[1] >= width:
            photos.append(photo)
    return photos


def _drawn(rng: np.random.Generator, height: int, width: int) -> Picture:
    """Smooth colours with some noise: about the bytes of a photograph."""
    small = rng.integers(0, 256, (height // 16 + 2, width // 16 + 2, 3))
    large = np.kron(small, np.ones((16, 16, 1)))[:height, :width]
    return np.clip(large + rng.normal(0, 12, large.shape), 0, 255).astype(np.uint8)
