"""When a shard is handed out a second time, and when a worker is given up; with a clock that the tests turn."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy

import pytest
from fake_fleet import FakeClock, make_shards
from hypothesis import given, settings
from hypothesis import strategies as st

from poolscore.engine.run.leases import (
    END_FLOOR,
    END_UNKNOWN,
    GAP,
    HUNG_FLOOR,
    HUNG_UNKNOWN,
    SLOW,
    SLOW_FLOOR,
    WARM_UP,
    Leases,
)
from poolscore.engine.run.task import ScoreShard

TASKS = [ScoreShard(shard) for shard in make_shards(50)]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def finish(leases: Leases, clock: FakeClock, worker: int, task: ScoreShard, seconds: float) -> None:
    leases.give(worker, task)
    clock.sleep(seconds)
    leases.take_back(task, finished=True)


def new(clock: FakeClock, shard_timeout: float | None = None) -> Leases:
    leases = Leases(shard_timeout, clock)
    clock.watch = leases.slow
    return leases


def steady(clock: FakeClock, seconds: float = 20.0, workers: int = 3, shard_timeout: float | None = None) -> Leases:
    """Leases of workers that have each finished a shard in so many seconds."""
    leases = new(clock, shard_timeout)
    for worker in range(workers):
        finish(leases, clock, worker, TASKS[40 + worker], seconds)
    return leases


def since(clock: FakeClock, condition: Callable[[], object]) -> float:
    """Seconds until a condition holds, to the second."""
    start = clock()
    while not condition():
        clock.sleep(1.0)
        assert clock() - start < 100_000, "never"
    return clock() - start


def test_a_shard_that_takes_far_longer_than_its_kind_is_wanted_elsewhere(clock: FakeClock) -> None:
    leases = steady(clock)
    leases.give(0, TASKS[0])
    assert since(clock, leases.slow) == pytest.approx(SLOW * 20, abs=2)
    assert leases.slow() == [TASKS[0]]


def test_short_shards_get_some_seconds(clock: FakeClock) -> None:
    leases = steady(clock, seconds=0.1)
    leases.give(0, TASKS[0])
    assert since(clock, leases.slow) == pytest.approx(SLOW_FLOOR, abs=2)


def test_what_is_usual_goes_by_rows(clock: FakeClock) -> None:
    leases = steady(clock)
    (large,) = make_shards(1, rows=30)
    leases.give(0, ScoreShard(large))
    assert since(clock, leases.slow) == pytest.approx(SLOW * 60, abs=2)


def test_the_first_shard_of_a_worker_may_take_longer(clock: FakeClock) -> None:
    leases = steady(clock)
    leases.give(9, TASKS[0])
    assert since(clock, leases.slow) == pytest.approx(SLOW * 20 + WARM_UP, abs=2)


def test_a_worker_that_was_always_slow_is_not_late_by_the_measure_of_others(clock: FakeClock) -> None:
    leases = steady(clock)
    finish(leases, clock, 9, TASKS[1], 200.0)
    leases.give(9, TASKS[0])
    assert since(clock, leases.slow) == pytest.approx(SLOW * 200, abs=2)


def test_nothing_is_slow_while_nothing_tells_what_is_usual(clock: FakeClock) -> None:
    leases = new(clock)
    leases.give(0, TASKS[0])
    clock.sleep(HUNG_UNKNOWN - 60)
    assert not leases.slow()
    assert not leases.hung()


def test_time_counts_from_when_a_shard_comes_to_the_front_of_its_line(clock: FakeClock) -> None:
    leases = steady(clock)
    leases.give(0, TASKS[0])
    leases.give(0, TASKS[1])
    clock.sleep(70.0)
    leases.take_back(TASKS[0], finished=True)
    clock.sleep(70.0)
    assert not leases.slow()


def test_a_shard_that_two_workers_have_is_wanted_by_no_third(clock: FakeClock) -> None:
    leases = steady(clock)
    leases.give(0, TASKS[0])
    clock.sleep(500.0)
    again = copy(TASKS[0])
    leases.give(1, again)
    clock.sleep(400.0)
    assert leases.slow() == leases.unfinished() == []
    leases.lose(1)
    assert leases.slow() == [TASKS[0]]


def test_at_the_end_what_waits_in_a_line_comes_first_and_then_what_is_late(clock: FakeClock) -> None:
    leases = steady(clock)
    for worker, task in ((0, TASKS[0]), (0, TASKS[1])):
        leases.give(worker, task)
    clock.sleep(10.0)
    leases.give(1, TASKS[2])
    assert leases.unfinished() == [TASKS[1]]
    clock.sleep(21.0)
    assert leases.unfinished() == [TASKS[1], TASKS[0]]
    clock.sleep(10.0)
    assert leases.unfinished() == [TASKS[1], TASKS[0], TASKS[2]]


@pytest.mark.parametrize(("usual", "limit"), [(0.1, END_FLOOR), (None, END_UNKNOWN)])
def test_at_the_end_a_shard_gets_some_seconds_too(clock: FakeClock, usual: float | None, limit: float) -> None:
    leases = steady(clock, usual) if usual else new(clock)
    leases.give(0, TASKS[0])
    assert since(clock, leases.unfinished) == pytest.approx(limit, abs=2)


@pytest.mark.parametrize(
    ("usual", "timeout", "limit"),
    [(20.0, None, HUNG_FLOOR), (100.0, None, 2000.0), (None, None, HUNG_UNKNOWN), (20.0, 15.0, 15.0), (None, 8.0, 8.0)],
)
def test_a_worker_that_hangs_is_named_once(
    clock: FakeClock, usual: float | None, timeout: float | None, limit: float
) -> None:
    leases = steady(clock, usual, shard_timeout=timeout) if usual else new(clock, timeout)
    leases.give(0, TASKS[0])
    leases.give(0, TASKS[1])
    found: list[tuple[int, str]] = []
    assert since(clock, lambda: found.extend(leases.hung()) or found) == pytest.approx(limit, abs=2)
    assert found == [(0, f"it was at shard 0 for more than {limit:.0f} s")]
    clock.sleep(10_000.0)
    assert leases.hung() == []


def test_a_shard_gets_twice_the_time_after_its_worker_was_killed_for_it(clock: FakeClock) -> None:
    leases = steady(clock, workers=4)
    for worker in range(3):
        leases.give(worker, TASKS[0])
        assert since(clock, leases.hung) == pytest.approx(HUNG_FLOOR * 2**worker, abs=2)
        leases.lose(worker)


def test_what_waits_at_a_worker_that_leaves_is_wanted_elsewhere_and_what_runs_is_not(clock: FakeClock) -> None:
    leases = steady(clock)
    leases.give(0, TASKS[0])
    leases.give(0, TASKS[1])
    leases.leave(0)
    assert leases.slow() == [TASKS[1]]


def test_time_in_which_the_driver_itself_stood_still_is_nobodys(clock: FakeClock) -> None:
    leases = steady(clock, shard_timeout=30.0)
    leases.give(0, TASKS[0])
    clock.now += 3600.0
    assert not leases.hung()
    assert not leases.slow()
    assert since(clock, leases.hung) == pytest.approx(30.0, abs=GAP)


def test_a_report_of_a_worker_that_was_given_up_changes_nothing(clock: FakeClock) -> None:
    leases = steady(clock)
    leases.give(0, TASKS[0])
    leases.lose(0)
    leases.take_back(TASKS[0], finished=True)
    assert (leases.count, set(leases.shards), leases.is_idle(0)) == (0, set(), True)


@given(st.lists(st.tuples(st.sampled_from("gtlws"), st.integers(0, 3), st.integers(0, 7)), max_size=60))
@settings(max_examples=200, deadline=None)
def test_what_is_counted_is_what_workers_have(steps: list[tuple[str, int, int]]) -> None:
    """Against a plain list, whatever happens in whatever order."""
    clock = FakeClock()
    leases = Leases(None, clock)
    have: list[tuple[int, ScoreShard]] = []
    for what, worker, number in steps:
        if what == "g" and not leases.has(worker, number):
            task = copy(TASKS[number])
            leases.give(worker, task)
            have.append((worker, task))
        elif what == "t" and have:
            at = number % len(have)
            leases.take_back(have.pop(at)[1], finished=bool(number % 2))
        elif what == "l":
            leases.lose(worker)
            have = [(w, task) for w, task in have if w != worker]
        elif what == "w":
            clock.sleep(float(10**number) / 1000)
        elif what == "s":
            leases.leave(worker)
        shards = [task.shard.index for _, task in have]
        assert leases.count == len(have)
        assert set(leases.shards) == set(shards)
        for i in range(4):
            assert leases.is_idle(i) == all(w != i for w, _ in have)
        wanted = [*leases.slow(), *leases.unfinished()]
        assert all(shards.count(task.shard.index) == leases.holders(task.shard.index) == 1 for task in wanted)
        assert all(any(w == killed for w, _ in have) for killed, _ in leases.hung())
