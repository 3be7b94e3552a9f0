"""What submitting a job is made of, without a cluster: addresses, tokens, what travels, places, exit codes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import distributions, requires, version
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar
from zipfile import ZipFile

import pytest
from conftest import TESTS

from poolscore.engine.config import Config, RunConfig, SubmitConfig, parse_config
from poolscore.engine.errors import ConfigError, StoppedError
from poolscore.jobs.cli.cluster import _last_part, entrypoint
from poolscore.jobs.submit import driver
from poolscore.jobs.submit.address import LOCAL, OPEN, authentication_mode, dashboard_address, is_loopback
from poolscore.jobs.submit.check import _files, check_here, prepare_path, require_inputs
from poolscore.jobs.submit.job import Job, exit_code_of, next_id, reason_of
from poolscore.jobs.submit.order import config_of, order_of, read_order
from poolscore.jobs.submit.place import place_of_driver, require_room
from poolscore.jobs.submit.token import find_token, given_headers
from poolscore.jobs.submit.travel import runtime_env, users_modules

Configure = Callable[..., Config]
PAGE = "README.md"  # of people who read the code: whether it travels does not matter


@pytest.fixture(autouse=True)
def _nobodys_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_JOB_HEADERS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def test_an_address_is_taken_in_rays_order(monkeypatch: pytest.MonkeyPatch) -> None:
    assert dashboard_address(None) == dashboard_address("auto") == LOCAL
    assert dashboard_address(None, "configured:1") == "http://configured:1"
    monkeypatch.setenv("RAY_ADDRESS", "http://there:8265/")
    assert dashboard_address(None, "configured:1") == "http://there:8265"
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "https://elsewhere")
    assert dashboard_address(None) == "https://elsewhere"
    assert dashboard_address("10.0.0.1:8265") == "http://10.0.0.1:8265"


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("ray://head:10001", "Ray Client"),
        ("ftp://head", "no address of a cluster"),
        ("http://", "no address of a cluster"),
        ("http://me:secret@head:8265", "credentials do not belong"),
    ],
)
def test_addresses_of_other_kinds_are_refused(address: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        dashboard_address(address)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "here"), [("http://localhost:1", True), ("http://127.0.0.2:1", True), ("http://a", False)]
)
def test_what_stays_on_this_machine(url: str, here: bool) -> None:
    assert is_loopback(url) is here


class _Answers(BaseHTTPRequestHandler):
    answers: ClassVar[dict[str, tuple[int, str]]] = {}

    def do_GET(self) -> None:
        status, text = self.answers.get(self.path, (404, "not here"))
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def answering() -> Iterator[Callable[[int, str], str]]:
    """Starts a server that answers the open question; gives its URL."""
    servers = []

    def start(status: int, text: str) -> str:
        handler = type("Answers", (_Answers,), {"answers": {"/api/authentication_mode": (status, text)}})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_the_cluster_says_whether_it_wants_a_token(answering: Callable[[int, str], str]) -> None:
    assert authentication_mode(answering(200, '{"authentication_mode": "token"}')) == "token"
    assert authentication_mode(answering(404, "an older one")) == OPEN


@pytest.mark.parametrize(("status", "text"), [(200, "<html>"), (200, "[1]"), (403, "no"), (200, '{"a": 1}')])
def test_who_is_no_dashboard(answering: Callable[[int, str], str], status: int, text: str) -> None:
    with pytest.raises(ConfigError, match=r"not as a dashboard.*--address http://127.0.0.1:8265"):
        authentication_mode(answering(status, text))


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_cluster_that_is_away_behind_what_stands_before_it(answering: Callable[[int, str], str], status: int) -> None:
    with pytest.raises(StoppedError, match=rf"is in trouble .status {status}: no upstream"):
        authentication_mode(answering(status, "no upstream"))


def test_nobody_is_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(
            ConfigError, match=r"no Ray cluster answers there \(.*refused\); give the dashboard's"
        ) as caught:
            authentication_mode(url)
    assert "\n" not in str(caught.value)
    assert "object at" not in str(caught.value)


def test_the_port_of_the_cluster_itself() -> None:
    with socket.socket() as gcs:
        gcs.bind(("127.0.0.1", 0))
        gcs.listen()

        def speak_another_language() -> None:
            there, _ = gcs.accept()
            there.recv(1000)
            there.sendall(b"\0\0\6\4\0\0\0\0\0\0\5\0\0@\0")
            there.close()

        thread = threading.Thread(target=speak_another_language)
        thread.start()
        with pytest.raises(ConfigError, match="not as a dashboard; is this the port of the cluster itself"):
            authentication_mode(f"http://127.0.0.1:{gcs.getsockname()[1]}")
        thread.join()


def test_a_token_is_found_where_ray_looks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="wants a token, and there is none: set RAY_AUTH_TOKEN"):
        find_token("http://there")
    home = tmp_path / "home" / ".ray"
    home.mkdir(parents=True)
    (home / "auth_token").write_text("of the home\n")
    assert find_token("http://there") == "of the home"
    (tmp_path / "named").write_text(" named\n")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "named"))
    assert find_token("http://there") == "named"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "given")
    assert find_token("http://there") == "given"
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match=r"RAY_AUTH_TOKEN_PATH: .*cannot be read"):
        find_token("http://there")


def test_headers_of_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    assert given_headers() == {}
    monkeypatch.setenv("RAY_JOB_HEADERS", '{"Cookie": "a=b"}')
    assert given_headers() == {"Cookie": "a=b"}
    for wrong in ("{", "[]", '{"a": 1}'):
        monkeypatch.setenv("RAY_JOB_HEADERS", wrong)
        with pytest.raises(ConfigError, match="RAY_JOB_HEADERS: must be a JSON object"):
            given_headers()


@pytest.mark.parametrize(
    ("state", "of_driver", "error_type", "code"),
    [
        ("pending", None, None, None),
        ("running", None, None, None),
        ("succeeded", 0, None, 0),
        ("stopped", None, None, 130),
        *(("failed", code, "JOB_ENTRYPOINT_COMMAND_ERROR", code) for code in (1, 2, 3, 4, 130)),
        ("failed", 127, "JOB_ENTRYPOINT_COMMAND_ERROR", 2),
        ("failed", -9, "JOB_ENTRYPOINT_COMMAND_ERROR", 4),
        ("failed", 137, "JOB_ENTRYPOINT_COMMAND_ERROR", 4),
        ("failed", None, "RUNTIME_ENV_SETUP_FAILURE", 2),
        ("failed", None, "JOB_SUPERVISOR_ACTOR_UNSCHEDULABLE", 2),
        ("failed", None, "JOB_SUPERVISOR_ACTOR_DIED", 4),
        ("failed", None, None, 4),
    ],
)
def test_exit_codes_are_those_of_the_contract(
    state: str, of_driver: int | None, error_type: str | None, code: int | None
) -> None:
    assert exit_code_of(state, of_driver, error_type) == code


def test_why_a_job_failed_is_its_own_last_word() -> None:
    log = (
        "Job entrypoint command failed with exit code 2, last available logs:\nrows\npoolscore: a: b\npoolscore: c: d\n"
    )
    assert reason_of(log) == "c: d"
    assert reason_of("runtime_env setup failed:\n no\n") == "runtime_env setup failed: no"
    assert (reason_of("x" * 2000 + "KeyError: 'a'") or "").endswith("xKeyError: 'a'")  # the end of a traceback
    assert len(reason_of("x" * 2000) or "") < 600
    assert reason_of(None) is None


def test_why_a_job_failed_whose_log_is_json() -> None:
    lines = (
        '{"time": "t", "level": "error", "message": "an earlier one"}',
        '{"time": "t", "level": "error", "message": "model.weights: there is no x"}',
        '{"time": "t", "level": "info", "message": "the end"}',
        '{"level": "error"',
        "[1]",
    )
    assert reason_of("failed with exit code 2, last available logs:\n" + "\n".join(lines)) == (
        "model.weights: there is no x"
    )


def test_what_ray_tells_of_a_job() -> None:
    told = SimpleNamespace(
        submission_id="night-1",
        status=SimpleNamespace(value="FAILED"),
        metadata={"run_dir": "s3://b/night", "called": "night"},
        driver_exit_code=3,
        error_type="JOB_ENTRYPOINT_COMMAND_ERROR",
        message="…",
        start_time=1_000,
        end_time=2_500,
    )
    job = Job.of(told, "http://there")
    assert (job.name, job.state, job.run_dir, job.exit_code) == ("night-1", "failed", "s3://b/night", 3)
    assert (job.started, job.ended, job.at_work, job.called) == (1.0, 2.5, False, "night")


def test_a_further_attempt_has_an_id_that_is_free() -> None:
    def named(*names: str) -> list[Job]:
        return [Job(name, "stopped", None, 130, None, 1.0, 2.0, "http://there", called="night") for name in names]

    assert next_id("night", named()) == "night"
    assert next_id("night", named("night", "other")) == "night-2"
    assert next_id("night", named("night", "night-2", "night-4")) == "night-3"


def node(name: str, cpus: float = 0, gpus: float = 0, **labels: str) -> dict[str, Any]:
    resources = {"CPU": cpus, "GPU": gpus} if gpus else {"CPU": cpus}
    return {"node_id": name, "state": "ALIVE", "resources_total": resources, "labels": labels}


HEAD, GPU, CPU = node("h"), node("g", 8, 1), node("c", 4)
SPOT = node("s", 4, **{"ray.io/market-type": "spot"})


@pytest.mark.parametrize(
    ("nodes", "selector"),
    [
        ([HEAD, GPU, CPU, node("d", 2)], "in(c,d)"),
        ([node("h", 2), GPU], "in(h)"),
        ([HEAD, GPU, SPOT], None),  # the head: what may be taken away is no place for a driver
        ([HEAD, GPU], None),
        ([HEAD, CPU], None),  # without GPUs a driver's CPU would be a worker's
        ([], None),
    ],
)
def test_the_driver_keeps_off_gpus_and_spot_machines(nodes: list[dict[str, Any]], selector: str | None) -> None:
    asked = place_of_driver(SubmitConfig(), nodes).asked
    if selector is None:
        assert asked == {}
    else:
        assert asked == {"entrypoint_num_cpus": 1, "entrypoint_label_selector": {"ray.io/node-id": selector}}


def test_the_drivers_place_can_be_configured() -> None:
    config = SubmitConfig(entrypoint_label_selector={"pool": "cpu"}, entrypoint_memory=1 << 30)
    assert place_of_driver(config, [GPU, CPU]).asked == {
        "entrypoint_num_cpus": 1,
        "entrypoint_memory": 1 << 30,
        "entrypoint_label_selector": {"pool": "cpu"},
    }
    assert place_of_driver(SubmitConfig(entrypoint_num_cpus=0), [GPU, CPU]).asked == {"entrypoint_num_cpus": 0}


def test_gpus_that_are_asked_for_and_not_there() -> None:
    with pytest.raises(ConfigError, match=r"run\.device: 'cuda' is asked for, but the Ray cluster has no GPU"):
        require_room(RunConfig(dir="r", device="cuda"), [HEAD, CPU])
    require_room(RunConfig(dir="r", device="cuda"), [HEAD, GPU])
    require_room(RunConfig(dir="r", device="cuda", max_workers=8), [HEAD, CPU])  # an autoscaler brings them
    require_room(RunConfig(dir="r"), [HEAD, CPU])
    require_room(RunConfig(dir="r", device="cuda"), [])  # nobody tells


def test_workers_that_are_larger_than_every_machine() -> None:
    with pytest.raises(ConfigError, match=r"a worker asks for 6 CPUs, the largest machine of the cluster has 4; give"):
        require_room(RunConfig(dir="r", threads=2, decode_threads=4), [HEAD, CPU])
    require_room(RunConfig(dir="r", threads=2, decode_threads=2), [HEAD, CPU])
    require_room(RunConfig(dir="r", threads=2, decode_threads=4, max_workers=8), [HEAD, CPU])  # of an autoscaler's


def arrived(config: Config, cwd: Path) -> Config:
    order = json.loads(json.dumps(order_of(config)))
    return config_of(order, cwd)


def test_a_configuration_arrives_as_it_left(digit_config: Configure, tmp_path: Path) -> None:
    config = digit_config(
        run={"batch_size": "auto", "deadline": "8h", "address": "http://there", "executor": "ray"},
        submit={"env_vars": {"A": "b"}},
        check={"labelled": "s3://b/labelled.parquet"},
        shortlist={"labelled": str(tmp_path / "labelled.parquet")},
    )
    there = arrived(config, tmp_path)
    assert there.run == config.run.model_copy(update={"address": None})
    same = ("pool", "model", "passes", "score", "select", "shortlist", "check", "prices")
    assert [getattr(there, name) for name in same] == [getattr(config, name) for name in same]
    assert there.submit == SubmitConfig()


def test_what_else_was_asked_for(digit_config: Configure) -> None:
    how = {"fresh": False, "must_resume": True, "extends": str(Path.cwd() / "before")}
    assert order_of(digit_config(), must_resume=True, extends="before")["how"] == how
    assert order_of(digit_config(), extends="s3://b/before")["how"]["extends"] == "s3://b/before"


def test_a_time_of_day_is_that_of_the_submitter(digit_config: Configure, tmp_path: Path) -> None:
    there = arrived(digit_config(run={"deadline": "06:00"}), tmp_path)
    assert there.run.deadline is not None
    assert "T06:00:00" in there.run.deadline
    assert there.run.deadline[-6] in "+-"  # with its zone


def test_what_lies_in_the_working_directory_is_read_from_its_copy(digit_config: Configure, tmp_path: Path) -> None:
    folder, cwd = tmp_path / "mine", tmp_path / "copy"
    for root in (folder, cwd):
        (root / "code").mkdir(parents=True)
        (root / "net.pt").touch()
    config = digit_config(
        submit={"working_dir": str(folder)},
        model={"path": str(folder / "code"), "weights": str(folder / "net.pt")},
        pool={"uri": str(folder / "pool"), "exclude": "s3://b/ids.csv"},
        run={"dir": str(folder / "net.pt")},
    )
    there = arrived(config, cwd)
    assert there.model.path == str(cwd / "code")
    assert there.model.weights == str(cwd / "net.pt")
    assert there.pool.uri == str(folder / "pool")  # which was left out, by .gitignore for example
    assert there.pool.exclude == "s3://b/ids.csv"
    assert there.run.dir == str(folder / "net.pt")  # results in a copy would be lost


def test_code_beside_the_working_directory_is_looked_for_in_it(digit_config: Configure, tmp_path: Path) -> None:
    there = arrived(digit_config(submit={"working_dir": str(tmp_path)}), tmp_path)
    assert there.model.path == str(tmp_path)
    assert there.model.weights == str(tmp_path / "weights.pt")


def test_modules_that_are_named_travel(digit_config: Configure, tmp_path: Path) -> None:
    folder, file, other = (tmp_path / name for name in ("mynet", "mynet.py", "mydecode.py"))
    folder.mkdir()
    other.touch()
    (tmp_path / "torch.py").touch()
    named = {
        "model": {"path": str(tmp_path), "source": "mynet.resnet:build"},
        "pool": {"decode": {"kind": "function", "function": "mydecode:read"}},
    }
    assert users_modules(digit_config(**named)) == [other, folder]
    file.touch()  # which Python prefers to a folder without __init__.py
    assert users_modules(digit_config(**named)) == [other, file]
    (folder / "__init__.py").touch()
    assert users_modules(digit_config(**named)) == [other, folder]
    assert users_modules(digit_config(**named, submit={"py_modules": [str(folder)]})) == [other]
    assert users_modules(digit_config(**named, submit={"working_dir": str(tmp_path)})) == []
    for installed in ("torch:nn", "poolscore.jobs.demo.model:net"):
        assert users_modules(digit_config(model={"path": str(tmp_path), "source": installed})) == []


class Sent:
    """Stands for the cluster: what was uploaded."""

    def __init__(self) -> None:
        self.archives: dict[str, bytes] = {}

    def __call__(self, archive: Path) -> str:
        self.archives[archive.name] = archive.read_bytes()
        return f"gcs://{archive.name}"

    def files(self, name: str) -> dict[str, bytes]:
        with ZipFile(BytesIO(self.archives[name])) as archive:
            return {name: archive.read(name) for name in archive.namelist()}


def test_poolscore_travels_whole_and_clean(digit_config: Configure, tmp_path: Path) -> None:
    config = digit_config(submit={"env_vars": {"A": "b"}, "pip": ["small"]})
    sent, again = Sent(), Sent()
    env = runtime_env(config, {"config": {"a secret": "x"}}, tmp_path, sent)
    assert env == {
        "py_modules": ["gcs://order.zip", "gcs://poolscore.zip"],
        "excludes": [".?*", "__pycache__", "*.pyc"],
        "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "60", "A": "b"},
        "pip": ["small"],
    }
    root = TESTS.parent
    here = {
        f"poolscore/{path.relative_to(root)}": path.read_bytes()
        for part in ("engine", "jobs", "kernels")
        for path in (root / part).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.name != PAGE
    }
    files = {name: content for name, content in sent.files("poolscore.zip").items() if not name.endswith(f"/{PAGE}")}
    (info,) = files.keys() - here.keys()
    for name in (info, *files):
        (tmp_path / "there" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "there" / name).write_bytes(files[name])
    (about,) = distributions(path=[str(tmp_path / "there")])
    assert (about.name, about.version, about.requires) == ("poolscore", version("poolscore"), requires("poolscore"))
    assert {name: files[name] for name in here} == here
    told = {"poolscore_order/order.json": b'{"config": {"a secret": "x"}}', "nets.py": (TESTS / "nets.py").read_bytes()}
    assert sent.files("order.zip") == told
    runtime_env(config, {"config": {"a secret": "x"}}, tmp_path, again)
    assert again.archives == sent.archives  # by whose bytes a cluster knows that it has them


def test_the_machines_may_have_poolscore(digit_config: Configure, tmp_path: Path) -> None:
    env = runtime_env(digit_config(submit={"bring": "none"}), {}, tmp_path, Sent())
    assert env["py_modules"] == ["gcs://order.zip"]


def test_folders_and_archives_are_left_to_ray(digit_config: Configure, tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "one.py").write_text("1")
    modules = [str(tmp_path / "lib"), str(tmp_path / "one.py"), "s3://b/more.zip"]
    submit = {"bring": "none", "py_modules": modules, "working_dir": str(tmp_path)}
    sent = Sent()
    env = runtime_env(digit_config(submit=submit), {}, tmp_path, sent)
    assert env["py_modules"] == ["gcs://order.zip", str(tmp_path / "lib"), "s3://b/more.zip"]
    assert env["working_dir"] == str(tmp_path)
    assert sent.files("order.zip")["one.py"] == b"1"


def test_of_a_package_that_is_named_no_secret_and_no_data_travels(digit_config: Configure, tmp_path: Path) -> None:
    """It is left to Ray as a folder, with what stays; `.gitignore` counts there. See what Ray would send."""
    from ray._private.runtime_env.packaging import create_package

    package = tmp_path / "mynet"
    for name, text in {
        "__init__.py": "",
        "net.py": "1",
        "words.txt": "2",
        ".gitignore": "data/",
        ".env": "PASSWORD=x",
        "sub/.env.local": "PASSWORD=x",
        ".git/config": "x",
        "data/rows.bin": "x",
        "__pycache__/net.cpython-311.pyc": "x",
    }.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    config = digit_config(model={"path": str(tmp_path), "source": "mynet.net:build"}, submit={"bring": "none"})
    sent = Sent()
    env = runtime_env(config, {}, tmp_path, sent)
    assert env["py_modules"] == ["gcs://order.zip", str(package)]
    assert set(sent.files("order.zip")) == {"poolscore_order/order.json"}
    target = tmp_path / "sent.zip"
    create_package(str(package), target, include_gitignore=True, include_parent_dir=True, excludes=env["excludes"])
    with ZipFile(target) as archive:
        assert {name for name in archive.namelist() if not name.endswith("/")} == {
            "mynet/__init__.py",
            "mynet/net.py",
            "mynet/words.txt",
        }


def test_an_archive_here_is_no_module(digit_config: Configure, tmp_path: Path) -> None:
    (tmp_path / "lib.whl").touch()
    with pytest.raises(ConfigError, match=r"submit\.py_modules: .*lib\.whl is no folder and no \.py file"):
        runtime_env(digit_config(submit={"py_modules": [str(tmp_path / "lib.whl")]}), {}, tmp_path, Sent())


@pytest.mark.parametrize("key", ["working_dir", "py_modules"])
def test_what_is_to_travel_must_be_there(digit_config: Configure, tmp_path: Path, key: str) -> None:
    missing: Any = str(tmp_path / "missing")
    config = digit_config(submit={key: [missing] if key == "py_modules" else missing})
    with pytest.raises(ConfigError, match=rf"submit\.{key}: there is no .*missing"):
        runtime_env(config, {}, tmp_path, Sent())


def test_the_section_is_no_part_of_a_run(digit_config: Configure) -> None:
    config = digit_config(submit={"env_vars": {"PASSWORD": "secret"}, "working_dir": "code"})
    assert Path(config.submit.working_dir or "").is_absolute()
    assert "submit" not in config.model_dump(mode="json")
    assert parse_config(config.model_dump(mode="json")).submit == SubmitConfig()
    assert "secret" not in json.dumps(order_of(config))


def test_the_order_is_found_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="there is no order here"):
        read_order()
    (tmp_path / "poolscore_order").mkdir()
    (tmp_path / "poolscore_order" / "order.json").write_text('{"fresh": true}')
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    assert read_order() == {"fresh": True}


@pytest.mark.parametrize(
    ("sections", "says"),
    [
        (
            {"pool": {"uri": "/nowhere/pool"}},
            "pool.uri: there is no /nowhere/pool on the cluster's machine .*submit.working_dir",
        ),
        ({"pool": {"exclude": "/nowhere/ids.csv"}}, "pool.exclude: there is no /nowhere/ids.csv"),
        ({"model": {"weights": "/nowhere/net.pt"}}, "model.weights: there is no /nowhere/net.pt"),
        ({"model": {"source": "/nowhere/net.pt2", "weights": None}}, "model.source: there is no /nowhere/net.pt2"),
        ({"check": {"labelled": "/nowhere/l.parquet"}}, "check.labelled: there is no /nowhere/l.parquet"),
        ({"shortlist": {"labelled": "/nowhere/l.parquet"}}, "shortlist.labelled: there is no /nowhere/l.parquet"),
        ({"model": {"source": "nowhere:net"}}, "model.source: cannot import 'nowhere'"),
        (
            {"pool": {"decode": {"kind": "function", "function": "nowhere:f"}}},
            "decode.function: cannot import 'nowhere'",
        ),
        ({"run": {"dir": "/proc/run"}}, "/proc/run"),
    ],
)
def test_what_is_not_there_is_told_before_the_job(
    digit_config: Configure, sections: dict[str, dict[str, Any]], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        require_inputs(digit_config(**sections))


def test_a_file_is_looked_for_once(digit_config: Configure) -> None:
    config = digit_config(pool={"exclude": "ids.csv"})
    files = list(_files(config))
    assert "pool.exclude" in dict(files)
    assert len(files) == len(set(files))


def test_what_was_checked(digit_config: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    config = digit_config()
    prepare_path(config)
    require_inputs(config)
    told = check_here(config)
    assert told.startswith(f"checked on {socket.gethostname()}: poolscore ")
    assert "nets:cnn imports" in told


def test_weights_that_are_not_in_their_bucket(digit_config: Configure, bucket: str) -> None:
    with pytest.raises(ConfigError, match=r"model.weights: there is no s3://.*/net.pt"):
        require_inputs(digit_config(model={"weights": f"{bucket}/net.pt"}))


def test_code_that_does_not_import(digit_config: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "half_done.py").write_text("import torch\n\nimport nobodys_module\n")
    config = digit_config(model={"source": "half_done:net", "path": str(tmp_path)})
    prepare_path(config)
    require_inputs(config)
    with pytest.raises(
        ConfigError, match=r"model.source: cannot import 'half_done' .*nobodys_module.*submit.py_modules"
    ):
        check_here(config)


def test_the_entry_point_says_what_is_missing(tmp_path: Path) -> None:
    def run(python: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
        return subprocess.run(
            entrypoint(python), shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    nothing = run("no-such-python")
    assert (nothing.returncode, reason_of(nothing.stdout)) == (
        2,
        "'no-such-python' on the cluster cannot import poolscore (the line above says why); look at submit.python and "
        "submit.bring",
    )


REQUIRED = ["torch>=2", "no-such-thing<3", 'other; extra == "s3"', 'of-another-system; sys_platform == "win32"']


def test_a_machine_that_lacks_a_package_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(driver, "requires", lambda name: REQUIRED)
    assert driver.lacking() == ["no-such-thing"]
    monkeypatch.setitem(sys.modules, "poolscore.jobs.cli", None)
    with pytest.raises(SystemExit) as ended:
        driver.main()
    assert ended.value.code == 2
    assert "lacks no-such-thing: name another Python there in submit.python" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("run_dir", "name"), [("s3://b/night 1/", "night-1"), ("/runs/a", "a"), ("s3://b", "b"), ("/", "run")]
)
def test_a_job_is_named_after_its_run(run_dir: str, name: str) -> None:
    assert _last_part(run_dir) == name
