"""Calls to storage: several at once, and never in the way of an end, however silent storage is."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import taking_ctrl_c
from s3_server import only_loopback

from poolscore.engine.config import Config
from poolscore.engine.errors import INTERRUPTED, StoppedError
from poolscore.engine.pool import fetch, find
from poolscore.engine.prepare import prepare_job
from poolscore.engine.run.fleet import LocalFleet
from poolscore.engine.run.task import ScoreShard
from poolscore.engine.storage import threads as storage_threads
from poolscore.engine.storage.threads import StorageThreads, apart, calls_left_behind

SOON = 2.0  # seconds; storage of these tests is silent for ever


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Set, it ends the silence."""
    monkeypatch.setattr(storage_threads, "PATIENCE", 0.1)
    event = threading.Event()
    yield event
    event.set()
    deadline = time.monotonic() + 5
    while calls_left_behind():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def interrupt_in(seconds: float) -> None:
    threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT)).start()


def test_answers_and_errors_come_back_and_no_more_calls_than_allowed_run_at_once() -> None:
    running: list[int] = []
    most = 0

    def call(i: int) -> int:
        nonlocal most
        running.append(i)
        most = max(most, len(running))
        time.sleep(0.01)
        running.remove(i)
        return 10 // i

    with StorageThreads(3, "test") as threads:
        futures = [threads.submit(call, i) for i in (5, 2, 0, 1, 10, 4)]
        assert [future.result() for future in futures if future is not futures[2]] == [2, 5, 10, 1, 2]
        assert isinstance(futures[2].exception(), ZeroDivisionError)
    assert most == 3
    assert not calls_left_behind()


def test_calls_of_what_nobody_closed_are_known(silent: threading.Event) -> None:
    """Such as of a generator that the traceback of an error holds when the process ends."""
    threads = StorageThreads(1, "test")
    threads.submit(silent.wait)
    assert calls_left_behind()
    silent.set()
    while threads.busy:
        time.sleep(0.001)
    assert not calls_left_behind()
    threads.close()


def test_what_was_begun_is_waited_for_and_what_was_not_begun_is_not(silent: threading.Event) -> None:
    threads = StorageThreads(1, "test")
    begun, waiting = threads.submit(time.sleep, 0.05), threads.submit(silent.wait)
    while not begun.running():
        time.sleep(0.001)
    assert threads.close(5.0)
    assert begun.result() is None
    with pytest.raises(StoppedError):
        waiting.result()
    with pytest.raises(StoppedError):
        threads.submit(time.sleep, 0)


def test_a_silent_call_is_left_behind_and_who_waits_for_it_is_told(silent: threading.Event) -> None:
    threads = StorageThreads(2, "test")
    told: list[BaseException | None] = []
    call = threads.submit(silent.wait)
    waiter = threading.Thread(target=lambda: told.append(call.exception()))
    waiter.start()
    while not call.running():
        time.sleep(0.001)
    started = time.monotonic()
    assert not threads.close()
    waiter.join()
    assert time.monotonic() - started < SOON
    assert isinstance(told[0], StoppedError)
    assert calls_left_behind()


def test_ctrl_c_ends_a_call_apart(silent: threading.Event) -> None:
    started = time.monotonic()
    with taking_ctrl_c(), pytest.raises(KeyboardInterrupt):
        interrupt_in(0.1)
        apart(silent.wait)
    assert time.monotonic() - started < SOON
    assert calls_left_behind()


def test_ctrl_c_ends_the_reading_of_footers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, silent: threading.Event
) -> None:
    for i in range(16):
        (tmp_path / f"{i}.parquet").touch()
    monkeypatch.setattr(find, "LOCAL_THREADS", 1)  # it takes four at a time
    asked: list[str] = []

    def read_footer(filesystem: Any, root: str, path: str, *_: Any) -> Any:
        asked.append(path)
        silent.wait()
        raise find.UnreadableFile(path)

    monkeypatch.setattr(find, "read_footer", read_footer)
    started = time.monotonic()
    with taking_ctrl_c(), pytest.raises(KeyboardInterrupt):
        interrupt_in(0.1)
        find.find_files(str(tmp_path), bad_files="skip")
    assert time.monotonic() - started < SOON
    before = len(asked)
    silent.set()
    time.sleep(0.05)
    assert len(asked) == before  # nor does anybody go on behind our back


@pytest.mark.parametrize("decode_threads", [0, 1])
def test_a_worker_is_closed_while_its_storage_is_silent(
    digit_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch, silent: threading.Event, decode_threads: int
) -> None:
    prepared = prepare_job(digit_config(run={"decode_threads": decode_threads, "shard_rows": 200}))
    reads: list[int] = []
    read = fetch._read

    def soon_silent(*given: Any) -> memoryview:
        reads.append(1)
        if len(reads) > 2:
            silent.wait()
        return read(*given)

    monkeypatch.setattr(fetch, "_read", soon_silent)
    fleet = LocalFleet(prepared.job)
    fleet.wait(0)
    for shard in prepared.plan.shards[:2]:
        fleet.submit(0, ScoreShard(shard))
    deadline = time.monotonic() + 5
    while len(reads) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    started = time.monotonic()
    fleet.close()
    assert time.monotonic() - started < SOON
    assert calls_left_behind()


def test_ctrl_c_ends_a_process_whose_s3_server_is_silent(digit_config: Callable[..., Config], tmp_path: Path) -> None:
    config = digit_config().model_dump(mode="json")
    config["pool"]["uri"] = "s3://bucket/pool"
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(config))
    environment = dict(os.environ)
    only_loopback(environment)
    with socket.create_server(("127.0.0.1", 0)) as server:
        environment["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{server.getsockname()[1]}"
        command = [sys.executable, "-m", "poolscore.jobs", "plan", str(tmp_path / "job.yaml")]
        with taking_ctrl_c(), subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
            connection, _ = server.accept()
            started = time.monotonic()
            process.send_signal(signal.SIGINT)
            process.wait(20)
            connection.close()
    assert process.returncode == INTERRUPTED
    assert time.monotonic() - started < 5
