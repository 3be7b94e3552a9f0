"""Is it right? The kernels' tests on the GPU, equal bits of every process, and the CPU's scores beside the GPU's."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from gpu_parts.jobs import EDGE, RESNET, small_job, write_tensors
from gpu_parts.part import BENCHMARKS, Result, figure
from poolscore.engine import prepare_job, score_pool
from poolscore.engine.machine.cores import usable_cores

ROWS = {"cuda": 20_000, "cpu": 100}
ROWS_RESNET = {"cuda": 2_000, "cpu": 4}
EDGE_RESNET = {"cuda": 224, "cpu": 32}
TOP = 0.01  # the share of rows whose overlap is counted
TESTS = ("tests/kernels", "tests/engine/inputs/test_batch.py")  # that have tests marked `gpu`


def kernel_tests(device: str, folder: Path) -> Result:
    """The tests marked `gpu`: row statistics and masks against float64, Philox against numpy bit for bit."""
    marked = "gpu" if device == "cuda" else "not gpu and not slow"
    tests = TESTS if device == "cuda" else ("tests/kernels/test_philox.py",)
    command = [sys.executable, "-m", "pytest", "-q", "-m", marked, "-p", "no:cacheprovider", *tests]
    command += ["-W", "default"]  # a warning of another Python or torch than ours is no failure of a kernel
    run = subprocess.run(command, cwd=BENCHMARKS.parent, capture_output=True, text=True, check=False)
    lines = run.stdout.strip().splitlines()
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    ok = run.returncode == 0 and "skipped" not in lines[-1]  # a skipped one was not shown
    return {"ok": ok, "figures": [figure("tests", lines[-1].strip("= "))], "failed": failed, "end": lines[-40:]}


def same_bits(device: str, folder: Path) -> Result:
    """The same shards by two processes in two orders, compiled and not: are scores equal bit for bit?"""
    write_tensors(folder / "pool", ROWS[device])
    equal, tables = {}, []
    for compiled in (True, False):
        for order in (1, 2):
            command = [sys.executable, "-m", "gpu_parts.right", str(folder), device, str(order), str(int(compiled))]
            subprocess.run(command, check=True, cwd=BENCHMARKS)
            tables.append(_scores(folder / f"run-{order}-{int(compiled)}"))
        equal["compiled" if compiled else "not compiled"] = tables[-2].equals(tables[-1])
    between = _largest(*(table["bald"].to_numpy() for table in (tables[0], tables[2])))
    lines = [figure(f"two processes, two orders, {how}: equal bits", str(same)) for how, same in equal.items()]
    lines.append(figure("BALD, compiled against not compiled: largest difference", between, "nats"))
    return {"ok": all(equal.values()), "figures": lines, "rows": tables[0].num_rows}


def score_shards(folder: Path, device: str, order: int, compiled: bool) -> None:
    """Score every shard in an order of its own; a process that `same_bits` starts."""
    from poolscore.engine.worker.worker import ShardWorker

    run_dir = folder / f"run-{order}-{int(compiled)}"
    passes = {"count": 20, "compile": compiled}
    prepared = prepare_job(small_job(folder / "pool", run_dir, device, ROWS[device], passes=passes))
    if compiled and prepared.job.compiled is None:
        raise RuntimeError(f"the model was not compiled: {prepared.uncompiled_because}")
    shards = list(prepared.plan.shards)
    random.Random(order).shuffle(shards)
    worker = ShardWorker(prepared.job)
    for shard in shards:
        worker.score(shard)
    worker.close()


def against_cpu(device: str, folder: Path) -> Result:
    """Scores of the GPU beside those of the CPU in float32: a small net and ResNet-50, in float32 and bfloat16."""
    found: Result = {"ok": True, "figures": []}
    edge = EDGE_RESNET[device]
    resnet: dict[str, dict[str, Any]] = {
        "model": {"source": RESNET[device], "classes": 1000},
        "pool": {"decode": {"kind": "tensor", "shape": [3, edge, edge], "mean": [127.5], "std": [64.0]}},
    }
    for name, rows, pixels, sections in (
        ("small net", ROWS[device], EDGE, {}),
        ("ResNet-50", ROWS_RESNET[device], edge, resnet),
    ):
        pool = write_tensors(folder / name, rows, pixels)
        bald: list[NDArray[np.float64]] = []
        for where, precision in (("cpu", "fp32"), (device, "fp32"), (device, "bf16")):
            run_dir = folder / f"{name}-{len(bald)}"
            changed = {**sections, "passes": {"count": 20, "precision": precision}, "select": {"k": 1}}
            changed["run"] = {"threads": usable_cores()}  # ResNet-50 takes minutes on one
            score_pool(small_job(pool, run_dir, where, rows, **changed))
            bald.append(_scores(run_dir)["bald"].to_numpy().astype(np.float64))
        exact, *others = bald
        for precision, other in zip(("fp32", "bf16"), others, strict=True):
            found[f"{name} {precision}"] = compared = agreement(exact, other)
            found["ok"] &= precision == "bf16" or compared["spearman"] > 0.999
            # Logits rounded to bf16 move BALD by 2e-3 (../shared/NOTES.md, section 2).
            guess = {"fp32": 1e-5, "bf16": 2e-3}[precision]
            line = f"{name}, {precision}: largest difference of BALD"
            found["figures"].append(figure(line, compared["largest_difference"], "nats", guess))
            overlap = f"{compared['overlap_of_the_top']}; {compared['spearman']}"
            found["figures"].append(figure(f"{name}, {precision}: overlap of the top 1 %; Spearman", overlap))
    return found


def agreement(a: NDArray[np.float64], b: NDArray[np.float64]) -> Result:
    """Largest difference, Spearman's correlation, and the overlap of the best TOP of both."""
    best = max(1, round(TOP * len(a)))
    top = [set(np.argsort(-x, kind="stable")[:best].tolist()) for x in (a, b)]
    ranks = [np.argsort(np.argsort(x, kind="stable"), kind="stable") for x in (a, b)]
    return {
        "rows": len(a),
        "mean_nats": float(f"{a.mean():.4g}"),
        "largest_difference": _largest(a, b),
        "spearman": round(float(np.asarray(np.corrcoef(ranks))[0, 1]), 6),
        "overlap_of_the_top": round(len(top[0] & top[1]) / best, 4),
    }


def _largest(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    return float(f"{np.abs(a.astype(np.float64) - b).max():.3g}")


def _scores(run_dir: Path) -> pa.Table:
    """Of all parts that were written: the children of `same_bits` journal none."""
    parts = sorted((run_dir / "scores").glob("part-*.parquet"))
    return pa.concat_tables([pq.read_table(part) for part in parts]).sort_by("row_id")


if __name__ == "__main__":
    score_shards(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), bool(int(sys.argv[4])))
