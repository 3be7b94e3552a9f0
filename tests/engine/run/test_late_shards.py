"""Workers that hang, leave or lag behind: the run goes on, and every shard counts once. A wait is a second."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from fake_fleet import Answer, FakeClock, FakeFleet, make_shards, report, scored
from hypothesis import given, settings
from hypothesis import strategies as st
from test_coordinator import Record, good, make

from poolscore.engine.run.coordinator import Coordinator
from poolscore.engine.run.events import RunEvent
from poolscore.engine.run.fleet import Event, Leaving
from poolscore.engine.run.leases import END_UNKNOWN, HUNG_FLOOR, HUNG_UNKNOWN, SLOW_FLOOR, WARM_UP
from poolscore.engine.run.task import ScoreShard, Task


class Ticking(FakeFleet):
    """A wait takes a second. Workers in `stopped` do nothing more; new ones work."""

    def __init__(self, workers: int, answer: Answer = good, stopped: Sequence[int] = (), **options: Any) -> None:
        self.clock = FakeClock()
        self.stopped = set(stopped)
        self.killed: list[tuple[int, str]] = []
        super().__init__(workers, lambda w, task: None if w in self.stopped else answer(w, task), **options)

    def wait(self, seconds: float) -> list[Event]:
        self.clock.now += seconds
        return super().wait(seconds)

    def kill(self, worker: int, why: str) -> None:
        self.killed.append((worker, why))
        super().kill(worker, why)


def run(fleet: Ticking, shards: int, **options: Any) -> tuple[list[int], list[RunEvent]]:
    """Shards as they were journalled, and what was told."""
    record, told = Record(), list[RunEvent]()
    coordinator: Coordinator = make(fleet, record, clock=fleet.clock, on_event=told.append, **options)
    assert coordinator.run(make_shards(shards), 0) == {}
    assert sorted(record.shards) == list(range(shards)), "a shard is lost, or counts twice"
    return record.shards, told


def what(told: list[RunEvent]) -> list[str]:
    return [event.what for event in told if event.what != "joined"]


def test_a_shard_on_a_stopped_worker_is_done_by_another_while_there_is_other_work() -> None:
    fleet = Ticking(2, stopped=[0])
    shards, told = run(fleet, 300)
    stuck = fleet.held[0][0].shard.index
    late = shards.index(stuck)
    assert SLOW_FLOOR + WARM_UP <= late < SLOW_FLOOR + WARM_UP + 10
    assert what(told) == ["copied"]
    assert fleet.attempts()[stuck] == 2
    assert not fleet.killed


def test_two_workers_that_are_free_at_once_do_not_both_get_a_copy() -> None:
    fleet = Ticking(4, stopped=[0])
    run(fleet, 600)
    assert max(fleet.attempts().values()) == 2


def test_no_worker_gets_a_copy_of_what_it_has() -> None:
    """The last shard takes long, and its worker has a place beside it."""

    def answer(worker: int, task: Task) -> Event | None:
        is_last = len(fleet.submitted) >= 20 and len(fleet.held[worker]) == 1
        return None if is_last and fleet.clock() < 300 else good(worker, task)

    fleet = Ticking(1, answer, depth=2)
    _, told = run(fleet, 20)
    assert set(fleet.attempts().values()) == {1}
    assert what(told) == []


def test_a_run_ends_although_a_worker_that_has_a_copy_is_stopped() -> None:
    fleet = Ticking(3, stopped=[1], depth=2)
    run(fleet, 9)
    assert fleet.clock() < SLOW_FLOOR + WARM_UP + 10
    assert set(fleet.attempts().values()) <= {1, 2}


def test_what_waits_at_another_worker_is_taken_by_one_that_has_nothing_to_do() -> None:
    """One worker takes both shards before the other is there."""

    class Second(Ticking):
        def wait(self, seconds: float) -> list[Event]:
            self._coming += self.waits == 2
            return super().wait(seconds)

    fleet = Second(1, lambda w, task: good(w, task) if fleet.clock() > 50 * (1 + task.shard.index) else None, depth=2)
    _, told = run(fleet, 2)
    assert what(told) == ["copied"]
    assert fleet.submitted[2] == fleet.submitted[1] != fleet.submitted[0]


def test_nothing_is_handed_out_twice_where_all_goes_well() -> None:
    fleet = Ticking(3)
    _, told = run(fleet, 30)
    assert set(fleet.attempts().values()) == {1}
    assert what(told) == []


def test_every_copy_sits_on_a_stopped_worker() -> None:
    fleet = Ticking(2, stopped=[0, 1])
    _, told = run(fleet, 1)
    assert what(told)[:4] == ["copied", "killed", "lost", "copied"]
    assert fleet.killed[0] == (0, f"it was at shard 0 for more than {HUNG_UNKNOWN:.0f} s")
    assert END_UNKNOWN < HUNG_UNKNOWN <= fleet.clock() < HUNG_UNKNOWN + 10


@pytest.mark.parametrize(("timeout", "limit"), [(20.0, 20.0), (None, HUNG_FLOOR)])
def test_all_workers_are_stopped(timeout: float | None, limit: float) -> None:
    """They are killed one after the other, and those that come in their place do the work."""
    fleet = Ticking(3, depth=2)
    working = fleet.wait

    def stop_after_some(seconds: float) -> list[Event]:
        if fleet.waits == 12:
            fleet.stopped |= {0, 1, 2}
        return working(seconds)

    fleet.wait = stop_after_some  # type: ignore[method-assign]
    run(fleet, 60, shard_timeout=timeout)
    assert {worker for worker, _ in fleet.killed} == {0, 1, 2}
    assert limit < fleet.clock() < limit + 60


def test_a_copy_whose_first_worker_dies_is_not_handed_out_a_third_time() -> None:
    def answer(worker: int, task: Task) -> Event | None:
        if task.shard.index == 7:
            return good(worker, task) if fleet.clock() > 400 and worker else None
        return good(worker, task)

    fleet = Ticking(2, answer)
    dying = fleet.wait

    def die(seconds: float) -> list[Event]:
        events = dying(seconds)
        holder = next((w for w, held in fleet.held.items() if [t.shard.index for t in held] == [7]), None)
        if fleet.clock() == 300 and holder is not None:
            return [*events, fleet.die(holder)]
        return events

    fleet.wait = die  # type: ignore[method-assign]
    run(fleet, 500)
    assert fleet.attempts()[7] <= 3


def test_a_worker_that_leaves_gives_back_what_waits_at_once() -> None:
    fleet = Ticking(2, lambda w, task: good(w, task) if w or fleet.clock() > 30 else None, depth=2)
    leaving = fleet.wait
    free = fleet.free

    def leave(seconds: float) -> list[Event]:
        events = leaving(seconds)
        return [*events, Leaving(0, "its node is being drained")] if fleet.waits == 3 else events

    fleet.wait = leave  # type: ignore[method-assign]
    fleet.free = lambda: [w for w in free() if w or fleet.waits < 3]  # type: ignore[method-assign]
    shards, told = run(fleet, 40)
    running, waiting = fleet.submitted[0], fleet.submitted[2]
    assert what(told)[:2] == ["leaving", "copied"]
    assert fleet.attempts()[waiting] == 2
    assert shards.index(waiting) < 6
    assert fleet.attempts()[running] == 1  # it was finished where it was


def test_a_late_report_of_the_loser_changes_nothing() -> None:
    def answer(worker: int, task: Task) -> Event | None:
        slow = worker == 0 and fleet.clock() < 150
        return None if slow else scored(report(task.shard.index, 10, attempt=worker))

    fleet = Ticking(2, answer)
    record = Record()
    coordinator = make(fleet, record, clock=fleet.clock)
    coordinator.run(make_shards(400), 0)
    assert fleet.attempts().most_common(2)[0][1] == 2
    assert fleet.attempts().most_common(2)[1][1] == 1
    assert coordinator.totals.shards == len(record.reports) == 400


@given(
    st.integers(1, 4),
    st.integers(1, 2),
    st.integers(1, 25),
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 5)), max_size=8),
    st.one_of(st.none(), st.just(40.0)),
)
@settings(max_examples=150, deadline=None)
def test_no_stopped_worker_keeps_a_run_from_its_end(
    workers: int, depth: int, shards: int, stops: list[tuple[int, int]], timeout: float | None
) -> None:
    """Workers are stopped at any time for good; a shard that was on three of them would be set aside."""
    fleet = Ticking(workers, depth=depth)
    working = fleet.wait

    def wait(seconds: float) -> list[Event]:
        fleet.stopped |= {worker for at, worker in stops[:2] if fleet.waits >= at}
        return working(seconds)

    fleet.wait = wait  # type: ignore[method-assign]
    run(fleet, shards, shard_timeout=timeout)


def test_a_copy_is_another_task_than_the_one_it_copies() -> None:
    """Fleets bring back the very task: by its identity a copy is told apart."""
    fleet = Ticking(2, stopped=[0])
    given: list[Task] = []
    submit = fleet.submit
    fleet.submit = lambda worker, task: (given.append(task), submit(worker, task))[1]  # type: ignore[method-assign]
    run(fleet, 1)
    assert given[0] == given[1] == ScoreShard(make_shards(1)[0])
    assert given[0] is not given[1]
