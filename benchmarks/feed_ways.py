"""One way to score a pool, in a process of its own; `bench_feed.py` calls it. Every way decodes the same pictures, runs
poolscore's model object over batches of the same size and writes all scores: only the feeding differs.

    python benchmarks/feed_ways.py loop|poolscore|local|raydata|feed FOLDER URI [key=value ...]
"""

from __future__ import annotations

import json
import logging
import os
import resource
import sys
import threading
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import simplejpeg
import torch

from poolscore.engine import Config, parse_config, score_pool
from poolscore.engine.prepare import Prepared, prepare_job
from poolscore.engine.profile import numeric_settings
from poolscore.engine.worker import Job, build_scorer

HERE = Path(__file__).parent
TICKS = os.sysconf("SC_CLK_TCK")


def config_for(folder: str, uri: str, **run: Any) -> Config:
    """Ten passes over the network of `feed_pools.py`."""
    return parse_config(
        {
            "pool": {"uri": uri, "input": "image", "id": "id", "decode": {"mean": [0.5], "std": [0.25]}},
            "model": {
                "source": "feed_pools:network",
                "path": str(HERE),
                "weights": f"{folder}/weights.pt",
                "task": "multiclass",
                "classes": 10,
            },
            "passes": {"count": 10},
            "select": {"k": 100},
            "run": {"dir": f"{folder}/run-{os.getpid()}", "device": "cpu", **run},
        }
    )


class Model:
    """What a loop of one's own does with a batch of encoded pictures."""

    def __init__(self, job: Job) -> None:
        self._scorer = build_scorer(job)
        self._rows = job.config.run.batch_size
        shape = job.row_specs[""].shape
        self._batch = np.zeros((self._rows, *shape), dtype=np.uint8)
        torch.set_num_threads(job.config.run.threads)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Columns id and image → id and every score, as Ray Data's `map_batches` takes it."""
        images = batch["image"]
        self._batch[:] = 0
        for i, data in enumerate(images):
            self._batch[i] = simplejpeg.decode_jpeg(data, colorspace="RGB")
        x = torch.from_numpy(self._batch).permute(0, 3, 1, 2).float().div_(255).sub_(0.5).div_(0.25).contiguous()
        keys = torch.zeros(self._rows, dtype=torch.int64)
        with numeric_settings(self._scorer.config.run.threads):
            logits = self._scorer.model.logits({"": x}, keys)[: len(images)]
            stats = self._scorer.statistics(logits)
        # Copies: what the statistics are views of is large.
        scores = {name: values.numpy().copy() for name, values in stats.scores.items()}
        return {"id": batch["id"], "prediction": stats.prediction.numpy().copy(), **scores}


def loop(config: Config, job: Job) -> None:
    """Plain pyarrow in one process."""
    model, uri = Model(job), Path(config.pool.uri)
    found: list[dict[str, Any]] = []
    for path in sorted(uri.glob("*.parquet")):
        file = pq.ParquetFile(path, pre_buffer=False)
        for batch in file.iter_batches(config.run.batch_size, columns=["id", "image"]):
            columns = {name: batch.column(name).to_pylist() for name in ("id", "image")}
            found.append(model(columns))
    names = found[0].keys()
    parts = {name: np.concatenate([np.asarray(one[name]) for one in found]) for name in names}
    pq.write_table(pa.table(parts), f"{config.run.dir}.parquet")


def ray_data(config: Config, job: Job) -> None:
    """Ray Data as its guide to batch inference has it: a stateful class, its own batch size, a fixed number of actors,
    only the needed columns, results written as Parquet."""
    import ray.data

    ray.data.DataContext.get_current().enable_progress_bars = False
    workers = config.run.workers or 1
    blocks = 8 * workers  # by itself it would make one of a small pool, and keep one actor busy
    ray.data.read_parquet(config.pool.uri, columns=["id", "image"], override_num_blocks=blocks).map_batches(
        Model,
        fn_constructor_args=(job,),
        batch_size=config.run.batch_size,
        compute=ray.data.ActorPoolStrategy(size=workers),
        num_cpus=1,
        zero_copy_batch=True,
    ).write_parquet(f"{config.run.dir}-ray-data")


def feed(prepared: Prepared) -> None:
    """Only read and decode, as a worker does."""
    for shard in prepared.plan.shards:
        with prepared.scorer.feed(shard, threaded=True) as batches:
            for _, batch in batches:
                batch.release()


def main() -> None:
    """Print rows, seconds, CPU seconds and the stages as one line of JSON."""
    way, folder, uri, *rest = sys.argv[1:]
    options = {key: json.loads(value) for key, value in (one.split("=", 1) for one in rest)}
    if way in ("poolscore", "raydata"):
        import ray

        paths = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
        ray.init(
            address="local",
            num_cpus=int(options.get("workers", 1)) + (way == "raydata"),  # Ray Data's readers are tasks of their own
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env={"env_vars": {"PYTHONPATH": paths}},
        )
    config = config_for(folder, uri, executor="ray" if way in ("poolscore", "raydata") else "local", **options)
    prepared = prepare_job(config)
    before = _resident(os.getpid()) // 1_000_000
    memory = _Memory()
    started, cpu = time.monotonic(), cpu_seconds()
    stages: dict[str, float] = {}
    if way in ("poolscore", "local"):
        totals = score_pool(config, prepared=prepared).totals
        stages = {**totals.stages, "worker_seconds": totals.worker_seconds}
    elif way == "feed":
        feed(prepared)
    else:
        {"loop": loop, "raydata": ray_data}[way](config, prepared.job)
    print(
        json.dumps(
            {
                "way": way,
                "rows": prepared.plan.rows,
                "seconds": time.monotonic() - started,
                "cpu_seconds": cpu_seconds() - cpu,
                "before_MB": before,
                "peak_MB": memory.stop(),
                "stages": stages,
            }
        )
    )


def cpu_seconds() -> float:
    """Of this process and all below it, those included that have ended and were waited for."""
    return sum(map(_cpu_of, _tree())) / TICKS


class _Memory:
    """The largest sum of resident memory of this process and those below it, looked at ten times a second; or the
    process's own peak, where it is alone."""

    def __init__(self) -> None:
        self._peak = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> int:
        """Megabytes."""
        self._done.set()
        self._thread.join()
        return max(self._peak, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024) // 1_000_000

    def _run(self) -> None:
        while not self._done.wait(0.5):
            self._peak = max(self._peak, sum(map(_resident, _tree())))


def _tree() -> list[int]:
    parents: dict[int, int] = {}
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and (fields := _stat(int(process.name))):
            parents[int(process.name)] = int(fields[1])
    found: list[int] = []
    here = {os.getpid()}
    while here:
        found += here
        here = {pid for pid, parent in parents.items() if parent in here}
    return found


def _stat(pid: int) -> list[str]:
    """Fields behind the name: state, parent, …"""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _cpu_of(pid: int) -> int:
    return sum(map(int, _stat(pid)[11:15]))


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


if __name__ == "__main__":
    main()
