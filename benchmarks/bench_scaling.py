"""How far one driver goes: hand-out, reports and journal for 1 to 256 workers, on a real Ray cluster of this machine.

    python benchmarks/bench_scaling.py --out benchmarks/results/scaling_DATE.json
    python benchmarks/bench_scaling.py --journal-ms 80 --rate 10000 --out benchmarks/results/scaling_slow_DATE.json

Nobody has 256 GPUs for this, so a device is a sleep: a worker takes rows / RATE seconds for a shard, two shards are in
its hands at a time, and each ends with a part of usual size on the disk and a report. All else is the product's:
RayFleet, Coordinator, Journal, leases, metrics; tasks and reports go through Ray to other processes and back. Workers
are threads in HOSTS processes, because 256 processes with torch do not fit here; so starting workers and what they
compute is not measured. The ideal is that every device is busy from the first shard to the last. With --journal-ms each
request of the journal takes so long, as on object storage: a record is four of them (write, list, and two to read).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import ray

from poolscore.engine.config import parse_config
from poolscore.engine.machine.cores import Node
from poolscore.engine.pool.choice import EVERY_ROW
from poolscore.engine.pool.plan import Piece, Shard
from poolscore.engine.run.coordinator import Coordinator
from poolscore.engine.run.journal import Journal, ShardReport
from poolscore.engine.run.metrics import Metrics
from poolscore.engine.run.ray_actor import RayWorker
from poolscore.engine.run.ray_cluster import Counter, Gauge
from poolscore.engine.run.ray_fleet import RayFleet
from poolscore.engine.run.records import folder_of
from poolscore.engine.run.task import ScoreShard
from poolscore.engine.run.totals import Totals
from poolscore.engine.storage.local import LocalStorage
from poolscore.engine.storage.open import open_storage
from poolscore.engine.worker.job import Job
from poolscore.jobs.bench.environment import environment

WORKERS = (1, 4, 16, 64, 128, 256)
RATE = 2_000.0  # rows a second of a worker
SHARD_ROWS = 16_384
ROUNDS = 6  # shards of each worker
HOSTS = 4  # processes that the workers live in
PART_BYTES = 70  # of a row in scores/: key, row_id, id, seven scores, prediction, confidence
TARGETS = {"efficiency": 0.95, "driver_cores": 1.0, "at_workers": 64}


class SlowStorage(LocalStorage):
    """Each request takes so long; reading an object takes two."""

    def __init__(self, root: str, seconds: float) -> None:
        super().__init__(root)
        self._seconds = seconds

    def create(self, name: str, data: bytes) -> bool:
        time.sleep(self._seconds)
        return super().create(name, data)

    def read(self, name: str) -> bytes:
        time.sleep(2 * self._seconds)
        return super().read(name)

    def names(self, folder: str) -> list[str]:
        time.sleep(self._seconds)
        return super().names(folder)


class Host:
    """A process with simulated workers; runs in Ray."""

    def __init__(self, root: str, rate: float) -> None:
        self._storage = open_storage(root)
        self._rate = rate
        self._devices: dict[int, threading.Lock] = {}
        self._lock = threading.Lock()

    def node(self) -> str:
        return str(ray.get_runtime_context().get_node_id())

    def start(self, number: int) -> dict[str, Any]:
        with self._lock:
            self._devices[number] = threading.Lock()
        return {"device": "simulated"}

    def do(self, number: int, task: ScoreShard) -> ShardReport:
        shard = task.shard
        with self._devices[number]:
            time.sleep(shard.rows / self._rate)
        name = f"scores/part-{shard.index:05d}-{random.getrandbits(32):08x}.parquet"
        part = bytes(shard.rows * PART_BYTES)
        self._storage.publish(name, lambda file: file.write(part))
        return _report(shard, name, f"worker-{number}", shard.rows / self._rate)


@dataclass(frozen=True)
class Call:
    """A method of a host, of one of its workers."""

    method: Any
    arguments: tuple[Any, ...]

    def remote(self, *arguments: Any) -> Any:
        return self.method.remote(*self.arguments, *arguments)


@dataclass(frozen=True)
class Seat:
    """What RayFleet takes for an actor: one worker of a host."""

    host: Any
    number: int

    @property
    def do(self) -> Call:
        return Call(self.host.do, (self.number,))


class SimulatedFleet(RayFleet):
    """RayFleet, but for how a worker starts and ends."""

    def __init__(self, job: Job, hosts: Sequence[Any]) -> None:
        self._hosts = hosts
        super().__init__(job)

    def _start_worker(self, nodes: Sequence[Node]) -> None:
        number, self._next = self._next, self._next + 1
        host = self._hosts[number % len(self._hosts)]
        self._workers[number] = RayWorker(number, Seat(host, number), host.node.remote(), host.start.remote(number))

    def close(self) -> None:
        """The hosts are ended by whoever started them."""


def measure(workers: int, folder: Path, rate: float, journal_seconds: float) -> dict[str, Any]:
    """Seconds from the first shard that is handed out to the last that counts, and the driver's processor time."""
    root = str(folder / f"run-{workers}")
    config = parse_config(
        {
            "pool": {"uri": str(folder / "pool"), "input": "x", "decode": {"kind": "features"}},
            "model": {"source": "none:none", "task": "multiclass", "classes": 2},
            "select": {"k": 1},
            "run": {"dir": root, "workers": workers, "device": "cpu", "decode_threads": 0},
        }
    )
    unused = cast(Any, None)
    job = Job(config, str(folder), EVERY_ROW, {}, unused, "", "", None, None)
    actor = cast(Any, ray).remote(num_cpus=0, max_concurrency=4 + 2 * -(-workers // HOSTS))(Host)
    hosts = [actor.remote(root, rate) for _ in range(min(HOSTS, workers))]
    ray.get([host.node.remote() for host in hosts])
    shards = [_shard(i) for i in range(ROUNDS * workers)]
    fleet = SimulatedFleet(job, hosts)
    with Journal(SlowStorage(root, journal_seconds)) as journal:
        metrics = Metrics(Counter, Gauge, f"scaling-{workers}", len(shards) * SHARD_ROWS, len(shards))
        coordinator = Coordinator(
            fleet,
            journal,
            done=Totals(),
            pool_rows=len(shards) * SHARD_ROWS,
            max_bad_fraction=1.0,
            max_bad_rows=None,
            profile=None,
            on_profile=lambda profile: None,
            on_progress=metrics.progress,
            on_event=metrics.event,
            on_report=metrics.report,
        )
        cpu, started = time.process_time(), time.perf_counter()
        coordinator.run(shards, seed=0)
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        records = sum(at.stem.isdecimal() for at in Path(root, folder_of(journal.epoch)).iterdir()) - 1  # but record 0
    assert coordinator.totals.shards == len(shards)
    for host in hosts:
        ray.kill(host)
    ideal = ROUNDS * SHARD_ROWS / rate
    return {
        "workers": workers,
        "shards": len(shards),
        "seconds": round(seconds, 2),
        "ideal_seconds": round(ideal, 2),
        "efficiency": round(ideal / seconds, 4),
        "rows_per_second": round(len(shards) * SHARD_ROWS / seconds),
        "shards_per_second": round(len(shards) / seconds, 2),
        "records_per_second": round(records / seconds, 2),
        "driver_cores": round(cpu / seconds, 3),
        "driver_ms_per_shard": round(cpu / len(shards) * 1e3, 2),
    }


def _shard(index: int) -> Shard:
    row = index * SHARD_ROWS
    piece = Piece(f"part-{index // 8:05d}.parquet", index % 8, 0, index % 8 * SHARD_ROWS, SHARD_ROWS, row, 1 << 27)
    return Shard(index, row, SHARD_ROWS, (piece,))


def _report(shard: Shard, scores: str, worker: str, seconds: float) -> ShardReport:
    names = (
        "entropy",
        "expected_entropy",
        "bald",
        "variation_ratio",
        "mean_std",
        "least_confidence",
        "margin",
        "random",
    )
    stages = dict.fromkeys(("read", "decode", "copy", "model", "reduce", "write", "idle"), seconds / 7)
    return ShardReport(
        shard=shard.index,
        scores=scores,
        errors=None,
        scored=shard.rows,
        rejected=0,
        excluded=0,
        best=dict.fromkeys(names, random.random()),
        reasons={},
        seconds=seconds,
        worker=worker,
        peak_memory=3 << 30,
        stages=stages,
    )


def main() -> None:
    """Measure; print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=list(WORKERS))
    parser.add_argument("--rate", type=float, default=RATE, help="rows a second of a worker")
    parser.add_argument("--journal-ms", type=float, default=0.0, help="of each request of the journal to its storage")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(num_cpus=max(given.workers), include_dashboard=False, object_store_memory=200 << 20, log_to_driver=False)
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for workers in given.workers:
            results.append(measure(workers, Path(folder), given.rate, given.journal_ms / 1000))
            print(json.dumps(results[-1]), flush=True)
    ray.shutdown()
    setting = {
        "rate": given.rate,
        "journal_ms": given.journal_ms,
        "shard_rows": SHARD_ROWS,
        "rounds": ROUNDS,
        "hosts": HOSTS,
        "part_bytes_a_row": PART_BYTES,
    }
    about = {"environment": environment(), "load": os.getloadavg(), "targets": TARGETS, "setting": setting}
    if given.out:
        given.out.write_text(json.dumps(about | {"results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
