"""A second driver beside a living one is refused, and one after a dead one is not kept waiting without need."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_fleet import report

from poolscore.engine.errors import StoppedError
from poolscore.engine.run import heartbeat
from poolscore.engine.run.heartbeat import Driver, lives, this_process
from poolscore.engine.run.journal import Journal, read_reports, require_no_driver
from poolscore.engine.storage.local import LocalStorage

ELSEWHERE = Driver(host="elsewhere", pid=7, boot="another machine's", pids="pid:[1]", started="1")
BEAT = 0.2  # seconds; on a busy machine a beat may come late


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path)


@contextmanager
def open_in(storage: LocalStorage, driver: Driver, beat: float = BEAT) -> Iterator[Journal]:
    journal = Journal(storage, driver, beat)
    yield journal
    journal.close()


def die(journal: Journal) -> None:
    """Its process is gone: no beat, no word."""
    journal._heart._stopped.set()
    journal._heart._thread.join()


def until(come_true: Callable[[], bool]) -> None:
    for _ in range(300):
        if come_true():
            return
        time.sleep(0.1)
    raise AssertionError("it never came true")


def files(storage: LocalStorage) -> list[str]:
    beats = ("heartbeat.json", ".tmp")
    return sorted(str(path) for path in Path(storage.root).rglob("*") if not path.name.endswith(beats))


def test_we_live_and_nobody_else_is_us() -> None:
    here = this_process()
    assert here.pid == os.getpid()
    assert None not in (here.boot, here.pids, here.started)
    assert lives(here) is True
    assert lives(replace(here, started="1")) is False  # the pid was given again
    assert lives(replace(here, host="renamed")) is True
    for other in (replace(here, boot="restarted"), replace(here, pids="a container's"), replace(here, boot=None)):
        assert lives(other) is None


def test_a_process_that_ended_is_gone_even_before_anybody_asked_how() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    driver = replace(this_process(), pid=process.pid, started=heartbeat._started(process.pid))
    assert lives(driver) is True
    process.send_signal(signal.SIGSTOP)
    assert lives(driver) is True  # halted, and may go on
    process.kill()
    until(lambda: not lives(driver))
    assert process.returncode is None  # a zombie of the system's: nobody has waited for it
    process.communicate()
    assert lives(driver) is False


def test_a_second_driver_on_this_machine_is_refused_at_once(storage: LocalStorage) -> None:
    with open_in(storage, this_process(), beat=1000) as first:
        before, started = files(storage), time.monotonic()
        for act in (lambda: Journal(storage), lambda: require_no_driver(storage)):
            with pytest.raises(
                StoppedError, match=rf"another driver works on this run, process {os.getpid()} on"
            ) as caught:
                act()
            assert "\n" not in str(caught.value)
        assert time.monotonic() - started < 5
        assert files(storage) == before
        first.append(report(1))
    require_no_driver(storage)
    assert list(read_reports(storage)) == [1]


def test_after_a_dead_process_of_this_machine_one_begins_at_once(storage: LocalStorage) -> None:
    with open_in(storage, replace(this_process(), started="1"), beat=1000) as first:
        die(first)
        with open_in(storage, this_process()) as second:
            assert second.epoch == 2


def test_a_second_driver_beside_one_elsewhere_is_refused_before_it_writes(storage: LocalStorage) -> None:
    with open_in(storage, ELSEWHERE) as first:
        before = files(storage)
        require_no_driver(storage, watch=False)  # cannot be known at once
        with pytest.raises(StoppedError, match=r"another driver works on this run, process 7 on elsewhere; wait for"):
            Journal(storage)
        assert files(storage) == before
        first.append(report(1))


def test_a_driver_elsewhere_that_is_silent_is_taken_for_dead(
    storage: LocalStorage, caplog: pytest.LogCaptureFixture
) -> None:
    with open_in(storage, ELSEWHERE) as first:
        time.sleep(3 * BEAT)
        die(first)
        started = time.monotonic()
        with open_in(storage, this_process()) as second:
            assert time.monotonic() - started >= heartbeat.MISSED * BEAT
            assert second.epoch == 2
    assert caplog.messages == ["this run was begun on elsewhere: watching for 1 s whether its driver still works"]


def test_after_a_clean_end_nobody_is_watched(storage: LocalStorage) -> None:
    with open_in(storage, ELSEWHERE, beat=1000):
        pass
    started = time.monotonic()
    with open_in(storage, this_process()) as second:
        assert second.epoch == 2
    assert time.monotonic() - started < 5


def test_one_who_ends_while_he_is_watched(storage: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Journal(storage, ELSEWHERE, beat=1000)
    monkeypatch.setattr(time, "sleep", lambda seconds: first.close())
    with open_in(storage, this_process()) as second:
        assert second.epoch == 2


@pytest.mark.parametrize("jump", [-86_400.0, 86_400.0])
def test_clocks_may_differ_and_jump(storage: LocalStorage, monkeypatch: pytest.MonkeyPatch, jump: float) -> None:
    with open_in(storage, ELSEWHERE) as first:
        now = time.time
        monkeypatch.setattr(time, "time", lambda: now() + jump)
        with pytest.raises(StoppedError, match="another driver"):
            Journal(storage)
        die(first)
        with open_in(storage, this_process()) as second:
            second.append(report(1))
            assert second.epoch == 2


def test_the_heart_beats_on_after_the_storage_failed(storage: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: LocalStorage, name: str, fill: Any) -> None:
        failed.append(name)
        raise [StoppedError("full"), OSError("away"), RuntimeError("a client's bug")][len(failed) % 3]

    failed: list[str] = []
    publish = LocalStorage.publish
    with open_in(storage, ELSEWHERE), monkeypatch.context() as patched:
        patched.setattr(LocalStorage, "publish", broken)
        until(lambda: len(failed) >= 4)
        patched.setattr(LocalStorage, "publish", publish)
        until(lambda: "heartbeat.json" in storage.names("_log/000001"))
    assert set(failed) == {"_log/000001/heartbeat.json"}


def test_a_zombie_s_heart_stops(storage: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("poolscore.engine.run.journal.require_gone", lambda storage, opening: None)
    with open_in(storage, ELSEWHERE) as first, open_in(storage, this_process()):
        first._heart._thread.join(10)
        assert not first._heart._thread.is_alive()


def test_closing_does_not_wait_for_storage_that_is_away(storage: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(self: LocalStorage, name: str, data: bytes) -> bool:
        raise StoppedError("away")

    journal = Journal(storage)
    with monkeypatch.context() as patched:
        patched.setattr(LocalStorage, "create", away)
        journal.close()
    assert "closed.json" not in storage.names("_log/000001")


def test_a_journal_that_was_forgotten_beats_no_more(storage: LocalStorage) -> None:
    thread = Journal(storage)._heart._thread
    gc.collect()
    thread.join(10)
    assert not thread.is_alive()
    Journal(storage).close()
