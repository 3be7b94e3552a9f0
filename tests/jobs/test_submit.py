"""Jobs on a real Ray cluster (tests/ray_head.py), handed in by the command line in a process of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from chaos.job import until
from conftest import scores_of_run, write_pool
from ray_head import TOKEN, Head, ray_head

from poolscore.engine.run.directory import RunDirectory, exists
from poolscore.jobs.submit.job import Job, find_job

pytestmark = pytest.mark.timeout(600)

MODEL = """
import os
import time

import poolscore.engine
from torch import nn

print("poolscore comes from", poolscore.engine.__file__, flush=True)


def net():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 10))


def numbers(value):
    import numpy

    time.sleep(float(os.environ.get("PACE", "0")))
    return numpy.asarray(value, "float32")
"""


@pytest.fixture(scope="module", params=[False, pytest.param(True, marks=pytest.mark.slow)], ids=["open", "token"])
def head(request: pytest.FixtureRequest) -> Iterator[Head]:
    """A cluster of two CPUs; with a token or without."""
    with ray_head(token=request.param) as started:
        yield started


class Desk:
    """From where jobs are handed in: a folder with a configuration and a model, and an environment."""

    def __init__(self, folder: Path, head: Head) -> None:
        self.folder, self.head = folder, head
        generator = torch.Generator().manual_seed(0)
        values = torch.rand(200, 64, generator=generator).tolist()
        table = pa.table({"id": [f"row-{i}" for i in range(200)], "x": pa.array(values, pa.list_(pa.float32()))})
        write_pool(folder / "pool", table, rows_per_group=20)
        (folder / "mynet.py").write_text(MODEL)
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
            "HOME": str(head.folder / "home"),
            "RAY_API_SERVER_ADDRESS": head.url,
        }
        self.program = (sys.executable, "-m", "poolscore.jobs")

    def config(self, run_dir: str = "run", **sections: dict[str, Any]) -> Path:
        """Written where the model is."""
        base: dict[str, dict[str, Any]] = {
            "pool": {"uri": "pool", "input": "x", "id": "id"}
            | {"decode": {"kind": "function", "function": "mynet:numbers"}},
            "model": {"source": "mynet:net", "weights": "net.pt", "task": "multiclass", "classes": 10},
            "passes": {"count": 3},
            "select": {"k": 10},
            "run": {"dir": run_dir, "workers": 2, "batch_size": 16, "shard_rows": 20, "verify_rows": 0}
            | {"decode_threads": 0},
            "submit": {"python": sys.executable},
        }
        for name, values in sections.items():
            base[name] = {**base.get(name, {}), **values}
        path = self.folder / f"{run_dir}.yaml"
        path.write_text(yaml.safe_dump(base))
        return path

    def start(self, *words: object, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*self.program, *map(str, words)],
            env=self.environment | environment,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *words: object, code: int = 0, **environment: str) -> str:
        """What a command says."""
        process = self.start(*words, **environment)
        said, _ = process.communicate(timeout=300)
        assert process.returncode == code, said
        assert TOKEN not in said
        return said


@pytest.fixture(scope="module")
def desk(head: Head, tmp_path_factory: pytest.TempPathFactory) -> Desk:
    folder = tmp_path_factory.mktemp("desk")
    with torch.random.fork_rng(devices=[]), pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        desk = Desk(folder, head)
        torch.manual_seed(0)
        torch.save(import_module("mynet").net().state_dict(), folder / "net.pt")
        del sys.modules["mynet"]
    return desk


def find(desk: Desk, name: str) -> Job | None:
    """As a process of the desk would see it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", desk.environment["HOME"])
        return find_job(name, desk.head.url)


def found(desk: Desk, name: str) -> Job:
    job = find(desk, name)
    assert job is not None
    return job


def test_submitted_stopped_and_submitted_again(desk: Desk) -> None:
    """The same bits as `score` in one process; `logs`, `stop` and `list` on the way."""
    paced = desk.config("run", submit={"python": sys.executable, "env_vars": {"PACE": "0.05"}})
    said = desk.run("submit", paced, "--name", "night-1")
    assert "submitted night-1" in said
    assert "night-1 is at work" in said
    run_dir = str(desk.folder / "run")
    job = found(desk, "night-1")
    assert (job.state, job.run_dir, job.exit_code) == ("running", run_dir, None)
    assert "night-1 is at work" in desk.run("submit", paced, code=2)  # no second one beside it
    until("a shard is done", lambda: exists(run_dir) and RunDirectory(run_dir).totals().shards)
    # Not from what is installed on the machine, if it is.
    assert re.search("poolscore comes from .*/py_modules_files/_ray_pkg_", desk.run("logs", "night-1"))
    assert "night-1: stopped" in desk.run("stop", "night-1")
    assert found(desk, "night-1").exit_code == 130
    run = RunDirectory(run_dir)
    assert run.info["status"] == "interrupted"  # in good order
    done = run.reports()
    assert 0 < len(done) < 10
    assert "has ended already: stopped" in desk.run("stop", "night-1")

    said = desk.run("submit", desk.config("run"), "--wait", "--resume")
    assert "200 of 200 rows" in said
    run = RunDirectory(run_dir)
    assert run.succeeded
    assert {shard: run.reports()[shard] for shard in done} == done  # none of them was scored again
    assert [job["exit_code"] for job in json.loads(desk.run("list", "--json"))[:2]] == [0, 130]
    desk.run("score", desk.config("plain", run={"dir": "plain", "executor": "local"}))
    assert scores_of_run(run_dir).equals(scores_of_run(str(desk.folder / "plain")))
    here, there = (desk.folder / name / "selection.parquet" for name in ("plain", "run"))
    assert pq.read_table(here).equals(pq.read_table(there))


@pytest.mark.parametrize(
    ("sections", "says"),
    [
        ({"model": {"source": "nobody:net"}}, "model.source: cannot import 'nobody'"),
        ({"model": {"weights": "missing.pt"}}, "model.weights: there is no .*missing.pt on the cluster's machine"),
        ({"run": {"device": "cuda"}}, "run.device: 'cuda' is asked for, but the Ray cluster has no GPU"),
        ({"run": {"executor": "local"}}, "run.executor: 'local' scores in one process"),
    ],
)
def test_what_is_wrong_is_told_within_seconds(desk: Desk, sections: dict[str, dict[str, Any]], says: str) -> None:
    said = desk.run("submit", desk.config("wrong", **sections), code=2)
    assert re.search(f"^poolscore: .*{says}", said, re.MULTILINE), said
    assert "Traceback" not in said
    assert not exists(str(desk.folder / "wrong"))


def test_a_name_is_taken_once(desk: Desk) -> None:
    config = desk.config("twice", model={"source": "nobody:net"})
    desk.run("submit", config, "--name", "twice", code=2)
    assert "twice already exists" in desk.run("submit", config, "--name", "twice", code=2)


def test_a_job_that_nobody_knows(desk: Desk) -> None:
    for command in ("logs", "stop"):
        assert "has no job 'nobodys'" in desk.run(command, "nobodys", code=2)


def test_the_port_of_the_cluster_itself_is_told(desk: Desk) -> None:
    assert "is this the port of the cluster itself" in desk.run("list", "--address", desk.head.gcs, code=2)


def test_ctrl_c_leaves_the_job_alone(desk: Desk) -> None:
    config = desk.config("left", submit={"python": sys.executable, "env_vars": {"PACE": "0.2"}})
    process = desk.start("submit", config, "--wait", "--name", "left")
    until("it is at work", lambda: (job := find(desk, "left")) is not None and job.state == "running")
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "left goes on; `poolscore logs left --follow` shows it, `poolscore stop left` ends it" in said
    assert found(desk, "left").at_work
    follower = desk.start("logs", "left", "--follow")
    desk.run("stop", "left")
    follower.communicate(timeout=60)
    assert follower.returncode == 130


def test_another_token(desk: Desk) -> None:
    if not desk.head.token_file.exists():
        pytest.skip("this cluster wants none")
    elsewhere = str(desk.folder)
    assert "refuses the token" in desk.run("list", code=2, RAY_AUTH_TOKEN="another" * 8)
    assert "wants a token, and there is none" in desk.run("list", code=2, HOME=elsewhere)
    desk.run("list", HOME=elsewhere, RAY_AUTH_TOKEN=TOKEN)
