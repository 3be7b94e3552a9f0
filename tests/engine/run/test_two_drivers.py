"""Drivers that take each other for dead, and readers, in any order of their single steps in storage: what counts once
the next epoch is opened counts for ever, nothing adopted is lost, and a reader is given what counted at one moment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Semaphore, Thread

import pytest
from fake_fleet import report
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from memory_storage import MemoryStorage

from poolscore.engine.errors import StoppedError
from poolscore.engine.run import compaction, journal
from poolscore.engine.run.journal import Journal, ShardReport, read_reports
from poolscore.engine.run.records import newest

SHARDS = 5
Reports = dict[int, ShardReport]


class Actor(Thread):
    """Does its work one step in storage at a time, each when it is told to."""

    def __init__(self, memory: MemoryStorage, work: Callable[[MemoryStorage], None]) -> None:
        super().__init__(daemon=True)
        self.done = False
        self.error: BaseException | None = None
        self._work = work
        self._go, self._arrived = Semaphore(0), Semaphore(0)
        self._storage = memory.seen_by(self._wait)
        self.start()
        self._arrived.acquire()

    def step(self) -> None:
        self._go.release()
        self._arrived.acquire()

    def run(self) -> None:
        try:
            self._work(self._storage)
        except BaseException as error:
            self.error = error
        self.done = True
        self._arrived.release()

    def _wait(self, step: str, name: str) -> None:
        self._arrived.release()
        self._go.acquire()


@dataclass
class World:
    """The storage, what counted in it after each step, and what must count for ever."""

    memory: MemoryStorage = field(default_factory=MemoryStorage)
    history: list[Reports] = field(default_factory=lambda: [{}])
    opened: dict[int, Reports] = field(default_factory=dict)  # epoch → what counted when it was opened
    adopted: dict[int, Reports] = field(default_factory=dict)  # epoch → what its driver says that it adopted
    readers: int = 0

    def look(self) -> None:
        before, now = self.history[-1], read_reports(self.memory)
        opening = newest(self.memory)
        epoch = opening.epoch if opening else 0
        if epoch and epoch not in self.opened:
            assert epoch == len(self.opened) + 1
            assert now.items() <= before.items(), "a shard that did not count counts by the opening of an epoch"
            self.opened[epoch] = now
        else:
            assert before.items() <= now.items(), "what counted counts no more"
        for adopted in self.opened.values():
            assert adopted.items() <= now.items(), "what was adopted counts no more"
        self.history.append(now)

    def drive(self, number: int) -> Callable[[MemoryStorage], None]:
        def work(storage: MemoryStorage) -> None:
            mine = Journal(storage, beat=1e6)
            try:
                self.adopted[mine.epoch] = mine.adopted
                left = [report(shard, attempt=number) for shard in range(SHARDS) if shard not in mine.adopted]
                while left:
                    written, left, since = left[:number], left[number:], len(self.history) - 1
                    mine.append(*written)
                    seen = [*self.history[since:], read_reports(self.memory)]
                    assert any(all(reports.get(w.shard) == w for w in written) for reports in seen), "it never counted"
            except StoppedError:
                assert newest(self.memory).epoch > mine.epoch  # type: ignore[union-attr]
            finally:
                mine.close()

        return work

    def read(self, storage: MemoryStorage) -> None:
        for _ in range(3):
            since = len(self.history) - 1
            found = read_reports(storage)
            assert found in [*self.history[since:], read_reports(self.memory)], "this never counted at one moment"
            self.readers += 1


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compactions after a few records already; and every driver takes the others for dead."""
    monkeypatch.setattr(compaction, "LEAST", 2)
    monkeypatch.setattr(compaction, "STEP", 2)
    monkeypatch.setattr(journal, "MANY", 1)
    monkeypatch.setattr(journal, "require_gone", lambda storage, opening: None)


TURNS = st.lists(st.tuples(st.integers(0, 4), st.integers(1, 15)), max_size=40)


@given(TURNS)
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_interleaving_of_drivers_and_readers(small: None, turns: list[tuple[int, int]]) -> None:
    world = World()
    works = [world.drive(1), world.drive(2), world.drive(3), world.read, world.read]
    actors = [Actor(world.memory, work) for work in works]
    for number, steps in [*turns, *((number, 10_000) for number in range(len(actors)))]:
        for _ in range(steps):
            if actors[number].done:
                break
            actors[number].step()
            world.look()
    for actor in actors:
        if actor.error is not None:
            raise actor.error
    assert sorted(world.history[-1]) == list(range(SHARDS))
    assert world.adopted == world.opened
    assert len(world.opened) == 3
    assert world.readers == 6
