"""Pools to measure with: made up, of a fixed seed, and of about the bytes that real rows have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import simplejpeg
from numpy.typing import NDArray

from poolscore.jobs.bench.subjects import Subject

DISTINCT = 512  # rows that differ; each is used again under another id
QUALITY = 90  # of JPEGs
FILES = 4
GROUP_BYTES = 32 << 20  # of a row group, about
PAGE_ROWS = 8  # as `poolscore pack` writes them
NOISE = 12.0  # of 255, which gives about the bytes of a photograph


def write_pool(folder: Path, subject: Subject, rows: int, height: int, width: int) -> float:
    """Write `rows` rows that the subject takes; pictures are `height` x `width` where they are JPEGs.

    Returns:
        Bytes of a row, about.
    """
    folder.mkdir(parents=True)
    table = pa.table(_columns(subject, min(rows, DISTINCT), height, width))
    each: float = table.nbytes / table.num_rows
    order = np.arange(rows) % table.num_rows
    step = -(-rows // FILES)
    for start in range(0, rows, step):
        part = table.take(pa.array(order[start : start + step]))
        ids = pa.array([f"row-{start + i:09d}" for i in range(part.num_rows)])
        pq.write_table(
            part.append_column("id", ids),
            folder / f"part-{start:09d}.parquet",
            row_group_size=max(1, int(GROUP_BYTES / each)),
            compression="none",
            use_dictionary=False,
            write_batch_size=PAGE_ROWS if each > 1000 else 1024,
        )
    return each


def _columns(subject: Subject, rows: int, height: int, width: int) -> dict[str, pa.Array]:
    rng = np.random.default_rng(0)
    match subject.kind:
        case "jpeg":
            pictures = (drawn(rng, height, width) for _ in range(rows))
            return {"image": pa.array([simplejpeg.encode_jpeg(picture, QUALITY) for picture in pictures], pa.binary())}
        case "pixels":
            size = 3 * subject.size**2
            pixels = pa.array(rng.integers(0, 256, rows * size, dtype=np.uint8))
            return {"pixels": pa.FixedSizeListArray.from_arrays(pixels, size)}
        case "tokens":
            lengths = rng.integers(subject.size // 4, subject.size + 1, rows)
            return {"tokens": pa.array([rng.integers(1000, 30_000, n) for n in lengths], pa.list_(pa.int64()))}
        case "features":
            values = rng.standard_normal((subject.size, rows), dtype=np.float32)
            return {f"f{i}": pa.array(column) for i, column in enumerate(values)}


def drawn(rng: np.random.Generator, height: int, width: int, noise: float = NOISE) -> NDArray[np.uint8]:
    """Smooth colours with some noise (of 255), uint8 [height, width, 3]."""
    small = rng.integers(0, 256, (height // 16 + 2, width // 16 + 2, 3))
    large = np.kron(small, np.ones((16, 16, 1)))[:height, :width]
    return np.clip(large + rng.normal(0, noise, large.shape), 0, 255).astype(np.uint8)
