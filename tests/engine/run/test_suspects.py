"""A worker that lives but fails at everything costs a run time, and nothing else."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from fake_fleet import Answer, FakeFleet, make_shards, report, scored
from test_coordinator import Record, long_shards, make

from poolscore.engine.run.events import RunEvent
from poolscore.engine.run.fleet import Done, Event, Failed
from poolscore.engine.run.suspects import IN_A_ROW, Suspects
from poolscore.engine.run.task import ScoreShard, Task

ALL = {0, 1, 2}


def workers_of_whom_one_is_sick(looks: int, chance: float = 1.0, of_row: bool = True, seed: int = 0) -> Answer:
    """Worker 0 fails at once; others need so many looks for a task."""
    luck, seen = random.Random(seed), Counter[int]()

    def answer(worker: int, task: Task) -> Event | None:
        if worker == 0 and luck.random() < chance:
            return Failed(task, "unspecified launch failure", of_row=of_row)
        seen[id(task)] += 1
        if seen[id(task)] < looks:
            return None
        if not isinstance(task, ScoreShard):
            return Done(task, None)
        return scored(report(task.shard.index, task.shard.rows - len(task.blank), len(task.blank), attempt=worker))

    return answer


@pytest.mark.parametrize("looks", [1, 5, 50])
@pytest.mark.parametrize("of_row", [True, False])
def test_one_sick_worker_among_ten_loses_no_shard(looks: int, of_row: bool) -> None:
    record, events = Record(), list[RunEvent]()
    fleet = FakeFleet(10, workers_of_whom_one_is_sick(looks, of_row=of_row))
    coordinator = make(fleet, record, pool_rows=3000, on_event=events.append)
    assert coordinator.run(make_shards(300), 0) == {}
    assert sorted(record.shards) == list(range(300))
    assert [event.worker for event in events if event.what == "killed"] == [0]


@pytest.mark.parametrize(("workers", "chance"), [(2, 0.9), (2, 0.3), (4, 0.8)])
@pytest.mark.parametrize("seed", range(3))
def test_a_worker_that_fails_now_and_then_makes_no_row_poison(workers: int, chance: float, seed: int) -> None:
    record = Record()
    fleet = FakeFleet(workers, workers_of_whom_one_is_sick(3, chance, seed=seed))
    assert make(fleet, record, pool_rows=3200).run(long_shards(80), seed) == {}
    assert sum(one.rejected for one in record.reports) == 0
    assert len(record.reports) == 80


def test_a_worker_is_not_blamed_for_shards_that_fail_everywhere() -> None:
    broken, events = set(range(0, 60, 2)), list[RunEvent]()

    def answer(worker: int, task: Task) -> Event:
        if task.shard.index in broken:
            return Failed(task, "unreadable")
        return scored(report(task.shard.index, attempt=worker))

    coordinator = make(FakeFleet(3, answer), Record(), on_event=events.append)
    assert coordinator.run(make_shards(60), 0).keys() == broken
    assert not [event for event in events if event.what == "killed"]


def shards_failed_by(suspects: Suspects, worker: int, *shards: int) -> None:
    for shard in shards:
        suspects.failed(worker, shard)


def test_a_suspect_waits_until_others_have_had_its_shards() -> None:
    suspects = Suspects()
    shards_failed_by(suspects, 0, *range(IN_A_ROW))
    assert not suspects.may_work(0, ALL)
    assert suspects.may_work(1, ALL)
    assert suspects.may_work(0, {0})  # there is nobody else
    shards_failed_by(suspects, 1, *range(IN_A_ROW))  # so it is the shards
    assert suspects.may_work(0, ALL)
    assert suspects.may_work(1, ALL)


def test_a_suspect_is_sick_once_others_score_what_it_could_not() -> None:
    suspects = Suspects()
    shards_failed_by(suspects, 0, 0, 1, 2)
    suspects.did(1, 0, whole=False)  # a part says little
    suspects.did(1, 1, whole=True)
    assert suspects.sick() == {}
    suspects.did(2, 2, whole=True)
    assert suspects.sick() == {0: {1, 2}}
    suspects.gone(0)
    assert suspects.sick() == {}


def test_what_a_worker_failed_on_goes_to_another_while_there_is_one() -> None:
    suspects = Suspects()
    suspects.failed(0, 7)
    assert not suspects.may_have(0, 7, ALL)
    assert suspects.may_have(1, 7, ALL)
    assert suspects.may_have(0, 7, {0})
    suspects.failed(1, 7)
    suspects.failed(2, 7)
    assert suspects.may_have(0, 7, ALL)
    suspects.did(0, 8, whole=True)
    assert not suspects.is_suspect(0)
