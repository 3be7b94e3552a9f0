"""The main job on the 60,000 MNIST training images: pack, train on 100 of them, score with T=20, select 1,000.

Proves on real data that every row is accounted for, that the selection is the top k of the stored scores, and that the
answer is the same bit for bit in-process, with 1, 2 and 3 Ray workers, and with a worker killed; measures rows/s and
peak memory on the way.

    python benchmarks/mnist.py --data ../shared/data/mnist --dir /tmp/mnist [--rows 60000]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from poolscore.engine import Config, RunDirectory, RunResult, load_config, score_pool
from poolscore.jobs.bench.environment import environment
from poolscore.jobs.pack import pack
from poolscore.kernels.dropout_mask_numpy import keep_mask_numpy
from poolscore.kernels.row_stats import row_stats

LABELLED = 100
MEAN, STD = 0.1307, 0.3081
CONFIG = """\
pool: {{uri: pool, id: id, input: image, decode: {{kind: image, mode: L, mean: [{mean}], std: [{std}]}}, keep: [label]}}
model: {{source: "mnist:network", path: {path}, weights: weights.safetensors, task: multiclass, classes: 10}}
passes: {{count: 20}}
select: {{k: 1000}}
check: {{labelled: check.parquet, min_accuracy: 0.5}}
run: {{dir: run, device: cpu, shard_rows: 4096}}
"""


def network() -> nn.Sequential:
    """A small CNN with dropout after its convolutions and before its head."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 5, stride=2),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout(0.25),
        nn.Flatten(),
        nn.Linear(32 * 5 * 5, 128),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(128, 10),
    )


def prepare_files(data: Path, folder: Path, rows: int) -> Path:
    """Pool, weights, labelled rows for the check, configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "pool").exists():
        print(pack(data / "train-images-idx3-ubyte.gz", folder / "pool", labels=data / "train-labels-idx1-ubyte.gz"))
    pool = pq.read_table(folder / "pool")
    if rows < pool.num_rows:
        pq.write_table(pool.slice(0, rows), folder / "pool" / "part-00000.parquet", row_group_size=4096)
        pool = pool.slice(0, rows)
    chosen = np.random.default_rng(0).permutation(pool.num_rows)
    pq.write_table(pool.take(pa.array(chosen[LABELLED:600])), folder / "check.parquet")
    train(pool.take(pa.array(chosen[:LABELLED])), folder / "weights.safetensors")
    config = folder / "mnist.yaml"
    config.write_text(CONFIG.format(mean=MEAN, std=STD, path=Path(__file__).parent.resolve()))
    return config


def train(labelled: pa.Table, out: Path) -> None:
    """150 epochs of Adam on the labelled images."""
    from poolscore.engine.config import ImageDecode
    from poolscore.engine.inputs.picture import decode_picture

    torch.manual_seed(0)
    pixels = np.stack([decode_picture(b, ImageDecode(mode="L")) for b in labelled["image"].to_pylist()])
    x = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div(255) - MEAN) / STD
    y = torch.from_numpy(labelled["label"].to_numpy().copy())
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(150):
        for batch in torch.randperm(len(y)).split(32):
            optimizer.zero_grad()
            F.cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
    save_file(model.state_dict(), out)


def check_rows(result: RunResult, config: Config) -> dict[str, Any]:
    """Every row once in scores or errors; the selection equals a float64 computation from the stored scores."""
    run = RunDirectory(result.run_dir)
    scores = scores_of(Path(result.run_dir))
    errors = [pq.read_table(run.storage.path(r.errors)) for r in run.reports().values() if r.errors]
    rows = np.concatenate([t["row_id"].to_numpy() for t in (scores, *errors)])
    assert np.array_equal(np.sort(rows), np.arange(result.pool_rows)), "a row is missing or there twice"
    bald = scores["bald"].to_numpy().astype(np.float64)
    ranked = sorted(zip(-bald, scores["key"].to_pylist(), scores["row_id"].to_pylist(), strict=True))
    expected = [row_id for _, _, row_id in ranked[: config.select.k]]
    assert pq.read_table(result.selection)["row_id"].to_pylist() == expected, "the selection is not the top k"
    values = hashlib.sha256()
    for name in scores.column_names:
        if name not in ("id",):
            values.update(scores[name].to_numpy().tobytes())
    return {
        "scores": values.hexdigest()[:16],
        "selection": hashlib.sha256(Path(result.selection).read_bytes()).hexdigest()[:16],
    }


class FixedMasks(nn.Module):
    """A dropout layer with T masks written down; the oracle's own, it shares no code with the engine's dropout."""

    def __init__(self, p: float, layer: int, passes: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        keep = keep_mask_numpy(0, layer, range(passes), math.prod(shape), p)
        self.factor = torch.from_numpy(keep.astype(np.float32) / (1 - p)).view(passes, *shape)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x.view(-1, *self.factor.shape) * self.factor).view_as(x)


def untouched_difference(folder: Path, sizes: tuple[int, int], passes: int = 20, rows: int = 4096) -> float:
    """Largest difference in BALD that the model itself shows between two batch sizes, repeated at its input."""
    from poolscore.engine.config import ImageDecode
    from poolscore.engine.inputs.picture import decode_picture

    model = network().eval()
    model.load_state_dict(load_file(folder / "weights.safetensors"))
    model[5], model[9] = FixedMasks(0.25, 0, passes, (32, 5, 5)), FixedMasks(0.5, 1, passes, (128,))
    images = pq.read_table(folder / "pool", columns=["image"])["image"].to_pylist()[:rows]
    pixels = np.stack([decode_picture(image, ImageDecode(mode="L")) for image in images])
    x = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div(255) - MEAN) / STD
    scores = []
    for size in sizes:
        with torch.no_grad():
            logits = [model(part.repeat_interleave(passes, 0)).view(-1, passes, 10) for part in torch.split(x, size)]
        scores.append(row_stats(torch.cat(logits), "multiclass", ["bald"]).scores["bald"])
    return float((scores[0] - scores[1]).abs().max())


def other_cuts(path: Path, reference: Path) -> dict[str, Any]:
    """Scores with another batch and shard size, against twice what the untouched model itself shows."""
    torch.set_num_threads(1)
    limit = 2 * untouched_difference(path.parent, (64, 37))
    config = load_config(path, ["run.executor=local", "run.batch_size=37", "run.shard_rows=10000", "run.dir=run-cuts"])
    result = score_pool(config, fresh=True)
    bald = [scores_of(Path(directory))["bald"].to_numpy() for directory in (reference, Path(result.run_dir))]
    difference = float(np.abs(bald[0] - bald[1]).max())
    return {"largest_difference_in_bald": difference, "twice_the_model_s_own": limit, "within": difference <= limit}


def scores_of(directory: Path) -> pa.Table:
    """All committed scores of a run in the order of the pool."""
    run = RunDirectory(str(directory))
    parts = [pq.read_table(run.storage.path(report.scores)) for report in run.reports().values()]
    return pa.concat_tables(parts).sort_by("row_id")


def kill_one_worker(after: float, killed: list[int]) -> None:
    """SIGKILL one Ray worker of this machine that runs our actor, `after` seconds from now, and add it to a list."""

    def kill() -> None:
        for process in Path("/proc").iterdir():
            try:
                if b"ray::Actor" in (process / "cmdline").read_bytes():
                    print(f"killing worker {process.name}")
                    os.kill(int(process.name), signal.SIGKILL)
                    killed.append(int(process.name))
                    return
            except OSError:
                continue

    threading.Timer(after, kill).start()


WAYS = {
    "in-process": ["run.executor=local"],
    "1 worker": ["run.workers=1"],
    "2 workers": ["run.workers=2"],
    "3 workers": ["run.workers=3"],
    "2 workers, one killed": ["run.workers=2"],
    "in-process, repeated at the input": ["run.executor=local", "passes.split=false"],
}


def run_one(path: Path, way: str) -> dict[str, Any]:
    """Score the pool one way; in a process of its own, so that its memory is its own."""
    config = load_config(path, [*WAYS[way], f"run.dir=run-{way.replace(' ', '-').replace(',', '')}"])
    killing, retried = way.endswith("killed"), 0
    killed: list[int] = []

    def watch(state: Any) -> None:
        nonlocal retried, killing
        retried = state.retried
        if killing and state.totals.shards:
            kill_one_worker(0.5, killed)
            killing = False

    started = time.perf_counter()
    result = score_pool(config, fresh=True, on_progress=watch)
    assert not way.endswith("killed") or killed, "no worker was killed"
    return {
        "seconds": round(time.perf_counter() - started, 1),
        "rows_per_second": round(result.totals.scored / result.seconds),
        "rows_per_worker_second": round(result.totals.rows_per_worker_second),
        "worker_peak_MiB": result.totals.peak_memory >> 20,
        "driver_peak_MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
        "retried": retried,
        "scored": result.totals.scored,
        "rejected": result.totals.rejected,
        **check_rows(result, config),
    }


def main() -> None:
    """Run every way; print and write what was measured."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, default=Path("../shared/data/mnist"))
    arguments.add_argument("--dir", type=Path, required=True)
    arguments.add_argument("--rows", type=int, default=60_000)
    arguments.add_argument("--out", type=Path)
    arguments.add_argument("--way", choices=list(WAYS), help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.way:
        print(json.dumps(run_one(given.dir / "mnist.yaml", given.way)))
        return
    path = prepare_files(given.data, given.dir, given.rows)
    results: dict[str, Any] = {}
    for way in WAYS:
        command = [sys.executable, __file__, "--dir", str(given.dir), "--way", way]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        results[way] = json.loads(output.splitlines()[-1])
        print(way, json.dumps(results[way]), flush=True)
    bits = {(r["scores"], r["selection"]) for way, r in results.items() if "repeated" not in way}
    assert len(bits) == 1, "the answer depends on the workers"
    cuts = results["batches of 37 in shards of 10,000"] = other_cuts(path, given.dir / "run-in-process")
    print(json.dumps(cuts))
    assert cuts["within"], "another batch size moves scores by more than the model's own difference"
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps({"environment": environment(), "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
