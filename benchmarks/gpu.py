"""`make gpu`: everything that only a machine with a GPU can show, each part on its own, most important first.

    make gpu                     all parts
    make gpu PART=bits           one part
    python benchmarks/gpu.py --device cpu    the same with small sizes, to lose no GPU minute to a typo

Each part returns what it measured; it is written as JSON, with the environment, under benchmarks/results/.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from bench_row_stats import roofline
from frontier_resnet import measure
from torch import nn

from poolscore.engine import parse_config, prepare_job
from poolscore.jobs.bench.environment import environment

HERE = Path(__file__).parent
SOAK_SECONDS = {"cuda": 45, "cpu": 1}
POOL_ROWS = {"cuda": 20_000, "cpu": 300}


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


def kernel_tests(device: str, folder: Path) -> dict[str, Any]:
    """The kernels' tests on CUDA, not in the interpreter."""
    marked = "gpu" if device == "cuda" else "not gpu and not slow"
    command = [sys.executable, "-m", "pytest", "-q", "-m", marked, "tests/kernels"]
    run = subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True, check=False)
    return {"exit_code": run.returncode, "last_lines": run.stdout.strip().splitlines()[-3:], "ok": run.returncode == 0}


def same_bits(device: str, folder: Path) -> dict[str, Any]:
    """The same shards, scored by two processes in different orders: are the committed scores equal bit for bit?"""
    write_pool(folder / "pool", POOL_ROWS[device])
    tables = []
    for order in (1, 2):
        command = [sys.executable, __file__, "--score-shards", str(order), "--device", device, "--folder", str(folder)]
        subprocess.run(command, check=True)
        parts = sorted((folder / f"run-{order}" / "scores").glob("part-*.parquet"))
        tables.append(pa.concat_tables([pq.read_table(part) for part in parts]).sort_by("row_id"))
    equal = tables[0].equals(tables[1])
    return {"rows": tables[0].num_rows, "shards": len(parts), "equal_bit_for_bit": equal, "ok": equal}


def score_shards(order: int, device: str, folder: Path) -> None:
    """Score every shard of the pool in a shuffled order; the child process of `same_bits`."""
    from poolscore.engine.worker import ShardWorker

    prepared = prepare_job(configuration(device, folder, f"run-{order}"))
    shards = list(prepared.plan.shards)
    random.Random(order).shuffle(shards)
    worker = ShardWorker(prepared.job)
    for shard in shards:
        worker.score(shard)


def soak_two_phase(device: str, folder: Path) -> dict[str, Any]:
    """Does the two-phase kernel ever hang, or give other bits? In a process of its own, with a deadline."""
    seconds = SOAK_SECONDS[device]
    command = [sys.executable, str(HERE / "soak_two_phase.py"), "--device", device, "--seconds", str(seconds)]
    run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 120)
    result: dict[str, Any] = json.loads(run.stdout)
    return result


def row_statistics(device: str, folder: Path) -> dict[str, Any]:
    """Time and bandwidth of the row statistics beside torch and a device copy; BALD's error is within 1e-5 nats."""
    results = roofline(device, repeats=20 if device == "cuda" else 3)
    return results | {"ok": all(shape["max_error"]["ours"] < 1e-5 for shape in results["shapes"])}


def frontier(device: str, folder: Path) -> dict[str, Any]:
    """ResNet-50 with dropout before its head: T=1, 20, 100, and 20 repeated at the input; torch and ONNX Runtime."""
    if device == "cuda":
        results = [measure(device, "bf16", batch=batch, repeats=10, onnx=True) for batch in (256, 1024)]
    else:
        results = [measure(device, "fp32", batch=4, pixels=64, repeats=1, onnx=True)]
    return {"batches": results, "ok": True}


def end_to_end(device: str, folder: Path) -> dict[str, Any]:
    """The main job through Ray with one worker: rows/s from a pool of uint8 tensors to the selection."""
    from poolscore.engine import score_pool

    write_pool(folder / "pool", POOL_ROWS[device])
    started = time.perf_counter()
    result = score_pool(configuration(device, folder, "run-ray", executor="ray", workers=1))
    return {
        "rows": result.totals.scored,
        "seconds_with_start": round(time.perf_counter() - started, 1),
        "rows_per_worker_second": round(result.totals.rows_per_worker_second),
        "ok": result.exit_code == 0,
    }


PARTS: dict[str, Callable[[str, Path], dict[str, Any]]] = {
    "kernels": kernel_tests,
    "bits": same_bits,
    "soak": soak_two_phase,
    "row_stats": row_statistics,
    "frontier": frontier,
    "ray": end_to_end,
}


def configuration(device: str, folder: Path, run_dir: str, **run: Any) -> Any:
    """The job that the parts share."""
    return parse_config(
        {
            "pool": {
                "uri": str(folder / "pool"),
                "input": "pixels",
                "id": "id",
                "decode": {"kind": "tensor", "shape": [3, 32, 32], "mean": [127.5], "std": [64.0]},
            },
            "model": {"source": "gpu:network", "path": str(HERE), "task": "multiclass"},
            "select": {"k": 100},
            "run": {
                "dir": str(folder / run_dir),
                "executor": "local",
                "device": device,
                "batch_size": 256 if device == "cuda" else 32,
                "shard_rows": POOL_ROWS[device] // 5,
                **run,
            },
        }
    )


def write_pool(folder: Path, rows: int) -> None:
    """A pool of random pictures as uint8 tensors."""
    if folder.exists():
        return
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, rows * 3 * 32 * 32, dtype=np.uint8)
    column = pa.FixedSizeListArray.from_arrays(pa.array(pixels), 3 * 32 * 32)
    table = pa.table({"id": pa.array(range(rows), pa.int64()), "pixels": column})
    pq.write_table(table, folder / "part-0.parquet", row_group_size=max(1, rows // 10), compression="none")


def main() -> int:
    """Run the parts that are asked for; a part that fails does not keep the others from running."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--part", choices=list(PARTS), action="append")
    arguments.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    arguments.add_argument("--out", type=Path, default=HERE / "results")
    arguments.add_argument("--score-shards", type=int, help=argparse.SUPPRESS)
    arguments.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.score_shards is not None:
        score_shards(given.score_shards, given.device, given.folder)
        return 0
    if given.device == "cuda" and not torch.cuda.is_available():
        print("make gpu: torch finds no GPU here; `python benchmarks/gpu.py --device cpu` is the dry run")
        return 2
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in given.part or PARTS:
            started = time.perf_counter()
            try:
                results[name] = PARTS[name](given.device, Path(folder))
            except Exception as error:
                results[name] = {"ok": False, "error": f"{type(error).__name__}: {error}"}
            results[name]["seconds"] = round(time.perf_counter() - started, 1)
            print(f"{'ok  ' if results[name]['ok'] else 'FAIL'} {name:10s} {json.dumps(results[name])}", flush=True)
    given.out.mkdir(parents=True, exist_ok=True)
    hardware = torch.cuda.get_device_name().replace(" ", "-") if given.device == "cuda" else "cpu"
    out = given.out / f"gpu_{hardware}_{time.strftime('%Y-%m-%d-%H%M%S')}.json"
    out.write_text(json.dumps({"environment": environment(), "results": results}, indent=2) + "\n")
    print(out)
    return 0 if all(result["ok"] for result in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
