"""Seconds from the start of a worker's process to its first scores: with the driver's compiled artefact and without."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from gpu_parts.jobs import EDGE, RESNET, small_job, write_tensors
from gpu_parts.part import BENCHMARKS, Result, figure
from poolscore.engine import prepare_job
from poolscore.engine.storage.open import open_storage

BATCH, PIXELS = {"cuda": 256, "cpu": 2}, {"cuda": 224, "cpu": EDGE}
FIRST = "first scores: "
# 8 s of imports and the device, 2 s of kernels for the statistics; the compiler takes 40 s, the artefact 5 s.
PREDICTED = {"with the artefact": 15, "compiling by itself": 50, "not compiled": 10}


def seconds_to_first_scores(device: str, folder: Path) -> Result:
    """A process per way, each with caches of its own, over one batch of ResNet-50's rows."""
    batch, edge = BATCH[device], PIXELS[device]
    pool = write_tensors(folder / "pool", batch, edge)
    config = small_job(
        pool,
        folder / "run",
        device,
        batch,
        model={"source": RESNET["cuda"], "classes": 1000} if device == "cuda" else {},  # the compiler takes minutes
        pool={"decode": {"kind": "tensor", "shape": [3, edge, edge], "mean": [127.5], "std": [64.0]}},
        passes={"precision": "bf16" if device == "cuda" else "fp32", "compile": True},
        select={"k": 1},
        run={"batch_size": batch, "shard_rows": batch},
    )
    started = time.perf_counter()
    prepared = prepare_job(config)
    driver = time.perf_counter() - started
    job, storage = prepared.job, open_storage(config.run.dir)
    assert job.compiled is not None  # passes.compile requires it
    storage.publish(job.compiled.name, lambda file: file.write(prepared.programs))
    missing = replace(job, compiled=replace(job.compiled, content="0" * 64))  # a name that is not there
    jobs = {"with the artefact": job, "compiling by itself": missing, "not compiled": replace(job, compiled=None)}
    shard = prepared.plan.shards[0]
    seconds: dict[str, float] = {}
    compiled: dict[str, str] = {}
    for number, (name, one) in enumerate(jobs.items()):
        there = folder / str(number)
        (there / "job").parent.mkdir()
        (there / "job").write_bytes(pickle.dumps((one, shard)))
        caches = {"TORCHINDUCTOR_CACHE_DIR": str(there / "inductor"), "TRITON_CACHE_DIR": str(there / "triton")}
        command = [sys.executable, "-m", "gpu_parts.startup", str(there / "job")]
        started = time.time()  # the clock that two processes share
        run = subprocess.run(
            command, cwd=BENCHMARKS, env={**os.environ, **caches}, capture_output=True, text=True, check=True
        )
        said = json.loads(next(line for line in run.stdout.splitlines() if line.startswith(FIRST)).removeprefix(FIRST))
        seconds[name] = round(said["at"] - started, 1)
        compiled[name] = said["compiled"]
    lines = [figure(name, value, "s", PREDICTED[name]) for name, value in seconds.items()]
    lines.append(figure("the driver: trial run, trace, compile", round(driver, 1), "s", 50))
    shared = compiled["with the artefact"] == job.compiled.programs
    lines.append(figure("the worker ran the driver's programs", str(shared), "", "True"))
    return {"ok": shared, "figures": lines, "programs": compiled, "artefact_bytes": len(prepared.programs)}


def first_scores(file: Path) -> None:
    """What a worker does: build the model, score a shard."""
    from poolscore.engine.worker.worker import ShardWorker

    job, shard = pickle.loads(file.read_bytes())  # written by the process that started this one
    worker = ShardWorker(job)
    worker.score(shard)
    print(FIRST + json.dumps({"at": time.time(), "compiled": worker.profile["compiled"]}))
    worker.close()


if __name__ == "__main__":
    first_scores(Path(sys.argv[1]))
