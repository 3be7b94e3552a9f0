"""Pools and jobs that the parts share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import simplejpeg
import torch
from torch import nn

from gpu_parts.part import BENCHMARKS
from poolscore.engine import Config, parse_config
from poolscore.jobs.bench.pools import PAGE_ROWS, QUALITY, drawn

EDGE = 32  # of the small pictures
DISTINCT = 512  # JPEGs of a pool that differ
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
RESNET = {  # a smaller one in a dry run
    "cuda": "poolscore.jobs.bench.networks:resnet50",
    "cpu": "poolscore.jobs.bench.networks:resnet18",
}


def network() -> nn.Module:
    """A convolutional net on colour pictures of 32x32, dropout before its head; the weights come from a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 32, 3, padding=1),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Dropout(0.5),
            nn.Linear(64 * 16, 100),
        )


def small_job(uri: Path, run_dir: Path, device: str, rows: int, **sections: dict[str, Any]) -> Config:
    """A job of `network` over a pool of `write_tensors` of so many rows, in five shards; sections can be changed."""
    base: dict[str, dict[str, Any]] = {
        "pool": {
            "uri": str(uri),
            "input": "pixels",
            "id": "id",
            "decode": {"kind": "tensor", "shape": [3, EDGE, EDGE], "mean": [127.5], "std": [64.0]},
        },
        "model": {"source": "gpu_parts.jobs:network", "path": str(BENCHMARKS), "task": "multiclass"},
        "passes": {"count": 20},
        "select": {"k": 100},
        "run": {
            "dir": str(run_dir),
            "executor": "local",
            "device": device,
            "batch_size": 256 if device == "cuda" else 32,
            "shard_rows": -(-rows // 5),
        },
    }
    return parse_config({name: {**base.get(name, {}), **sections.get(name, {})} for name in {**base, **sections}})


def write_tensors(folder: Path, rows: int, edge: int = EDGE) -> Path:
    """A pool of random pictures as uint8 tensors."""
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, rows * 3 * edge * edge, dtype=np.uint8)
    column = pa.FixedSizeListArray.from_arrays(pa.array(pixels), 3 * edge * edge)
    table = pa.table({"id": pa.array(range(rows), pa.int64()), "pixels": column})
    pq.write_table(table, folder / "part-0.parquet", row_group_size=max(1, rows // 10), compression="none")
    return folder


def jpegs(count: int, height: int, width: int, noise: float) -> list[bytes]:
    """Pictures that differ, of a fixed seed."""
    rng = np.random.default_rng(0)
    return [simplejpeg.encode_jpeg(drawn(rng, height, width, noise), QUALITY) for _ in range(count)]


def write_jpegs(folder: Path, rows: int, height: int, width: int, noise: float) -> float:
    """A pool of JPEGs in four files, as `poolscore pack` writes it. Returns the bytes of a picture, about."""
    folder.mkdir(parents=True)
    pictures = jpegs(min(rows, DISTINCT), height, width, noise)
    each = sum(map(len, pictures)) / len(pictures)
    step = -(-rows // 4)
    for start in range(0, rows, step):
        numbers = range(start, min(rows, start + step))
        images = pa.array([pictures[i % len(pictures)] for i in numbers], pa.binary())
        table = pa.table({"id": [f"picture-{i:08d}" for i in numbers], "image": images})
        pq.write_table(
            table,
            folder / f"part-{start:09d}.parquet",
            row_group_size=max(1, min(rows // 16, int(32e6 / each))),
            compression="none",
            use_dictionary=False,
            write_batch_size=PAGE_ROWS,
        )
    return each
