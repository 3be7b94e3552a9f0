"""What happened to a run is in its directory: the latest of it, bounded, and what storage was waited for too."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_fleet import FakeClock, FakeFleet, make_shards, scored
from fake_fleet import report as report_of
from test_coordinator import make
from test_directory import new_run

from poolscore.engine.errors import StoppedError
from poolscore.engine.run import directory
from poolscore.engine.run.coordinator import State
from poolscore.engine.run.directory import EVENTS, RunDirectory
from poolscore.engine.run.events import LONGEST_WHY, RunEvent, in_words
from poolscore.engine.run.fleet import Event, Failed
from poolscore.engine.run.live import RECENT, SAMPLE, Live
from poolscore.engine.run.task import Task
from poolscore.engine.run.totals import Totals
from poolscore.engine.storage import patient
from poolscore.engine.storage.local import LocalStorage


def test_run_json_keeps_the_latest_in_a_bounded_place(tmp_path: Path) -> None:
    run = new_run(tmp_path / "run")
    run.update(epoch=2)
    for shard in range(3 * EVENTS):
        run.note(RunEvent("failed", 1, shard, "x" * 10_000))
        if shard % 50 == 0:
            run.update()
    run.end("stopped", 4, "the cluster is gone")
    info = RunDirectory(str(tmp_path / "run")).info
    assert [event["shard"] for event in info["events"][:-1]] == list(range(2 * EVENTS + 1, 3 * EVENTS))
    assert in_words(info["events"][-1]) == "ended: stopped: the cluster is gone"
    assert {event["epoch"] for event in info["events"]} == {2}
    assert (info["status"], info["exit_code"], info["stopped_by"]) == ("stopped", 4, "the cluster is gone")
    assert (tmp_path / "run/run.json").stat().st_size < EVENTS * (LONGEST_WHY + 250)


def test_storage_that_was_waited_for_is_an_event_even_of_the_write_that_waited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patient, "FIRST_PAUSE", 0.01)
    new_run(tmp_path / "run")
    run = RunDirectory(str(tmp_path / "run"), patience=60.0)
    publish, failures = LocalStorage.publish, [1, 1]

    def failing(*given: Any) -> None:
        if failures:
            failures.pop()
            raise StoppedError("run.json cannot be written (full); mend it") from OSError(errno.ENOSPC, "full")
        publish(*given)

    monkeypatch.setattr(LocalStorage, "publish", failing)
    run.note(RunEvent("joined", 0))
    run.update()
    run.update()
    events = RunDirectory(str(tmp_path / "run")).info["events"]
    assert [event["what"] for event in events] == ["joined", "waited"]
    assert events[1]["why"] == "0 s for storage: run.json cannot be written (full)"


def test_events_that_could_not_be_written_are_written_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = new_run(tmp_path / "run")
    run.note(RunEvent("joined", 0))
    with monkeypatch.context() as patch:
        patch.setattr(directory, "write_json", lambda *given: (_ for _ in ()).throw(StoppedError("away")))
        with pytest.raises(StoppedError):
            run.update()
    run.note(RunEvent("joined", 1))
    run.update()
    assert [event["worker"] for event in RunDirectory(str(tmp_path / "run")).info["events"]] == [0, 1]


def test_failures_searches_and_what_is_set_aside_are_told_of() -> None:
    told: list[RunEvent] = []

    def answer(worker: int, task: Task) -> Event:
        if task.shard.index == 1:
            return Failed(task, "part-1.parquet cannot be read")
        if task.shard.index == 2:
            return Failed(task, "ValueError: odd", of_row=True)
        return scored(report_of(task.shard.index))

    make(FakeFleet(2, answer), pool_rows=3000, max_bad_fraction=1.0, on_event=told.append).run(make_shards(6), 0)
    whats = [(event.what, event.shard) for event in told if event.what != "copied"]
    assert [what for what, _ in whats].count("joined") == 2
    assert whats.count(("failed", 1)) == 3
    assert ("set_aside", 1) in whats
    assert whats.index(("searched", 2)) > whats.index(("failed", 2))
    assert all(event.worker in (0, 1) for event in told if event.what == "failed")
    assert next(e.why for e in told if (e.what, e.shard) == ("set_aside", 1)) == "part-1.parquet cannot be read"


def test_the_pace_is_that_of_the_last_minutes() -> None:
    clock = FakeClock()
    live, rows = Live(clock), 0

    def pace(workers: int = 1) -> float | None:
        rate: float | None = live.of(State(replace(Totals(), scored=rows), workers, 0, 0, 0))["rows_per_second"]
        return rate

    assert pace(workers=0) is None
    clock.sleep(1000.0)  # while machines come up, which is no part of the pace
    assert pace() is None
    for _ in range(int(2 * RECENT)):
        clock.sleep(1.0)
        rows += 10
        now = pace()
    assert now == 10.0
    for _ in range(int(RECENT + SAMPLE)):
        clock.sleep(1.0)
        rows += 30
        now = pace()
    assert now == 30.0, "what was before is forgotten"
    for _ in range(int(2 * RECENT)):
        clock.sleep(1.0)
        now = pace()
    assert now is None, "nothing has come for long"
