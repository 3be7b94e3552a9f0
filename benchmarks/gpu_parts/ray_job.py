"""The main job through Ray with one worker on the GPU, from JPEGs: once whole, once killed and resumed."""

from __future__ import annotations

import os
import signal
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from gpu_parts.jobs import IMAGENET, RESNET, write_jpegs
from gpu_parts.part import BENCHMARKS, Result, figure

ROWS = {"cuda": 20_000, "cpu": 60}
SHARDS = 20
EDGE = {"cuda": 224, "cpu": 32}
KILLED_AFTER = 3  # parts of scores


def killed_and_resumed(device: str, folder: Path) -> Result:
    """Is the selection of a job whose driver and worker were killed equal, bit for bit, to that of one left alone?"""
    sys.path.insert(0, str(BENCHMARKS.parent / "tests"))
    Job = import_module("chaos.job").Job
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_AUTH_MODE="disabled")
    write_jpegs(folder / "pool", ROWS[device], 375, 500, 9.0)
    seconds: dict[str, float] = {}
    selections = {}
    for name in ("left alone", "killed"):
        there = folder / name.replace(" ", "-")
        there.mkdir()
        job = Job(there, job_of(device, folder / "pool", there / "run"))
        started = time.perf_counter()
        if name == "killed":
            with job.running() as driver:
                parts = Path(job.run_dir) / "scores"
                driver.until(f"{KILLED_AFTER} parts", lambda parts=parts: _count(parts) >= KILLED_AFTER)
                driver.send(signal.SIGKILL)  # and, at the end of the block, whatever it started
            left = SHARDS - _count(parts)
            job.finish("--resume")
        else:
            job.finish()
        seconds[name] = round(time.perf_counter() - started, 1)
        selections[name] = pq.read_table(Path(job.run_dir) / "selection.parquet")
    one, other = selections.values()
    equal = bool(one.equals(other))
    lines = [
        figure("rows selected are equal bit for bit", str(equal), "", "True"),
        figure("parts still to score when it was killed", left),
        *(figure(f"seconds in all, {name}", value, "s") for name, value in seconds.items()),
    ]
    return {"ok": equal and left > 0, "figures": lines, "rows": ROWS[device], "selected": one.num_rows}


def job_of(device: str, pool: Path, run_dir: Path) -> dict[str, Any]:
    """The configuration of `poolscore score`."""
    edge, rows = EDGE[device], ROWS[device]
    decode = {"kind": "image", "resize": edge, "crop": edge, **IMAGENET}
    return {
        "pool": {"uri": str(pool), "input": "image", "id": "id", "decode": decode},
        "model": {"source": RESNET[device], "task": "multiclass", "classes": 1000},
        "passes": {"count": 20, "precision": "bf16" if device == "cuda" else "fp32"},
        "select": {"k": max(1, rows // 20)},
        "run": {"dir": str(run_dir), "executor": "ray", "workers": 1, "device": device}
        | {"batch_size": 256 if device == "cuda" else 3, "shard_rows": rows // SHARDS},
    }


def _count(parts: Path) -> int:
    return len(list(parts.glob("part-*.parquet"))) if parts.is_dir() else 0
