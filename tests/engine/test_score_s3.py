"""The whole way on a real S3 server: pool, weights, exclude list, labelled rows and run directory in a bucket give what
the same things on a disk give, bit for bit."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from conftest import TESTS, scores_of_run, taking_ctrl_c, write_pool
from pyarrow import fs
from s3_server import S3Server, proxy_before
from typer.testing import CliRunner

from poolscore.engine.before.check import CheckResult
from poolscore.engine.config import Config, parse_config
from poolscore.engine.errors import DONE, ConfigError, InterruptedRun
from poolscore.engine.prepare import prepare_job
from poolscore.engine.run.coordinator import State
from poolscore.engine.run.directory import RunDirectory
from poolscore.engine.score import score_pool
from poolscore.engine.shortlist.read import read_shortlist
from poolscore.engine.storage.filesystem import locate
from poolscore.engine.verify.verify import verify_run
from poolscore.jobs.cli import app

KILLED = """
import os, signal, sys
from poolscore.engine import load_config, score_pool

def kill(state):
    if state.totals.shards >= 2:
        os.kill(os.getpid(), signal.SIGKILL)

score_pool(load_config(sys.argv[1]), on_progress=kill)
"""


@dataclass(frozen=True)
class Twins:
    """The same job on a disk, where it was run, and in a bucket."""

    folder: Path
    bucket: str
    scores: pa.Table
    selection: bytes

    def config(self, root: str, run: str, more: dict[str, Any] | None = None, **changes: Any) -> Config:
        """The job with everything below `root`."""
        return parse_config(
            {
                "pool": {"uri": "pool", "input": "image", "decode": {"mode": "L"}, "id": "id", "keep": ["label"]}
                | {"exclude": f"{root}/sent.csv", "uri": f"{root}/pool"},
                "model": {"source": "nets:cnn", "path": str(TESTS), "task": "multiclass", "classes": 10}
                | {"weights": f"{root}/weights.pt"},
                "passes": {"count": 3},
                "select": {"k": 20},
                "run": {
                    "dir": f"{root}/{run}",
                    "executor": "local",
                    "verify_rows": 0,
                    "batch_size": 16,
                    "shard_rows": 50,
                    **changes,
                },
                **(more or {}),
            }
        )


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory, digits: pa.Table, s3_server: S3Server) -> Twins:
    folder = tmp_path_factory.mktemp("twins")
    write_pool(folder / "pool", digits.slice(0, 300))
    pq.write_table(digits.slice(1700, 60), folder / "labelled.parquet")
    (folder / "sent.csv").write_text("id\ndigit-0007\ndigit-0008\n")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        torch.save(nets.cnn().state_dict(), folder / "weights.pt")
    bucket = s3_server.new_bucket()
    at = locate(f"{bucket}/")
    for name in ("pool", "labelled.parquet", "sent.csv", "weights.pt"):
        fs.copy_files(str(folder / name), f"{at.path}/{name}", fs.LocalFileSystem(), at.filesystem)
    job = Twins(folder, bucket, pa.table({}), b"")
    done = score_pool(job.config(str(folder), "run"))
    return Twins(folder, bucket, scores_of_run(done.run_dir), Path(done.selection).read_bytes())


_runs = itertools.count()


@pytest.fixture
def config(twins: Twins) -> Config:
    """The job in the bucket, with a run directory of its own."""
    return twins.config(twins.bucket, f"runs/{next(_runs)}")


def bytes_at(uri: str) -> bytes:
    at = locate(uri)
    with at.filesystem.open_input_stream(at.path, compression=None) as file:
        return bytes(file.read())


def stop_after(shards: int, stop: Callable[[], None]) -> Callable[[State], None]:
    def on_progress(state: State) -> None:
        if state.totals.shards >= shards:
            stop()

    return on_progress


def interrupt() -> None:
    raise KeyboardInterrupt


def test_a_job_in_a_bucket_gives_what_a_local_one_gives(twins: Twins) -> None:
    checked: list[CheckResult] = []
    check = {"check": {"labelled": f"{twins.bucket}/labelled.parquet"}}
    config = twins.config(twins.bucket, f"runs/{next(_runs)}", check)
    there = score_pool(config, on_check=checked.append)
    assert checked[0].rows == 60
    assert there.selection == f"{config.run.dir}/selection.parquet"
    assert (there.exit_code, there.totals.excluded, there.totals.shards) == (DONE, 2, 6)
    assert scores_of_run(there.run_dir).equals(twins.scores)
    assert bytes_at(there.selection) == twins.selection
    mine, theirs = (read_shortlist(RunDirectory(at)) for at in (there.run_dir, str(twins.folder / "run")))
    assert mine.rows.equals(theirs.rows)
    assert np.array_equal(mine.features_NF, theirs.features_NF)
    run = RunDirectory(there.run_dir)
    assert run.succeeded
    assert run.config == config
    assert run.info["identity"] == RunDirectory(str(twins.folder / "run")).info["identity"]
    with pytest.raises(ConfigError, match=r"--fresh: s3://.* holds a run, .* choose another run.dir"):
        score_pool(config, fresh=True)


def test_ray_workers_read_and_write_the_bucket(twins: Twins, ray_session: None) -> None:
    done = score_pool(twins.config(twins.bucket, "ray", executor="ray", workers=2, device="cpu"))
    assert scores_of_run(done.run_dir).equals(twins.scores)
    assert bytes_at(done.selection) == twins.selection


def test_an_interrupted_job_goes_on_in_the_bucket(twins: Twins, config: Config) -> None:
    with pytest.raises(InterruptedRun, match="goes on"):
        score_pool(config, on_progress=stop_after(2, interrupt))
    run = RunDirectory(config.run.dir)
    first = {report.scores for report in run.reports().values()}
    assert 2 <= len(first) < 6  # and those that ended while it was being interrupted
    assert (run.info["status"], run.succeeded) == ("interrupted", False)
    run.storage.publish("scores/part-00005-0123abcd.parquet", lambda file: file.write(b"of a worker that was killed"))
    resumed = score_pool(config, must_resume=True)
    assert first < {report.scores for report in run.reports().values()}  # nothing was done twice
    assert len(run.storage.names("scores")) == resumed.totals.shards  # what nobody reported was swept
    assert scores_of_run(config.run.dir).equals(twins.scores)
    assert bytes_at(resumed.selection) == twins.selection


def test_a_resumed_job_reads_no_finished_shard(
    twins: Twins, digits: pa.Table, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_pool(tmp_path / "pool", digits.slice(0, 300), files=6)  # a shard each
    at = locate(f"{twins.bucket}/six")
    fs.copy_files(str(tmp_path / "pool"), at.path, fs.LocalFileSystem(), at.filesystem)
    config = twins.config(twins.bucket, f"runs/{next(_runs)}")
    config = config.model_copy(update={"pool": config.pool.model_copy(update={"uri": f"{twins.bucket}/six"})})
    with pytest.raises(InterruptedRun):
        score_pool(config, on_progress=stop_after(3, interrupt))
    run = RunDirectory(config.run.dir)
    finished = run.reports()
    asked: dict[int, int] = {}  # shards that are finished → requests until then
    with proxy_before(s3_server.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        prepared = prepare_job(config, fresh=False)
        proxy.seen.clear()
        score_pool(config, prepared=prepared, on_progress=lambda s: asked.setdefault(s.totals.shards, len(proxy.seen)))
    read = [line for line in proxy.seen[: asked[6]] if not line.startswith("PUT")]
    assert not [line for line in read if "/scores/part" in line or "/errors/part" in line]
    files = {shard: f"/six/{run.plan.shards[shard].pieces[0].path}" for shard in range(6)}
    assert {shard for shard, file in files.items() if any(file in line for line in read)} == set(range(6)) - set(
        finished
    )
    journal = [line for line in proxy.seen[: asked[len(finished)]] if line.startswith("GET") and "_log" in line]
    # Each record is read once; besides, four times which epoch is the newest, twice if it is closed, once its names.
    assert len(journal) == len(finished) + 4 * 2 + 2 + 1


def test_a_killed_job_goes_on_in_the_bucket(twins: Twins, config: Config, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "job.yaml")], check=False)
    assert killed.returncode == -signal.SIGKILL
    run = RunDirectory(config.run.dir)
    assert 2 <= len(run.reports()) < 6
    assert run.info["status"] == "running"
    resumed = score_pool(config, must_resume=True)
    assert scores_of_run(config.run.dir).equals(twins.scores)
    assert bytes_at(resumed.selection) == twins.selection


def test_ctrl_c_in_the_middle_of_a_request(
    twins: Twins, config: Config, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    strike_at: str | None = None  # a part of a request's first line

    def look(request: str) -> None:
        nonlocal strike_at
        if strike_at is not None and strike_at in request:
            strike_at = None
            os.kill(os.getpid(), signal.SIGINT)

    with taking_ctrl_c(), proxy_before(s3_server.endpoint, look) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        for request in (f"PUT {config.run.dir[4:]}/scores/", f"GET {twins.bucket[4:]}/pool/part"):

            def arm(state: State, request: str = request) -> None:
                nonlocal strike_at
                if state.workers and state.totals.shards < 6:
                    strike_at = request

            with pytest.raises(InterruptedRun, match="goes on"):
                score_pool(config, on_progress=arm)
            assert RunDirectory(config.run.dir).info["status"] == "interrupted"
        resumed = score_pool(config, must_resume=True)
    assert bytes_at(resumed.selection) == twins.selection


def test_a_finished_run_is_read_from_the_bucket(twins: Twins, config: Config) -> None:
    score_pool(config)
    remote, local = config.run.dir, str(twins.folder / "run")
    for run in (remote, local):
        for words in (
            ["select", run, "--name", "next", "--k", "7", "--score", "margin", "--exclude", f"{run}/selection.parquet"],
            ["report", run],
            ["status", run, "--json"],
        ):
            shown = CliRunner().invoke(app, words)
            assert shown.exit_code == 0, shown.output
        assert json.loads(shown.stdout)["run"] == run
    assert bytes_at(f"{remote}/selections/next.parquet") == bytes_at(f"{local}/selections/next.parquet")
    page = bytes_at(f"{remote}/report.html").decode()
    assert page.count("data:image/jpeg") == 20  # pictures from the pool in the bucket
    assert "not shown" not in page
    taken = CliRunner().invoke(app, ["select", remote, "--name", "next"])
    assert isinstance(taken.exception, ConfigError)
    assert "exists in s3://" in str(taken.exception)


def test_a_run_inside_its_pool_is_refused(twins: Twins) -> None:
    with pytest.raises(ConfigError, match="lies in the pool's folder"):
        score_pool(twins.config(twins.bucket, "pool/run"))


def test_a_run_in_a_bucket_is_verified_and_extended(config: Config, twins: Twins, digits: pa.Table) -> None:
    base = score_pool(config)
    found = verify_run(RunDirectory(base.run_dir), prepare_job(config), 40)
    assert (found.rows, found.strange, found.wrong) == (40, 0, [])
    at = locate(f"{twins.bucket}/pool/part-9.parquet")
    pq.write_table(digits.slice(300, 30), at.path, filesystem=at.filesystem)
    try:
        more = score_pool(twins.config(twins.bucket, f"runs/{next(_runs)}"), extends=base.run_dir)
    finally:
        at.filesystem.delete_file(at.path)
    assert scores_of_run(more.run_dir)["id"].to_pylist() == [f"digit-{i:04d}" for i in range(300, 330)]
    assert RunDirectory(more.run_dir).info["extends"][0]["run"] == base.run_dir
