"""One way to score a pool, in a process of its own; `bench_feed.py` calls it. Every way decodes the same pictures, runs
poolscore's model object over batches of the same size and writes all scores: only the feeding differs.

    python benchmarks/feed_ways.py loop|poolscore|local|raydata|feed FOLDER URI [key=value ...]
"""

from __future__ import annotations

import json
import logging
import os
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
from poolscore.engine.worker.job import Job, build_scorer
from poolscore.engine.worker.profile import numeric_settings

HERE = Path(__file__).parent
TICKS = os.sysconf("SC_CLK_TCK")
WATCHED = 0.2  # seconds
USER, SYSTEM, STARTED, RESIDENT = 11, 12, 19, 21  # fields of /proc/PID/stat behind the name


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
            "shortlist": {"rows": 0},  # nobody else infers the best rows once more, or verifies
            "run": {"dir": f"{folder}/run-{os.getpid()}", "device": "cpu", "verify_rows": 0, **run},
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
    before = int(_stat(os.getpid())[RESIDENT]) * os.sysconf("SC_PAGE_SIZE") // 1_000_000
    watch = _Watch()
    started = time.monotonic()
    stages: dict[str, float] = {}
    if way in ("poolscore", "local"):
        totals = score_pool(config, prepared=prepared).totals
        stages = {**totals.stages, "worker_seconds": totals.worker_seconds}
    elif way == "feed":
        feed(prepared)
    else:
        {"loop": loop, "raydata": ray_data}[way](config, prepared.job)
    seconds = time.monotonic() - started
    cpu_seconds, peak = watch.stop()
    print(
        json.dumps(
            {
                "way": way,
                "rows": prepared.plan.rows,
                "seconds": seconds,
                "cpu_seconds": cpu_seconds,
                "before_MB": before,
                "peak_MB": peak,
                "stages": stages,
            }
        )
    )


class _Watch:
    """CPU seconds and resident memory of this process and those below it, looked at every WATCHED seconds.

    A process's CPU is what it was when last seen: raylet does not wait for its children, so the system forgets theirs.
    """

    def __init__(self) -> None:
        self._cpu: dict[tuple[int, str], int] = {}  # by process and when it started, in clock ticks
        self._peak = 0
        self._look()
        self._before = self._seconds()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> tuple[float, int]:
        """CPU seconds since the start, and megabytes at the peak: the sum's, or the process's own where it is alone."""
        self._done.set()
        self._thread.join()
        self._look()
        return self._seconds() - self._before, max(self._peak, _own_peak()) // 1_000_000

    def _run(self) -> None:
        while not self._done.wait(WATCHED):
            self._look()

    def _look(self) -> None:
        resident = 0
        for pid in _tree():
            if fields := _stat(pid):
                self._cpu[pid, fields[STARTED]] = int(fields[USER]) + int(fields[SYSTEM])
                resident += int(fields[RESIDENT]) * os.sysconf("SC_PAGE_SIZE")
        self._peak = max(self._peak, resident)

    def _seconds(self) -> float:
        return sum(self._cpu.values()) / TICKS


def _own_peak() -> int:
    """Bytes. Not getrusage's, which begins with what the process that started this one held."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


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


if __name__ == "__main__":
    main()
