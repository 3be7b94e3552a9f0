"""Jobs on a real Ray cluster (tests/ray_head.py), handed in by the command line: by this process, or by others."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from chaos.job import until
from conftest import TESTS, scores_of_run, taking_ctrl_c, write_pool
from ray_head import TOKEN, Head, ray_head
from typer.testing import CliRunner

from poolscore.engine.errors import PoolscoreError
from poolscore.engine.run.directory import RunDirectory, exists
from poolscore.jobs.cli import app
from poolscore.jobs.submit.job import Job, find_job

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore:ssl=None is deprecated:DeprecationWarning"),  # Ray's client, of aiohttp's
]

ROWS, SHARDS = 200, 10
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

    while value[0] > 1 and os.path.exists(os.environ.get("HOLD", "")):
        time.sleep(0.05)
    return numpy.asarray(value, "float32")
"""


@pytest.fixture(scope="module", params=[True, pytest.param(False, marks=pytest.mark.slow)], ids=["token", "open"])
def head(request: pytest.FixtureRequest) -> Iterator[Head]:
    """A cluster of two CPUs, which wants a token. `make test-all` adds the same on one that is open."""
    with ray_head(token=request.param) as started:
        yield started


class Desk:
    """From where jobs are handed in: a folder with a configuration and a model, and an environment."""

    def __init__(self, folder: Path, head: Head) -> None:
        self.folder, self.head = folder, head
        generator = torch.Generator().manual_seed(0)
        values = torch.rand(ROWS, 64, generator=generator).tolist()
        values[-1][0] = 2.0  # the row that can be held
        table = pa.table({"id": [f"row-{i}" for i in range(ROWS)], "x": pa.array(values, pa.list_(pa.float32()))})
        write_pool(folder / "pool", table, rows_per_group=20)
        (folder / "mynet.py").write_text(MODEL)
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
            "HOME": str(head.folder / "home"),
            "RAY_API_SERVER_ADDRESS": head.url,
        }
        self.hold = folder / "hold"

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
        with taking_ctrl_c():
            return subprocess.Popen(
                [sys.executable, "-m", "poolscore.jobs", *map(str, words)],
                env=self.environment | environment,
                cwd=self.folder,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )

    def run(self, *words: object, code: int = 0, out_only: bool = False, **environment: str) -> str:
        """What a command of this process says; `out_only`: on standard output."""
        with self.in_environment(**environment):
            result = CliRunner().invoke(app, [str(word) for word in words])
        said = result.stdout if out_only else result.output
        if isinstance(result.exception, PoolscoreError):
            said, given = f"{said}\npoolscore: {result.exception}", result.exception.exit_code
        elif result.exception is None or isinstance(result.exception, SystemExit):
            given = result.exit_code
        else:
            raise result.exception
        assert given == code, said
        assert TOKEN not in result.output
        return said

    @contextmanager
    def in_environment(self, **changes: str) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            for name in os.environ.keys() - self.environment.keys():
                patch.delenv(name)
            for name, value in (self.environment | changes).items():
                patch.setenv(name, value)
            yield

    def find(self, name: str) -> Job:
        with self.in_environment():
            found = find_job(name)
        assert found is not None
        return found

    def holding(self, **sections: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """Sections of a job that is held at its last row, until the file goes."""
        self.hold.touch()
        return {**sections, "submit": {"python": sys.executable, "env_vars": {"HOLD": str(self.hold)}}}


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


@pytest.fixture(autouse=True)
def _nobody_is_left_at_work(desk: Desk) -> Iterator[None]:
    yield
    for job in json.loads(desk.run("list", "--json")):
        if job["exit_code"] is None:
            desk.run("stop", job["name"])


def test_submitted_left_stopped_and_submitted_again(desk: Desk) -> None:
    """The same bits as `score` in one process, after Ctrl-C, `stop` and a second job."""
    config, run_dir = desk.config("run", **desk.holding()), str(desk.folder / "run")
    process = desk.start("submit", config, "--wait", "--name", "night-1")
    until("the run has begun", lambda: exists(run_dir))
    until("some shards are done", lambda: RunDirectory(run_dir).totals().shards > 3)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "submitted night-1" in said
    # Not from what is installed on the machine, if it is.
    assert re.search("poolscore comes from .*/py_modules_files/_ray_pkg_", said)
    assert "night-1 goes on; `poolscore logs night-1 --follow` shows it, `poolscore stop night-1` ends it" in said
    job = desk.find("night-1")
    assert (job.state, job.run_dir, job.exit_code) == ("running", run_dir, None)
    assert "night-1 is at work" in desk.run("submit", config, code=2)  # no second one beside it
    other = desk.config("other")
    assert "--name: night-1 is at work" in desk.run("submit", other, "--name", "night-1", code=2)
    assert "checked on" in desk.run("logs", "night-1")
    assert json.loads(desk.run("stop", "night-1", "--json", out_only=True))["state"] == "stopped"
    assert desk.find("night-1").exit_code == 130
    run = RunDirectory(run_dir)
    assert run.info["status"] == "interrupted"  # in good order
    done = run.reports()
    assert 3 < len(done) < SHARDS
    assert "has ended already: stopped" in desk.run("stop", "night-1")

    desk.hold.unlink()
    said = desk.run("submit", desk.config("run"), "--name", "night-1", "--resume", "--json", out_only=True)
    told = json.loads(said)
    assert (told["name"], told["called"], told["exit_code"]) == ("night-1-2", "night-1", None)
    assert desk.find("night-1").name == "night-1-2"  # the name is that of the latest attempt
    assert f"{ROWS} of {ROWS} rows" in desk.run("logs", "night-1", "--follow")
    assert "job night-1-2: succeeded" in desk.run("status", "night-1")
    assert "night-1-2 has ended already: succeeded" in desk.run("stop", "night-1")
    run = RunDirectory(run_dir)
    assert run.succeeded
    assert {shard: run.reports()[shard] for shard in done} == done  # none of them was scored again
    assert [job["exit_code"] for job in json.loads(desk.run("list", "--json"))[:2]] == [0, 130]
    assert TOKEN not in (desk.folder / "run" / "run.json").read_text()
    require_same_as_in_one_process(desk, run_dir)


def require_same_as_in_one_process(desk: Desk, run_dir: str) -> None:
    if not exists(str(desk.folder / "plain")):
        desk.run("score", desk.config("plain", run={"dir": "plain", "executor": "local"}))
    assert scores_of_run(run_dir).equals(scores_of_run(str(desk.folder / "plain")))
    here, there = (pq.read_table(f"{folder}/selection.parquet") for folder in (desk.folder / "plain", run_dir))
    assert here.equals(there)


@pytest.mark.slow
def test_from_an_environment_that_holds_only_the_wheel(desk: Desk, tmp_path: Path) -> None:
    """Beside what poolscore requires. Slow: it builds and installs the wheel."""
    libraries = sysconfig.get_path("purelib")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    packages = next((tmp_path / "venv").glob("lib/python*/site-packages"))
    (packages / "libraries.pth").write_text(f"{libraries}\n")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(packages)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(TESTS.parent)], check=True)
    environment = {name: value for name, value in desk.environment.items() if name != "PYTHONPATH"}
    said = subprocess.run(
        [str(tmp_path / "venv/bin/python"), "-m", "poolscore.jobs", "submit", desk.config("wheel"), "--wait"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert re.search("poolscore comes from .*/py_modules_files/_ray_pkg_", said)
    require_same_as_in_one_process(desk, str(desk.folder / "wheel"))


@pytest.mark.parametrize(
    ("sections", "says"),
    [
        ({"model": {"source": "nobody:net"}}, "model.source: cannot import 'nobody'"),
        ({"model": {"weights": "missing.pt"}}, "model.weights: there is no .*missing.pt on the cluster's machine"),
        ({"run": {"device": "cuda"}}, "run.device: 'cuda' is asked for, but the Ray cluster has no GPU"),
        ({"run": {"executor": "local"}}, "run.executor: 'local' scores in one process"),
        ({"run": {"threads": 3}}, "a worker asks for 3 CPUs, the largest machine of the cluster has 2"),
    ],
)
def test_what_is_wrong_is_told_within_seconds(desk: Desk, sections: dict[str, dict[str, Any]], says: str) -> None:
    said = desk.run("submit", desk.config("wrong", **sections), code=2)
    assert re.search(f"^poolscore: .*{says}", said, re.MULTILINE), said
    assert "Traceback" not in said
    assert not exists(str(desk.folder / "wrong"))


def test_a_name_is_that_of_its_latest_attempt(desk: Desk) -> None:
    """Whatever became of those before. A command that fails writes nothing to standard output."""
    config = desk.config("twice", model={"source": "nobody:net"})
    assert desk.run("submit", config, "--name", "twice", "--json", code=2, out_only=True) == ""
    assert "submitted twice-2" in desk.run("submit", config, "--name", "twice", code=2)
    assert desk.find("twice").name == "twice-2"


def test_a_job_that_nobody_knows(desk: Desk) -> None:
    for command in ("logs", "stop"):
        assert "has no job 'nobodys'" in desk.run(command, "nobodys", code=2)


def test_the_port_of_the_cluster_itself_is_told(desk: Desk) -> None:
    assert "is this the port of the cluster itself" in desk.run("list", "--address", desk.head.gcs, code=2)


def test_another_token(desk: Desk) -> None:
    if not desk.head.token_file.exists():
        pytest.skip("this cluster wants none")
    elsewhere = str(desk.folder)
    assert "refuses the token" in desk.run("list", code=2, RAY_AUTH_TOKEN="another" * 8)
    assert "wants a token, and there is none" in desk.run("list", code=2, HOME=elsewhere)
    desk.run("list", HOME=elsewhere, RAY_AUTH_TOKEN=TOKEN)
