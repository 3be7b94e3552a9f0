"""How long until work goes on after a machine died: from its death until another worker has what it was at.

Two machines are played on this one by `ray.cluster_utils.Cluster`, a worker on each; one is killed with all that runs
on it, another joins in its place, and so on. A shard takes about a second.

    python benchmarks/bench_recovery.py --kills 5 --out results/recovery.json
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_AUTH_MODE"] = "disabled"

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
import torch
from numpy.typing import NDArray
from ray.cluster_utils import Cluster
from torch import nn

from poolscore.engine.config import parse_config
from poolscore.engine.prepare import prepare_job
from poolscore.engine.run.coordinator import Coordinator
from poolscore.engine.run.events import RunEvent
from poolscore.engine.run.fleet import Done, Event, Lost
from poolscore.engine.run.ray_fleet import RayFleet
from poolscore.engine.run.task import Task
from poolscore.engine.run.totals import Totals
from poolscore.jobs.bench.environment import environment

ROW_SECONDS, SHARD_ROWS = 0.01, 100
STORE = 80_000_000  # bytes of a node's object store


def network() -> nn.Module:
    """A small one: what is timed is the cluster."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3))


def slowly(value: float) -> NDArray[np.float32]:
    """A row that takes its time."""
    time.sleep(ROW_SECONDS)
    return np.full(4, value, dtype=np.float32)


class WatchedFleet(RayFleet):
    """Remembers when what happened: (seconds, what, worker, shards)."""

    def __init__(self, *given: Any) -> None:
        self.log: list[tuple[float, str, int, list[int]]] = []
        super().__init__(*given)

    def submit(self, worker: int, task: Task) -> None:
        """See Fleet."""
        self.log.append((time.monotonic(), "given", worker, [task.shard.index]))
        super().submit(worker, task)

    def wait(self, seconds: float) -> list[Event]:
        """See Fleet."""
        events = super().wait(seconds)
        for event in events:
            if isinstance(event, Lost):
                tasks = [*event.waiting, *([event.running] if event.running else [])]
                self.log.append((time.monotonic(), "lost", event.worker, [task.shard.index for task in tasks]))
            elif isinstance(event, Done):
                self.log.append((time.monotonic(), "done", -1, [event.task.shard.index]))
        return events

    def node_of(self, worker: int) -> str | None:
        """Where a worker is."""
        return self._workers[worker].node if worker in self._workers else None


def kill(cluster: Cluster, node: Any) -> None:
    """As when a machine loses power: the raylet and all that it started."""
    raylet = node.all_processes["raylet"][0].process.pid
    children = Path(f"/proc/{raylet}/task/{raylet}/children").read_text().split()
    for pid in [raylet, *map(int, children)]:
        os.kill(pid, signal.SIGKILL)
    cluster.remove_node(node, allow_graceful=False)


def one_death(cluster: Cluster, fleet: WatchedFleet, victim: Any) -> dict[str, float]:
    """Kill a machine that is at work. Seconds until the driver knows, until another worker has a shard of it, and until
    one of them is done."""
    until(lambda: any(fleet.node_of(worker) == victim.node_id for _, what, worker, _ in fleet.log if what == "given"))
    time.sleep(3.3)  # amid a shard
    before, start = len(fleet.log), time.monotonic()
    kill(cluster, victim)
    until(lambda: any(what == "lost" for _, what, *_ in fleet.log[before:]))
    at, _, _, shards = next(entry for entry in fleet.log[before:] if entry[1] == "lost")

    def first(wanted: str) -> float:
        found = until(
            lambda: [t for t, what, _, about in fleet.log[before:] if what == wanted and t >= at and about[0] in shards]
        )
        return float(round(found[0] - start, 2))

    return {"known": round(at - start, 2), "handed_out_again": first("given"), "done_again": first("done")}


def until(condition: Any, seconds: float = 120.0) -> Any:
    """Wait for something."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.01)
    return found


def measure(folder: Path, kills: int) -> list[dict[str, float]]:
    """One run during which so many machines die."""
    (folder / "pool").mkdir()
    rows = 40 * SHARD_ROWS * (kills + 2)
    pq.write_table(pa.table({"x": np.arange(rows, dtype=np.float64)}), folder / "pool/0.parquet", row_group_size=100)
    config = parse_config(
        {
            "pool": {
                "uri": str(folder / "pool"),
                "input": "x",
                "decode": {"kind": "function", "function": "bench_recovery:slowly"},
            },
            "model": {"source": "bench_recovery:network", "path": str(Path(__file__).parent), "task": "multiclass"},
            "passes": {"count": 2},
            "select": {"k": 10},
            "run": {"dir": str(folder / "run"), "shard_rows": SHARD_ROWS, "device": "cpu"}
            | {"batch_size": 20, "decode_threads": 1},
        }
    )
    prepared = prepare_job(config)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": STORE})
    nodes = [cluster.add_node(num_cpus=2, object_store_memory=STORE) for _ in range(2)]
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    fleet = WatchedFleet(prepared.job)
    enough = threading.Event()
    job = threading.Thread(target=coordinate, args=(fleet, prepared.plan.shards, enough), daemon=True)
    job.start()
    try:
        found = []
        for i in range(kills):  # in the main thread, as Ray wants it
            found.append(one_death(cluster, fleet, nodes[i]))
            nodes.append(cluster.add_node(num_cpus=2, object_store_memory=STORE))
        return found
    finally:
        enough.set()
        job.join(60)
        fleet.close()
        ray.shutdown()
        cluster.shutdown()


def coordinate(fleet: WatchedFleet, shards: Any, enough: threading.Event) -> None:
    """Hand out shards until it is enough. What is reported is forgotten."""

    class Nowhere:
        def append(self, report: Any) -> None:
            pass

    nowhere: Any = Nowhere()
    Coordinator(
        fleet,
        nowhere,
        done=Totals(),
        pool_rows=len(shards) * SHARD_ROWS,
        max_bad_fraction=1.0,
        max_bad_rows=None,
        profile=None,
        on_profile=lambda profile: None,
        on_progress=lambda state: None,
        on_event=tell,
        stop_when=lambda: "enough" if enough.is_set() else None,
    ).run(shards, seed=0)


def tell(event: RunEvent) -> None:
    """A sign of life."""
    print(event.what, event.worker, event.why[:60], flush=True)


def main() -> None:
    """Print and write the figures."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--kills", type=int, default=5)
    arguments.add_argument("--note", help="what else must be known of the figures, such as a busy machine")
    arguments.add_argument("--out", type=Path, help="JSON, with the environment beside the figures")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HOME"] = folder
        deaths = measure(Path(folder), given.kills)
    medians = {name: statistics.median(death[name] for death in deaths) for name in deaths[0]}
    about = {"environment": environment(), "note": given.note, "load": os.getloadavg()}
    about |= {"seconds": deaths, "median": medians, "worst": max(death["handed_out_again"] for death in deaths)}
    print(json.dumps(about, indent=2))
    if given.out:
        given.out.write_text(json.dumps(about, indent=2) + "\n")


if __name__ == "__main__":
    main()
