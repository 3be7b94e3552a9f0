"""What nobody counts is taken away, whoever wrote it and whenever, and nothing else is."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from dataclasses import replace
from itertools import combinations_with_replacement
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_fleet import report
from made_run import new_run
from memory_storage import MemoryStorage

from poolscore.engine.errors import StoppedError
from poolscore.engine.run.journal import Journal, ShardReport
from poolscore.engine.run.records import name_of
from poolscore.engine.run.sweep import SEALED, keep_unless_sealed, seal, sweep, sweep_parts
from poolscore.engine.storage.patient import PatientStorage

ORPHANS = ["part-00001-89abcdef.parquet", ".part-00001-89abcdef.parquet.01234567.tmp"]
OTHERS = ["part-00001-89abcdef.parquet.bak", "notes.txt", ".part-1.tmp", "part-00001-89ABCDEF.parquet", ".nfs0001"]
LATE = "scores/part-00000-89abcdef.parquet"


def counted(shard: int) -> ShardReport:
    name = f"part-{shard:05d}-0123abcd.parquet"
    return replace(report(shard), scores=f"scores/{name}", errors=f"errors/{name}")


@pytest.mark.parametrize("opened", [True, False])
def test_only_orphans_of_our_own_form_are_swept(tmp_path: Path, opened: bool) -> None:
    run = new_run(tmp_path)
    with Journal(run.storage) as journal:
        journal.append(counted(0))
        for folder in ("scores", "errors"):
            (tmp_path / folder).mkdir()
            for name in [*ORPHANS, *OTHERS, "part-00000-0123abcd.parquet"]:
                (tmp_path / folder / name).touch()
        (tmp_path / ".run.json.01234567.tmp").touch()  # of a driver that died
        if opened:
            sweep(run, journal)
    if not opened:
        sweep_parts(run)
    for folder in ("scores", "errors"):
        there = {path.name for path in (tmp_path / folder).iterdir()}
        assert there == {*OTHERS, "part-00000-0123abcd.parquet"}
    assert not list(tmp_path.glob(".run.json.*"))


def test_what_a_driver_left_that_died_while_it_opened_an_epoch_is_swept(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    folder = tmp_path / "_log/000001"
    folder.mkdir(parents=True)
    (folder / ".00000000.json.89abcdef.tmp").touch()
    with Journal(run.storage) as journal:
        assert journal.epoch == 1
        (folder / ".00000001.json.89abcdef.tmp").touch()  # its own, which may be on its way
        sweep(run, journal)
    assert [path.name for path in folder.glob(".*")] == [".00000001.json.89abcdef.tmp"]


def test_a_driver_that_another_followed_sweeps_nothing(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    with Journal(run.storage) as first:
        first.append(counted(0))
    with Journal(run.storage) as second:
        run.storage.create("scores/part-00001-0123abcd.parquet", b"")  # of the second's worker, not reported yet
        with pytest.raises(StoppedError, match="another driver"):
            sweep(run, first)
        seal(run, first)  # which closes nobody's epoch but its own
        keep_unless_sealed(run.storage, second.epoch, ["scores/part-00001-0123abcd.parquet"])
        second.append(counted(1))
    assert run.storage.names("scores") == ["part-00001-0123abcd.parquet"]


class Moment:
    """A driver that seals and sweeps, and a worker that writes before one of its steps and looks before another."""

    def __init__(self, epochs: int, writes_at: int, looks_at: int) -> None:
        self.memory, self.steps = MemoryStorage(), 0
        self.at = writes_at, looks_at
        for _ in range(epochs - 1):
            Journal(self.memory).close()
        with Journal(self.memory) as journal:
            run: Any = SimpleNamespace(storage=self.memory.seen_by(self._tell), reports=dict)
            seal(run, journal)
            sweep(run, journal)
        self._work(self.steps)  # when the driver is done

    def _tell(self, step: str, name: str) -> None:
        self._work(self.steps)
        self.steps += 1

    def _work(self, moment: int) -> None:
        writes_at, looks_at = self.at
        if moment == writes_at:
            self.memory.objects[LATE] = b""
        if moment == looks_at:
            with suppress(StoppedError):
                keep_unless_sealed(self.memory, 1, [LATE])


@pytest.mark.parametrize("epochs", [1, 3])
def test_nothing_stays_whenever_a_late_worker_writes(epochs: int) -> None:
    steps = Moment(epochs, -1, -1).steps
    assert steps >= 5
    for writes_at, looks_at in combinations_with_replacement(range(steps + 1), 2):
        assert LATE not in Moment(epochs, writes_at, looks_at).memory.objects, (writes_at, looks_at)


def test_a_part_that_counts_is_left_while_the_run_is_open() -> None:
    memory = MemoryStorage({LATE: b""})
    with Journal(memory) as journal:
        keep_unless_sealed(memory, journal.epoch, [LATE])
        keep_unless_sealed(memory, None, [LATE])
    assert LATE in memory.objects


@pytest.mark.parametrize("forbidden", ["read", "delete"])
def test_a_worker_that_may_not_look_or_delete_goes_on_at_once(forbidden: str) -> None:
    def forbid(step: str, name: str) -> None:
        if step == forbidden:
            raise StoppedError("access denied")

    memory = MemoryStorage({LATE: b"", name_of(1, SEALED): b""})
    storage = PatientStorage(memory.seen_by(forbid), seconds=600.0)
    with pytest.raises(StoppedError, match="ended without") if forbidden == "delete" else nullcontext():
        keep_unless_sealed(storage, 1, [LATE])
    assert LATE in memory.objects  # the driver's next command takes it away
