"""What Prometheus scrapes from a real Ray while a job runs, and when it is done."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from poolscore.engine.config import Config
from poolscore.engine.run.metrics import COUNTERS, GAUGES

SAMPLE = re.compile(r"ray_(poolscore_\w+?){(.*)} (\S+)")


class Endpoint:
    """Ray's metrics of one machine."""

    def __init__(self, port: int, logs: Path) -> None:
        self.url = f"http://127.0.0.1:{port}/metrics"
        self.logs = logs

    def sum(self, name: str, **labels: str) -> float:
        """Over all series of a metric that have these labels."""
        found = (m for m in map(SAMPLE.fullmatch, self._text().splitlines()) if m is not None and m[1] == name)
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        return sum(float(m[3]) for m in found if all(w in m[2].split(",") for w in wanted))

    def names(self) -> set[str]:
        return {m[1] for m in map(SAMPLE.fullmatch, self._text().splitlines()) if m is not None}

    def _text(self) -> str:
        try:
            with urllib.request.urlopen(self.url, timeout=10) as answer:
                return str(answer.read().decode())
        except OSError:  # it is starting
            return ""


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[str, Endpoint]]:
    """A Ray of its own, with a port for metrics: its address and endpoint."""
    from chaos.nodes import STORE
    from ray.cluster_utils import Cluster

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    on_sigterm = signal.getsignal(signal.SIGTERM)
    head = {"num_cpus": 2, "object_store_memory": STORE, "include_dashboard": False, "metrics_export_port": port}
    made: Any = Cluster(initialize_head=True, head_node_args=head)
    try:
        yield made.address, Endpoint(port, Path(made.head_node.get_logs_dir_path()))
    finally:
        made.shutdown()
        signal.signal(signal.SIGTERM, on_sigterm)


def run(*command: str, **environment: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, *command], env={**os.environ, **environment}, stderr=pipe, stdout=pipe, text=True
    )


def test_scraped_totals_are_those_of_the_run(
    cluster: tuple[str, Endpoint], digit_config: Callable[..., Config], tmp_path: Path
) -> None:
    address, endpoint = cluster
    options = {"executor": "ray", "address": address, "workers": 2, "device": "cpu", "shard_rows": 50}
    config = digit_config(run={**options, "max_bad_fraction": 0.5}, shortlist={"rows": 0})
    damage(tmp_path / "pool" / "part-1.parquet", 7)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    often = {"HOME": str(tmp_path), "RAY_metrics_report_interval_ms": "1000"}
    job = run("-m", "poolscore.jobs", "score", str(tmp_path / "config.yaml"), POOLSCORE_LOG="json", **often)
    seen: set[str] = set()
    while job.poll() is None:
        seen |= endpoint.names()
        time.sleep(0.2)
    out, err = job.communicate()
    assert job.returncode == 0, out + err
    known = json.loads((tmp_path / "run/run.json").read_text())
    totals, run_id = known["totals"], known["id"]
    assert {"poolscore_run_rows", "poolscore_workers"} <= seen, "they are to be scraped while the job runs"
    seen |= endpoint.names()
    assert {f"poolscore_{name}" for name in GAUGES} <= seen
    assert totals["rejected_by"] == {"decode": 7}
    for name, value in {"rows_scored": totals["scored"], "rows_rejected": 7, "shards_done": 12}.items():
        assert (
            endpoint.sum(f"poolscore_{name}_total", run_id=run_id) == value == endpoint.sum(f"poolscore_{name}_total")
        )
    assert endpoint.sum("poolscore_rows_rejected_total", stage="decode") == 7
    joined = sum(event["what"] == "joined" for event in known["events"])
    assert endpoint.sum("poolscore_events_total", what="joined") == joined >= 1
    for stage, seconds in totals["stages"].items():
        assert endpoint.sum("poolscore_stage_seconds_total", stage=stage) == pytest.approx(seconds)
    assert {name.removesuffix("_total") for name in seen} <= {f"poolscore_{name}" for name in [*COUNTERS, *GAUGES]}
    lines = [json.loads(line) for line in err.splitlines()]
    assert sum(line.get("event") == "scored" for line in lines) == 12
    assert all(line["run_id"] == run_id and line["epoch"] == 1 for line in lines if "event" in line)
    of_workers = [line for file in endpoint.logs.glob("worker-*.err") for line in file.read_text().splitlines()]
    ready = [json.loads(line) for line in of_workers if "is ready" in line]
    assert {(line["run_id"], line["epoch"]) for line in ready} == {(run_id, 1)}


def test_the_last_values_leave_with_the_driver(cluster: tuple[str, Endpoint], tmp_path: Path) -> None:
    address, endpoint = cluster
    hourly = {"HOME": str(tmp_path), "RAY_metrics_report_interval_ms": "3600000"}
    driver = run("-c", DRIVER, address, **hourly)
    out, err = driver.communicate()
    assert driver.returncode == 0, out + err
    assert endpoint.sum("poolscore_rows_scored_total", run_id="last") == 3
    assert endpoint.sum("poolscore_run_rows", run_id="last") == 5


DRIVER = """
import sys
import ray
from poolscore.engine.run.coordinator import State
from poolscore.engine.run.journal import ShardReport
from poolscore.engine.run.metrics import Metrics
from poolscore.engine.run.ray_cluster import Counter, Gauge, connect
from poolscore.engine.run.totals import Totals
connect(sys.argv[1])
metrics = Metrics(Counter, Gauge, "last", rows=5, shards=1)
metrics.report(ShardReport(0, "a", None, 3, 0, 0, {}, {}, 1.0, "worker-0@here", 1))
metrics.progress(State(Totals(), 1, 0, 0, 0))
metrics.end()
ray.shutdown()
"""


def damage(file: Path, rows: int) -> None:
    """The first pictures of a file of the pool are cut off."""
    table = pq.read_table(file)
    pictures = [p[:40] if i < rows else p for i, p in enumerate(table["image"].to_pylist())]
    column = table.schema.get_field_index("image")
    pq.write_table(table.set_column(column, "image", pa.array(pictures, pa.binary())), file, row_group_size=50)
