"""From files to scores on one worker: JPEGs of two sizes and uint8 tensors; and who decodes JPEGs how fast."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import import_module
from io import BytesIO
from pathlib import Path

import simplejpeg
import torch
import yaml
from PIL import Image

from gpu_parts.jobs import IMAGENET, RESNET, jpegs, write_jpegs, write_tensors
from gpu_parts.part import Result, figure
from poolscore.engine.machine.cores import usable_cores as cores
from poolscore.jobs.bench.sweep import Asked, run_bench

EDGE = {"cuda": 224, "cpu": 32}  # that the network sees
ROWS = {"cuda": 20_000, "cpu": 8}  # of a round
PASSES = {"cuda": 100, "cpu": 3}
NOISE = {375: 9.0, 256: 5.0}  # by the height: JPEGs of about 110 KB and 20 KB
TO_REACH = 10_400  # images/s from the small ones
# The model by itself: 28,000 rows/s (`networks.resnet`). Decoding on 16 cores: 1,563 images/s a core at 500x375 and, by
# pixels, 4,500 at 256x256 (../shared/NOTES.md, section 3), less a third for resizing, waiting and the rest of the work.
PREDICTED = {375: (16_000, "decode"), 256: (25_000, "suffix"), 0: (25_000, "suffix")}
DECODED = {"cuda": 2048, "cpu": 16}  # pictures of each turn of `decoders`
DECODER_BATCH = 256
PREDICTED_DECODERS = {"simplejpeg, all cores": 25_000, "nvJPEG": 15_000}  # at 500x375
PICTURE = (375, 500)


def end_to_end(device: str, folder: Path, height: int, width: int) -> Result:
    """ResNet-50 at T=100 from a local pool: images/s, the GPU's idle share, the stage that bounds.

    Args:
        height, width: of the JPEGs; 0: uint8 tensors.
    """
    edge, rows = EDGE[device], ROWS[device]
    pool = {"uri": str(folder / "pool"), "id": "id"}
    if height:
        each = write_jpegs(folder / "pool", rows, height, width, NOISE[height])
        decode = {"kind": "image", "resize": edge, "crop": edge, **IMAGENET}
        section = {**pool, "input": "image", "decode": decode}
    else:
        each = 3.0 * edge * edge
        write_tensors(folder / "pool", rows, edge)
        decode = {"kind": "tensor", "shape": [3, edge, edge], "mean": [127.5], "std": [64.0]}
        section = {**pool, "input": "pixels", "decode": decode}
    config = {
        "pool": section,
        "model": {"source": RESNET[device], "task": "multiclass", "classes": 1000},
        "passes": {"count": PASSES[device], "precision": "bf16" if device == "cuda" else "fp32"},
        "select": {"k": 1},
        "shortlist": {"rows": 0},
        "run": {"dir": str(folder / "run"), "shard_rows": rows // 4, "verify_rows": 0}
        | {"device": device, "batch_size": "auto" if device == "cuda" else 2},
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(config))
    found = run_bench(Asked(str(folder / "job.yaml"), rows=rows, rounds=3 if device == "cuda" else 1))
    point = found["points"][0]
    rate, bound = PREDICTED[height]
    to_reach = f">= {TO_REACH}" if height == 256 else ""
    lines = [
        figure(f"T={point['passes']}, batch {point['batch']}", point["rows_per_second"], "images/s", rate, to_reach),
        figure("the model by itself", point["model_rows_per_second"], "images/s", 28_000),
        figure("GPU idle", point["idle_share"], "", 0.4 if height == 375 else 0.1),
        figure("bounded by", point["bounded_by"], "", bound),
        figure("a picture", round(each / 1e3, 1), "KB", {375: 110, 256: 20}.get(height)),
    ]
    return {"ok": not point["rejected"], "figures": lines, "cores": cores(), **point}


def decoders(device: str, folder: Path) -> Result:
    """nvJPEG (through torchvision) and decoders of the CPU side by side, images/s from bytes to uint8 tensors."""
    pictures = (jpegs(64, *PICTURE, NOISE[375]) * DECODED["cuda"])[: DECODED[device]]
    ways: dict[str, Callable[[Sequence[bytes]], object]] = {
        "simplejpeg, one core": lambda data: [simplejpeg.decode_jpeg(one, colorspace="RGB") for one in data],
        "simplejpeg, all cores": partial(_on_all_cores, partial(simplejpeg.decode_jpeg, colorspace="RGB")),
        "Pillow, all cores": partial(_on_all_cores, _pillow),
    }
    missing = ""
    try:
        ways["nvJPEG"] = _nvjpeg(device, pictures[0])
    except (ImportError, RuntimeError, AttributeError) as error:  # torchvision without CUDA, or none
        missing = f"{type(error).__name__}: {error}".splitlines()[0]
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(4):
        for name, way in ways.items():
            some = pictures[: len(pictures) // 8] if name.endswith("one core") else pictures
            started = time.perf_counter()
            way(some)
            if turn:
                rates[name].append(len(some) / (time.perf_counter() - started))
    best = {name: round(sorted(values)[len(values) // 2], 1) for name, values in rates.items()}
    lines = [figure(name, rate, "images/s", PREDICTED_DECODERS.get(name)) for name, rate in best.items()]
    if missing:
        lines.append(figure("nvJPEG", f"not here ({missing[:80]})"))
    return {"ok": True, "figures": lines, "height_width": PICTURE, "bytes": len(pictures[0]), "cores": cores()}


def _on_all_cores(decode: Callable[[bytes], object], pictures: Sequence[bytes]) -> None:
    with ThreadPoolExecutor(cores()) as threads:
        for _ in threads.map(decode, pictures):
            pass


def _pillow(data: bytes) -> object:
    return Image.open(BytesIO(data)).convert("RGB").tobytes()


def _nvjpeg(device: str, picture: bytes) -> Callable[[Sequence[bytes]], object]:
    """Batches of encoded pictures → tensors on the GPU; tried on one picture.

    Raises:
        ImportError, RuntimeError, AttributeError: it is not here.
    """
    decode_jpeg = import_module("torchvision.io").decode_jpeg
    if device != "cuda":
        raise RuntimeError("it needs a GPU")

    def decode(pictures: Sequence[bytes]) -> None:
        for start in range(0, len(pictures), DECODER_BATCH):
            batch = [torch.frombuffer(bytearray(one), dtype=torch.uint8) for one in pictures[start:][:DECODER_BATCH]]
            decode_jpeg(batch, device="cuda")
        torch.cuda.synchronize()

    decode([picture])
    return decode


large_jpegs = partial(end_to_end, height=375, width=500)
small_jpegs = partial(end_to_end, height=256, width=256)
tensors = partial(end_to_end, height=0, width=0)
