"""Read-only tasks under every kind of failure: each is done once, or given up and told."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fake_fleet import PROFILE, FakeClock, FakeFleet, make_shards
from hypothesis import given, settings
from hypothesis import strategies as st

from poolscore.engine.errors import ConfigError, StoppedError
from poolscore.engine.run.blame import ATTEMPTS
from poolscore.engine.run.errands import PATIENCE, ErrandState, run_errands
from poolscore.engine.run.events import RunEvent
from poolscore.engine.run.fleet import Done, Event, Failed, Lost
from poolscore.engine.run.task import LookAgain, Task

NOTHING = np.empty(0, np.int64)


def make_tasks(count: int) -> list[Task]:
    return [LookAgain(shard, NOTHING, NOTHING.view(np.uint64)) for shard in make_shards(count)]


def done(worker: int, task: Task) -> Event:
    return Done(task, f"part {task.shard.index}")


def run(fleet: FakeFleet, tasks: list[Task], why_not: Callable[[Any], str | None] = lambda profile: None, **more: Any):  # type: ignore[no-untyped-def]
    return run_errands(fleet, tasks, why_not, **more)


@given(st.integers(0, 12), st.integers(1, 4), st.integers(1, 2), st.integers(0, 2**32), st.sets(st.integers(0, 11)))
@settings(max_examples=100, deadline=None)
def test_no_task_is_lost_in_any_order_of_events(
    count: int, workers: int, depth: int, seed: int, failing: set[int]
) -> None:
    chance = random.Random(seed)

    def answer(worker: int, task: Task) -> Event:
        fails = task.shard.index in failing and chance.random() < 0.5
        return Failed(task, "unreadable") if fails else done(worker, task)

    fleet = FakeFleet(workers, answer, depth=depth, seed=seed)
    became = run(fleet, make_tasks(count))
    assert sorted([*became.done, *became.failed]) == list(range(count))
    assert all(result == f"part {index}" for index, result in became.done.items())
    assert all(fleet.attempts()[index] >= ATTEMPTS for index in became.failed)


def test_what_fails_thrice_is_given_up_and_the_rest_is_done() -> None:
    fleet = FakeFleet(2, lambda worker, task: Failed(task, "bad") if task.shard.index == 1 else done(worker, task))
    became = run(fleet, make_tasks(4))
    assert became.failed == {1: "bad"}
    assert sorted(became.done) == [0, 2, 3]
    assert fleet.attempts() == {0: 1, 1: ATTEMPTS, 2: 1, 3: 1}


def test_how_far_it_is_and_who_is_held_for_it() -> None:
    """The fleet tells nobody who joined it before."""

    def answer(worker: int, task: Task) -> Event:
        if worker == 1:
            return Lost(worker, task, (), "gone")
        return Failed(task, "bad") if task.shard.index == 1 else done(worker, task)

    states: list[ErrandState] = []
    run(FakeFleet(2, answer), make_tasks(5), on_progress=states.append)
    assert [state.done for state in states] == sorted(state.done for state in states)
    assert (states[-1].done, states[-1].of) == (5, 5)
    assert max(state.workers for state in states) == 2


def test_what_kills_its_workers_is_given_up() -> None:
    def answer(worker: int, task: Task) -> Event:
        return Lost(worker, task, (), "segfault") if task.shard.index == 0 else done(worker, task)

    events: list[RunEvent] = []
    fleet = FakeFleet(2, answer, depth=2)
    became = run(fleet, make_tasks(3), on_event=events.append)
    assert became.failed == {0: "its worker died: segfault"}
    assert sorted(became.done) == [1, 2]
    assert [event.what for event in events].count("lost") == ATTEMPTS


def test_workers_of_another_profile_do_nothing() -> None:
    others = {0: {**PROFILE, "threads": 2}}
    seen: list[int] = []

    def answer(worker: int, task: Task) -> Event:
        seen.append(worker)
        return done(worker, task)

    def why_not(profile: Any) -> str | None:
        return None if profile == PROFILE else "other threads"

    fleet = FakeFleet(2, answer, profile=lambda worker: others.get(worker, PROFILE))
    assert len(run(fleet, make_tasks(5), why_not).done) == 5
    assert set(seen) == {1}
    with pytest.raises(ConfigError, match="other threads"):
        run(FakeFleet(1, answer, profile=lambda worker: others[0]), make_tasks(5), why_not)


def test_a_worker_that_hangs_is_killed_and_one_that_is_busy_elsewhere_is_not_waited_for() -> None:
    clock = FakeClock()

    def answer(worker: int, task: Task) -> Event | None:
        clock.sleep(5.0)
        return None if worker == 0 else done(worker, task)

    fleet = FakeFleet(1, answer)
    became = run(fleet, make_tasks(1), timeout=100.0, clock=clock)
    assert became.done == {0: "part 0"}
    assert fleet.attempts() == {0: 2}
    busy = FakeFleet(1, lambda worker, task: clock.sleep(5.0))
    busy.wait(0)
    busy.submit(0, make_tasks(1)[0])  # of somebody before, who never ends
    with pytest.raises(StoppedError, match=f"no worker was free for {PATIENCE:.0f} s"):
        run(busy, make_tasks(2), clock=clock)


def test_what_others_gave_the_fleet_before_is_not_counted() -> None:
    fleet = FakeFleet(1, done, depth=2)
    fleet.wait(0)
    (old,) = make_tasks(1)
    fleet.submit(0, old)
    tasks = make_tasks(3)[1:]
    assert sorted(run(fleet, tasks).done) == [1, 2]
