"""ResNet-50 with dropout before its head: what T passes cost beside one, and beside repeating at the input."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from by_hand import DTYPES, loop
from resnet import export_onnx
from torch import Tensor

from poolscore.engine import PoolscoreError, parse_config, prepare_job
from poolscore.engine.prepare import Prepared
from poolscore.engine.worker.profile import numeric_settings
from poolscore.engine.worker.shard import Scorer
from poolscore.jobs.bench.networks import CLASSES, resnet50
from poolscore.jobs.bench.timing import interleaved_ms, medians

Precision = Literal["fp32", "bf16", "fp16"]
Batch = tuple[dict[str, Tensor], Tensor]  # inputs by name, bits of the rows' keys

PASSES = (1, 20, 100)  # T
REPEATED = 20  # the T that is also repeated at the input
GEMM_SIZE = {"cuda": 8192, "cpu": 2048}


def measure(
    device: str = "cpu",
    precision: Precision = "fp32",
    batch: int = 16,
    pixels: int = 224,
    repeats: int = 5,
    threads: int = 2,
    onnx: bool = False,
    by_hand: bool = False,
) -> dict[str, Any]:
    """Milliseconds of a batch under each way, scores included; ratios, FLOP/s, the GEMM roofline of the same minutes.

    Args:
        batch: rows. On a CPU repeating 64 of them takes minutes.
        pixels: edge of a picture.
        onnx: also the same model through ONNX Runtime, in fp32.
        by_hand: also a loop over the whole model, as it is and by torch.compile.
    """
    with tempfile.TemporaryDirectory() as folder, numeric_settings(threads):
        write_pool(Path(folder), batch, pixels)
        run = {"device": device, "batch_size": batch, "threads": threads}
        jobs: dict[str, Prepared] = {}
        for T in PASSES:
            jobs[f"split, T={T}"] = prepare(Path(folder), {"count": T, "precision": precision}, run)
        # In pieces of one pass: T passes of a batch in one tensor leave the caches and are slower for each row.
        one_pass_a_call = {"count": REPEATED, "precision": precision, "split": False, "rows_per_call": batch}
        jobs[f"repeated, T={REPEATED}"] = prepare(Path(folder), one_pass_a_call, run)
        why_not = add_onnx(jobs, Path(folder), run, pixels) if onnx else "not asked for"
        given = first_batch(jobs["split, T=1"])
        ways: dict[str, Callable[[], object]] = {name: partial(score, job.scorer, given) for name, job in jobs.items()}
        ways["the model, one pass"] = untouched(jobs["split, T=1"].scorer, given, device, precision)
        if by_hand:
            for how in ("", ", compiled"):
                (x,) = given[0].values()
                ways[f"a loop by hand{how}, T={REPEATED}"] = loop(
                    resnet50().to(device), x, precision, REPEATED, compiled=bool(how)
                )
        ways["gemm"] = gemm(device, precision)
        peaks = {name: peak_bytes(way) for name, way in ways.items()} if device == "cuda" else {}
        ms = medians(interleaved_ms(ways, repeats, warm_up=1, device=device))
        split, plain = (jobs[f"{way}, T={REPEATED}"].scorer.model for way in ("split", "repeated"))
        difference = float((split.logits(*given) - plain.logits(*given)).abs().max())
    flops = {name: job.cost.all_passes * batch for name, job in jobs.items()}
    flops["the model, one pass"] = jobs["split, T=1"].cost.one_pass * batch
    flops |= {name: flops["the model, one pass"] * REPEATED for name in ways if name.startswith("a loop")}
    flops["gemm"] = 2 * GEMM_SIZE[device] ** 3
    rate = {name: flops[name] / ms[name] / 1e6 for name in ms}
    return {
        "model": f"ResNet-50 at {pixels}x{pixels}, dropout 0.5 before its head of {CLASSES} classes",
        "device": device,
        "precision": precision,
        "batch": batch,
        "threads": threads,
        "ms": {name: round(value, 3) for name, value in ms.items()},
        "images_per_second": {name: round(batch / value * 1e3, 1) for name, value in ms.items() if name != "gemm"},
        "T=100 / T=1": round(ms["split, T=100"] / ms["split, T=1"], 3),
        "repeated / split, T=20": round(ms[f"repeated, T={REPEATED}"] / ms[f"split, T={REPEATED}"], 2),
        "GFLOP": {name: round(value / 1e9, 2) for name, value in flops.items()},
        "GFLOP_per_s": {name: round(value, 1) for name, value in rate.items()},
        "of_gemm": {name: round(value / rate["gemm"], 3) for name, value in rate.items() if name != "gemm"},
        "logits_MB": {f"T={T}": round(batch * T * CLASSES * 4 / 1e6, 2) for T in PASSES},
        "masks_MB": {name: round(job.mask_bytes / 1e6, 2) for name, job in jobs.items()},
        "peak_MiB_beside_the_weights": {name: round(value / 2**20, 1) for name, value in peaks.items()},
        "largest_difference_of_logits": difference,
        "compiled": {name: job.job.compiled is not None for name, job in jobs.items()},
        "onnx": why_not or "measured",
    }


def add_onnx(jobs: dict[str, Prepared], folder: Path, run: dict[str, Any], pixels: int) -> str:
    """The same jobs through ONNX Runtime; the reason, if that is not possible here."""
    try:
        source = export_onnx(folder / "resnet50.onnx", pixels)
        for T in PASSES:
            jobs[f"ONNX Runtime fp32, T={T}"] = prepare(folder, {"count": T}, run, source=str(source))
    except (ImportError, PoolscoreError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def prepare(
    folder: Path, passes: dict[str, Any], run: dict[str, Any], source: str = "poolscore.jobs.bench.networks:resnet50"
) -> Prepared:
    """A job on the pool of one batch.

    Raises:
        RuntimeError: the model was meant to be split and is not.
    """
    pixels = pq.read_schema(folder / "pool.parquet").metadata[b"pixels"]
    config = {
        "pool": {
            "uri": str(folder / "pool.parquet"),
            "input": "picture",
            "decode": {"kind": "tensor", "shape": [3, int(pixels), int(pixels)], "mean": [127.5], "std": [64.0]},
        },
        "model": {"source": source, "path": str(Path(__file__).parent), "task": "multiclass", "classes": CLASSES},
        "passes": passes,
        "select": {"k": 1},
        "run": {"dir": str(folder / "run"), "executor": "local", **run},
    }
    prepared = prepare_job(parse_config(config))
    because = prepared.job.repeat_because
    if because and passes.get("split", True):
        raise RuntimeError(f"the model is repeated: {because}")
    return prepared


def write_pool(folder: Path, rows: int, pixels: int) -> None:
    """One batch of random pictures."""
    values = np.random.default_rng(0).integers(0, 256, rows * 3 * pixels * pixels, dtype=np.uint8)
    column = pa.FixedSizeListArray.from_arrays(pa.array(values), 3 * pixels * pixels)
    table = pa.table({"picture": column}).replace_schema_metadata({"pixels": str(pixels)})
    pq.write_table(table, folder / "pool.parquet", compression="none")


def first_batch(job: Prepared) -> Batch:
    """The pool's pictures as the model takes them, on the device."""
    scorer = job.scorer
    rows = next(scorer.reader.blocks(job.plan.shards[0], job.config.run.batch_size))
    inputs, _ = scorer.decoder.decode(rows)
    return dict(inputs), scorer.decoder.padded_keys(rows)


def score(scorer: Scorer, batch: Batch) -> None:
    """From a batch of pictures to every score that so many passes allow."""
    scorer.statistics(scorer.model.logits(*batch))


def untouched(scorer: Scorer, batch: Batch, device: str, precision: Precision) -> Callable[[], object]:
    """The model as it is, once and without dropout, with the scores that one pass allows."""
    model, (x,) = resnet50().to(device), batch[0].values()

    @torch.no_grad()
    def once() -> None:
        with torch.autocast(device, dtype=DTYPES[precision], enabled=precision != "fp32"):
            logits_NC = model(x)
        scorer.statistics(logits_NC.float()[:, None])

    return once


def gemm(device: str, precision: Precision) -> Callable[[], object]:
    """A large matrix product: the roofline."""
    size, dtype = GEMM_SIZE[device], DTYPES[precision]
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return lambda: a @ b


def peak_bytes(way: Callable[[], object]) -> int:
    """Memory of the GPU that a call takes at its peak, beside what is there before."""
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    way()
    return torch.cuda.max_memory_allocated() - before
