"""How a cluster is reached: what is sent, where to, and what its trouble is called. A small server stands for it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
import requests
from typer.testing import CliRunner

from poolscore.engine.errors import ConfigError, StoppedError
from poolscore.jobs.cli import app
from poolscore.jobs.submit.address import SECONDS
from poolscore.jobs.submit.cluster import UPLOAD_SECONDS, _warn_of_listeners, connect
from poolscore.jobs.submit.job import Job


class Dashboard:
    """Answers as a head node does.

    Attributes:
        seen: path, Authorization and Cookie of each request.
        of_rays: the token in Ray's own header, of each request.
        wants_cookie: as a proxy before it may.
        version: what it says of itself.
        status, jobs: of the answers about one job, and about jobs.
    """

    def __init__(self) -> None:
        self.seen: list[tuple[str, str | None, str | None]] = []
        self.of_rays: list[str | None] = []
        self.wants_cookie = False
        self.version = json.dumps({"ray_version": "2.60.0", "version": "4"})
        self.status = self.jobs = 200
        desk = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                cookie = self.headers.get("Cookie")
                desk.of_rays.append(self.headers.get("X-Ray-Authorization"))
                desk.seen.append((self.path, self.headers.get("Authorization"), cookie))
                status, text = (401, "log in") if desk.wants_cookie and not cookie else desk.answer(self.path)
                self.send_response(status)
                self.end_headers()
                self.wfile.write(text.encode())

            do_POST = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}).start()

    def answer(self, path: str) -> tuple[int, str]:
        if path == "/api/authentication_mode":
            return 200, json.dumps({"authentication_mode": "token"})
        if path == "/api/version":
            return 200, self.version
        status = self.jobs if path == "/api/jobs/" else self.status
        return status, "[]" if status == 200 else "upstream is starting"


@pytest.fixture
def dashboard(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Dashboard]:
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_TOKEN_PATH", "RAY_JOB_HEADERS", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    for scheme in ("http", "https", "all", "no"):
        monkeypatch.delenv(f"{scheme}_proxy", raising=False)
        monkeypatch.delenv(f"{scheme}_proxy".upper(), raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_TOKEN", "of-the-cluster")
    started = Dashboard()
    yield started
    started.server.shutdown()
    started.server.server_close()


@pytest.mark.parametrize("name", ["http_proxy", "all_proxy"])
def test_what_stays_on_this_machine_goes_through_no_proxy(
    dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "http://127.0.0.1:9")  # where nobody listens
    connect(dashboard.url).jobs()
    assert len(dashboard.seen) > 2


def test_no_password_of_something_else_is_sent_for_the_token(dashboard: Dashboard, tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1\nlogin me\npassword mine\n")
    (tmp_path / ".netrc").chmod(0o600)
    connect(dashboard.url).jobs()
    (first, *later) = [authorization for _, authorization, _ in dashboard.seen]
    assert first is None
    assert set(later) == {"Bearer of-the-cluster"}


def test_a_proxy_before_the_cluster_has_its_headers_from_the_first_question_on(
    dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    dashboard.wants_cookie = True
    monkeypatch.setenv("RAY_JOB_HEADERS", '{"Cookie": "session=1"}')
    connect(dashboard.url).jobs()
    assert {cookie for *_, cookie in dashboard.seen} == {"session=1"}


def test_a_proxy_that_wants_the_authorization_for_itself(dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray takes its token from a header of its own, too."""
    monkeypatch.setenv("RAY_JOB_HEADERS", '{"authorization": "Basic of-the-proxy"}')
    connect(dashboard.url).jobs()
    assert {authorization for _, authorization, _ in dashboard.seen} == {"Basic of-the-proxy"}
    (first, *later) = dashboard.of_rays
    assert first is None
    assert set(later) == {"Bearer of-the-cluster"}


@pytest.mark.parametrize("version", ["<html>", "{}", "[]"])
def test_who_answers_but_is_no_dashboard(dashboard: Dashboard, version: str) -> None:
    dashboard.version = version
    with pytest.raises(ConfigError, match="answers, but not as a dashboard of Ray"):
        connect(dashboard.url)


def test_who_can_be_overheard_is_warned_before_anything_is_sent(
    dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told: list[str] = []

    def mode(url: str, headers: object) -> str:
        told.append(capsys.readouterr().err)
        raise InterruptedError

    monkeypatch.setattr("poolscore.jobs.submit.cluster.authentication_mode", mode)
    _warn_of_listeners.cache_clear()
    for url in ("http://far.away:8265", "https://far.away:8265", dashboard.url):
        with pytest.raises(InterruptedError):
            connect(url)
    assert "http://far.away:8265 is not encrypted" in told[0].replace("\n", " ")
    assert told[1:] == ["", ""]


@pytest.mark.parametrize("status", [500, 502, 503])
def test_trouble_of_the_cluster_is_no_wrong_configuration(dashboard: Dashboard, status: int) -> None:
    cluster = connect(dashboard.url)
    dashboard.status = status
    for ask in (cluster.job, cluster.log, cluster.stop):
        with pytest.raises(StoppedError, match=f"is in trouble .status {status}: upstream is starting"):
            ask("night")


def test_what_the_cluster_must_unpack_first_has_time(dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = connect(dashboard.url)
    limits: list[float] = []

    def request(method: str, url: str, timeout: tuple[float, float], **_: object) -> object:
        limits.append(timeout[1])
        raise requests.ReadTimeout

    monkeypatch.setattr(requests, "request", request)
    for ask in (lambda: cluster.job("night"), lambda: cluster.submit("night", "true")):
        with pytest.raises(StoppedError, match="does not answer any more"):
            ask()
    assert limits == [SECONDS[1], UPLOAD_SECONDS]


def test_a_job_that_does_not_end_when_it_is_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """It can be resumed, but not yet: a script that goes on is to know."""
    job = Job("night-1-2", "running", "s3://b/night", None, None, 1.0, None, "http://there", called="night-1")

    class There:
        told: ClassVar[list[str]] = []
        stop = told.append

        def require_found(self, name: str) -> Job:
            assert name == "night-1"
            return job

        def require_job(self, name: str) -> Job:
            assert name == "night-1-2"
            return job

    monkeypatch.setattr("poolscore.jobs.submit.cluster.connect", lambda address: There())
    monkeypatch.setattr("poolscore.jobs.cli.cluster.END_SECONDS", 0.0)
    result = CliRunner().invoke(app, ["stop", "night-1"])
    assert (result.exit_code, There.told) == (4, ["night-1-2"])


def test_the_name_of_a_job_is_that_of_its_latest_attempt(dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = connect(dashboard.url)

    def job(name: str, called: str | None) -> Job:
        return Job(name, "stopped", None, 130, None, 1.0, 2.0, dashboard.url, called)

    jobs = [job("night-2", "night"), job("night", "night"), job("other", None)]  # the latest first
    monkeypatch.setattr(cluster, "jobs", lambda: jobs)
    assert cluster.require_found("night").name == "night-2"
    assert cluster.require_found("night-2").name == "night-2"
    assert cluster.require_found("other").name == "other"
    assert cluster.find("nobody's") is None


def test_a_job_that_the_cluster_does_not_take(dashboard: Dashboard) -> None:
    cluster = connect(dashboard.url)
    dashboard.jobs = 500
    with pytest.raises(ConfigError, match="upstream is starting"):
        cluster.submit("night", "true")
    dashboard.jobs = 503
    with pytest.raises(StoppedError, match="is in trouble"):
        cluster.submit("night", "true")
