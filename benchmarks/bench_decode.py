"""Decoding pictures on one core: ours beside a bare loop of simplejpeg; and what the inexact methods change.

    python benchmarks/bench_decode.py --out benchmarks/results/decode.json
    python benchmarks/bench_decode.py --photos ../shared/data/photos/photos.parquet   # the methods, on real ones

For 64x64 and 500x375: microseconds of CPU per picture, medians of rounds taken in turn, and images/s of one core. The
bare loop decodes each file straight into its place in one array: nothing less can be done. Ours does the same from an
Arrow column, with null and size checked, and each bad file set aside. What is resized is resized by Pillow, unless the
row says near or scaled (`decode.method`).
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import simplejpeg
import torch
from numpy.typing import NDArray
from PIL import Image

from poolscore.engine.config import ImageDecode
from poolscore.engine.inputs.image import ImageDecoder
from poolscore.jobs.bench.environment import environment

SIZES = {(64, 64): 2000, (375, 500): 100}  # height and width → pictures in a round
RESIZE = 224
ROUNDS = 15
Pixels = NDArray[np.uint8]


def jpeg(height: int, width: int, seed: int) -> bytes:
    """Smooth, with as much noise as gives the file a photograph's size."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
    noisy = np.clip(smooth + random.normal(0, 6, (height, width, 3)), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(noisy).save(file, "JPEG", quality=85)
    return file.getvalue()


def bare(files: list[bytes], out: Pixels) -> None:
    for i, file in enumerate(files):
        simplejpeg.decode_jpeg(file, "RGB", buffer=out[i])


def bare_resized(files: list[bytes], out: Pixels) -> None:
    for i, file in enumerate(files):
        picture = Image.fromarray(simplejpeg.decode_jpeg(file, "RGB"))
        out[i] = np.asarray(picture.resize((RESIZE, RESIZE), Image.Resampling.BILINEAR))


def pillow(files: list[bytes], out: Pixels) -> None:
    for i, file in enumerate(files):
        out[i] = np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))


def ours(files: list[bytes], out: Pixels, **decode: Any) -> Callable[[], None]:
    """A call that decodes them all, out of an Arrow column."""
    table = pa.table({"image": pa.array(files, pa.binary())})
    decoder = ImageDecoder(ImageDecode(column="image", **decode))

    def run() -> None:
        assert decoder.decode(table, out) == {}

    return run


def cpu_us(contestants: dict[str, Callable[[], object]], pictures: int) -> dict[str, float]:
    """Median CPU microseconds of a picture; the contestants run in turn."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(ROUNDS + 1):
        for name, run in contestants.items():
            started = time.process_time()
            run()
            if turn:
                times[name].append((time.process_time() - started) / pictures * 1e6)
    return {name: statistics.median(values) for name, values in times.items()}


def measure(height: int, width: int, pictures: int) -> dict[str, Any]:
    files = [jpeg(height, width, seed) for seed in range(50)] * (pictures // 50)
    whole = np.zeros((len(files), height, width, 3), np.uint8)
    small = np.zeros((len(files), RESIZE, RESIZE, 3), np.uint8)
    contestants: dict[str, Callable[[], object]] = {
        "simplejpeg, bare loop": lambda: bare(files, whole),
        "ours": ours(files, whole),
        "ours, exif applied": ours(files, whole, exif="apply"),
        "Pillow, bare loop": lambda: pillow(files, whole),
    }
    if height > RESIZE:
        contestants |= {
            "simplejpeg, bare loop, resized": lambda: bare_resized(files, small),
            "ours, resized": ours(files, small, resize=(RESIZE, RESIZE)),
            "ours, resized, near": ours(files, small, resize=(RESIZE, RESIZE), method="near"),
            "ours, resized, scaled": ours(files, small, resize=(RESIZE, RESIZE), method="scaled"),
        }
    found = cpu_us(contestants, len(files))
    floor = found["simplejpeg, bare loop"]
    print(f"{width}x{height}, {len(files[0])} bytes")
    for name, us in found.items():
        print(f"  {name:32} {us:9.1f} us {1e6 / us:9.0f} images/s  {us / floor:5.2f}x")
    return {"height": height, "width": width, "bytes": len(files[0]), "cpu_us": found}


def effect_of_methods(photos: Path) -> list[dict[str, Any]]:
    """What the inexact methods change in the pixels of real photographs, in steps of 0..255, and what they gain."""
    files = pq.read_table(photos, columns=["image"])["image"].to_pylist()
    rows = []
    for size in (64, 128, RESIZE):
        outs = {name: np.zeros((len(files), size, size, 3), np.uint8) for name in ("exact", "near", "scaled")}
        runs: dict[str, Callable[[], object]] = {
            name: ours(files, out, resize=(size, size), method=name) for name, out in outs.items()
        }
        us = cpu_us(runs, len(files))
        for name in ("near", "scaled"):
            difference = np.abs(outs["exact"].astype(np.int16) - outs[name])
            row = {
                "size": size,
                "method": name,
                "cpu_us": us[name],
                "exact_cpu_us": us["exact"],
                "mean": float(difference.mean()),
                "rms": float(np.sqrt((difference.astype(np.float64) ** 2).mean())),
                "max": int(difference.max()),
            }
            rows.append(row)
            print(
                f"{name} at {size}: {us['exact']:.0f} → {us[name]:.0f} us; difference mean {row['mean']:.3f}, rms "
                f"{row['rms']:.3f}, max {row['max']}, in {len(files)} photographs"
            )
    return rows


def main() -> None:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    result: dict[str, Any] = {"environment": environment(), "sizes": [measure(*s, n) for s, n in SIZES.items()]}
    if asked.photos is not None:
        result["methods"] = effect_of_methods(asked.photos)
    if asked.out is not None:
        asked.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
