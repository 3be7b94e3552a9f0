"""Storage that takes long for a record: what is finished meanwhile is recorded together, in the next one. Nothing
counts before its record is there, and a driver that dies at any step loses what is in none."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from fake_fleet import PROFILE, FakeClock, make_shards, report, scored
from memory_storage import MemoryStorage

from poolscore.engine.errors import PoolscoreError
from poolscore.engine.run.coordinator import Coordinator
from poolscore.engine.run.fleet import Done, Event, Joined
from poolscore.engine.run.heartbeat import this_process
from poolscore.engine.run.journal import Journal, ShardReport, read_reports
from poolscore.engine.run.task import Task
from poolscore.engine.run.totals import Totals

SHARDS = 24


@dataclass
class PacedFleet:
    """Workers that finish one shard a second, one after another; `again` brings each report a second time."""

    clock: FakeClock
    workers: int
    again: bool = False
    expected: int = field(init=False)
    given: dict[float, tuple[int, Task]] = field(default_factory=dict)  # when it is done → whose it is
    joined: bool = False
    attempt: int = 0

    def __post_init__(self) -> None:
        self.expected = self.workers

    def free(self) -> list[int]:
        busy = {worker for worker, _ in self.given.values()}
        return [worker for worker in range(self.workers) if self.joined and worker not in busy]

    def submit(self, worker: int, task: Task) -> None:
        self.given[max(self.given, default=self.clock.now) + 1.0] = worker, task

    def wait(self, seconds: float) -> list[Event]:
        if not self.joined:
            self.joined = True
            return [Joined(worker, PROFILE) for worker in range(self.workers)]
        self.clock.now = max(self.clock.now, min(self.given))  # where none is done, until the first is
        done = [self.given.pop(at)[1] for at in sorted(self.given) if at <= self.clock.now]
        return [event for task in done for event in self._told(task)]

    def last(self) -> list[Done]:
        return []

    def _told(self, task: Task) -> list[Event]:
        self.attempt += 1
        first = Done(task, report(task.shard.index, attempt=self.attempt))
        return [first, scored(report(task.shard.index, attempt=99))] if self.again else [first]


def score(
    journal: Journal, fleet: PacedFleet, done: dict[int, ShardReport], on_report: Callable[[ShardReport], None]
) -> None:
    """All shards that are not done."""
    coordinator = Coordinator(
        fleet,  # type: ignore[arg-type]
        journal,
        done=Totals.of(done),
        pool_rows=1000,
        max_bad_fraction=0.0,
        max_bad_rows=None,
        profile=None,
        on_profile=lambda profile: None,
        on_progress=lambda state: None,
        on_report=on_report,
        clock=fleet.clock,
    )
    assert coordinator.run([shard for shard in make_shards(SHARDS) if shard.index not in done], 0) == {}
    assert coordinator.totals.shards == SHARDS


def recorded(memory: MemoryStorage, epoch: int = 1) -> list[list[int]]:
    """The shards of each record."""
    told = [json.loads(data) for name, data in sorted(memory.objects.items()) if f"/{epoch:06d}/000000" in name][1:]
    return [[one["shard"] for one in record.get("reports", [record])] for record in told]


@pytest.mark.parametrize(("seconds", "most"), [(0.0, 1), (4.0, 4), (60.0, 8)])
@pytest.mark.parametrize("again", [False, True])
def test_what_finishes_while_a_record_is_written_is_in_the_next(seconds: float, most: int, again: bool) -> None:
    clock = FakeClock()
    memory = MemoryStorage()
    slow = memory.seen_by(
        lambda step, name: clock.sleep(seconds) if step == "create" and "00.json" not in name else None
    )
    counted: list[int] = []

    def on_report(report: ShardReport) -> None:
        assert read_reports(memory)[report.shard] == report, "it is said to count before its record is there"
        counted.append(report.shard)

    with Journal(slow) as journal:
        score(journal, PacedFleet(clock, 8, again), {}, on_report)
    records = recorded(memory)
    assert len(records[0]) == 1  # the first one waits for no other
    assert max(map(len, records)) == most
    assert [shard for record in records for shard in record] == counted  # in the order in which they came
    assert sorted(counted) == list(range(SHARDS))
    assert not any(one.scores.endswith("-99.parquet") for one in read_reports(memory).values())


class Killed(PoolscoreError):
    """The driver's process ends here: storage does nothing more for it."""


def test_a_driver_that_is_killed_at_any_step_loses_what_is_in_no_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("poolscore.engine.run.journal.require_gone", lambda storage, opening: None)
    groups = 0
    for dies_at in range(10_000):
        clock, memory, steps, counted = FakeClock(), MemoryStorage(), 0, set[int]()

        def tell(step: str, name: str, clock: FakeClock = clock, dies_at: int = dies_at) -> None:
            nonlocal steps
            steps += 1
            if steps > dies_at:
                raise Killed
            if step == "create":
                clock.sleep(4.0)

        try:
            journal = Journal(memory.seen_by(tell), this_process(), beat=1e6)
            score(journal, PacedFleet(clock, 8), {}, lambda one, counted=counted: counted.add(one.shard))  # type: ignore[misc]
            assert groups > 10
            return
        except Killed:
            before = read_reports(memory)
            assert counted <= before.keys()
            assert sorted(shard for record in recorded(memory) for shard in record) == sorted(before)
            groups += any(len(record) > 1 for record in recorded(memory))
            with Journal(memory, beat=1e6) as second:
                assert second.adopted == before
                score(second, PacedFleet(FakeClock(), 8), second.adopted, lambda one: None)
            assert list(read_reports(memory)) == list(range(SHARDS))
            assert read_reports(memory).items() >= before.items()
