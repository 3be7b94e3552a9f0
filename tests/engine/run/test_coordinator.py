"""The hand-out of shards under every kind of failure: none is lost, none counts twice."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fake_fleet import PROFILE, Answer, FakeFleet, make_shards, report, scored
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from poolscore.engine.errors import ConfigError, StoppedError
from poolscore.engine.pool.plan import Piece, Shard
from poolscore.engine.run.bad_rows import ENOUGH_SHARDS
from poolscore.engine.run.bisect import MOST_ROWS
from poolscore.engine.run.blame import ATTEMPTS
from poolscore.engine.run.coordinator import Coordinator, State
from poolscore.engine.run.events import RunEvent
from poolscore.engine.run.fleet import Done, Event, Failed, Fleet, Joined, Lost
from poolscore.engine.run.journal import Journal, ShardReport, read_reports
from poolscore.engine.run.mixed import Profile
from poolscore.engine.run.task import ScoreShard, Task, TryReading, TryRows
from poolscore.engine.run.totals import Totals
from poolscore.engine.storage.local import LocalStorage


@dataclass
class Record:
    """In place of a Journal."""

    reports: list[ShardReport] = field(default_factory=list)
    hurried: bool = False

    def append(self, *reports: ShardReport) -> None:
        self.reports.extend(reports)

    def hurry(self) -> None:
        self.hurried = True

    @property
    def shards(self) -> list[int]:
        return [report.shard for report in self.reports]


def make(fleet: Fleet, record: Any = None, **options: Any) -> Coordinator:
    defaults: dict[str, Any] = {
        "done": Totals(),
        "pool_rows": 1000,
        "max_bad_rows": None,
        "max_bad_fraction": 0.01,
        "profile": None,
        "on_profile": lambda profile: None,
        "on_progress": lambda state: None,
    }
    journal: Any = record or Record()
    return Coordinator(fleet, journal, **(defaults | options))


def good(worker: int, task: Task) -> Event:
    return scored(report(task.shard.index, attempt=worker))


def rejecting(rejected: int) -> Answer:
    return lambda worker, task: scored(report(task.shard.index, 10 - rejected, rejected))


@given(st.integers(0, 12), st.integers(1, 4), st.integers(1, 3), st.integers(0, 2**32), st.sets(st.integers(0, 11)))
@settings(max_examples=150, deadline=None)
def test_no_shard_is_lost_in_any_order_of_events(
    count: int, workers: int, depth: int, seed: int, failing: set[int]
) -> None:
    chance = random.Random(seed)

    def answer(worker: int, task: Task) -> Event:
        if task.shard.index in failing and chance.random() < 0.5:
            return Failed(task, "unreadable")
        return good(worker, task)

    record = Record()
    fleet = FakeFleet(workers, answer, depth=depth, seed=seed)
    coordinator = make(fleet, record, done=Totals(shards=1))
    set_aside = coordinator.run(make_shards(count), seed)
    assert sorted([*record.shards, *set_aside]) == list(range(count))
    assert coordinator.totals.shards == 1 + len(record.reports)
    assert coordinator.totals.scored == 10 * len(record.reports)


def test_the_order_is_shuffled_by_the_seed() -> None:
    def order(seed: int) -> list[int]:
        fleet = FakeFleet(1, good)
        make(fleet).run(make_shards(50), seed)
        return fleet.submitted

    assert order(1) == order(1)
    assert order(1) != order(2)
    assert sorted(order(1)) == list(range(50)) != order(1)


def test_a_run_without_shards_ends_at_once() -> None:
    fleet = FakeFleet(1, good)
    assert make(fleet).run([], 0) == {}
    assert fleet.waits == 0


def test_the_first_report_is_journalled_and_no_other(tmp_path: Path) -> None:
    class Twice(FakeFleet):
        def wait(self, seconds: float) -> list[Event]:
            events = super().wait(seconds)
            again = [scored(report(e.task.shard.index, 99, attempt=9)) for e in events if isinstance(e, Done)]
            return events + again

    storage = LocalStorage(tmp_path)
    coordinator = make(Twice(2, good), Journal(storage))
    coordinator.run(make_shards(5), 0)
    assert [one.scored for one in read_reports(storage).values()] == [10] * 5
    assert coordinator.totals.scored == 50


def test_a_shard_that_fails_three_times_is_set_aside() -> None:
    fleet = FakeFleet(2, lambda worker, task: Failed(task, "torn") if task.shard.index == 3 else good(worker, task))
    record = Record()
    assert make(fleet, record).run(make_shards(6), 0) == {3: "torn"}
    assert fleet.attempts() == {0: 1, 1: 1, 2: 1, 3: ATTEMPTS, 4: 1, 5: 1}
    assert sorted(record.shards) == [0, 1, 2, 4, 5]


def test_a_shard_that_kills_its_worker_is_blamed_and_those_behind_it_are_not() -> None:
    def answer(worker: int, task: Task) -> Event:
        return Lost(worker, task, (), "out of memory") if task.shard.index == 3 else good(worker, task)

    fleet = FakeFleet(1, answer, depth=4)
    record = Record()
    only_read = "the same happens where it is only read, and no row of it decoded"
    assert make(fleet, record).run(make_shards(8), 1) == {3: f"its worker died: out of memory; {only_read}"}
    assert sorted(record.shards) == [0, 1, 2, 4, 5, 6, 7]
    assert fleet.attempts()[3] == 2 * ATTEMPTS


def test_what_waited_at_a_dead_worker_goes_first_and_in_its_order() -> None:
    died: list[int] = []

    def answer(worker: int, task: Task) -> Event:
        if not died:
            died.append(task.shard.index)
            return Lost(worker, task, (), "killed")
        return good(worker, task)

    fleet = FakeFleet(1, answer, depth=3)
    make(fleet).run(make_shards(7), 0)
    first = fleet.submitted[:3]
    assert died == first[:1]
    assert fleet.submitted[3:5] == first[1:]
    assert sorted(fleet.submitted[5:9]) == sorted(set(range(7)) - set(first))
    assert fleet.submitted[9:] == first[:1]


def test_a_worker_without_work_may_die() -> None:
    class Fragile(FakeFleet):
        def wait(self, seconds: float) -> list[Event]:
            events = super().wait(seconds)
            return [*events, self.die(0)] if self.waits == 1 else events

    record = Record()
    assert make(Fragile(1, good), record).run(make_shards(2), 0) == {}
    assert sorted(record.shards) == [0, 1]


class Script:
    """A fleet whose workers join first, and that then says one list of events a wait, whatever it is given."""

    expected = 1

    def __init__(self, *script: list[Event], workers: int = 1) -> None:
        joined: list[Event] = [Joined(worker, PROFILE) for worker in range(workers)]
        self.script, self.given = [joined, *script], list[int]()
        self.places = workers - 1

    def free(self) -> list[int]:
        return list(range(self.places))

    def submit(self, worker: int, task: Task) -> None:
        self.places -= 1
        self.given.append(task.shard.index)

    def wait(self, seconds: float) -> list[Event]:
        self.places += 1
        return self.script.pop(0)

    def close(self) -> None:
        pass


(ONLY,) = make_shards(1)
TASK = ScoreShard(ONLY)


def test_a_report_from_a_worker_that_was_given_up_counts() -> None:
    record = Record()
    fleet = Script([Lost(0, TASK, (), "gone")], [scored(report(0))], [scored(report(0, attempt=1))])
    assert make(fleet, record).run([ONLY], 0) == {}
    assert record.reports == [report(0)]


def test_a_finished_shard_is_neither_handed_out_nor_set_aside() -> None:
    lost, failed = Lost(0, TASK, (), "gone"), Failed(TASK, "torn")
    record = Record()
    fleet = Script([lost, scored(report(0)), failed, failed, failed])
    assert make(fleet, record).run([ONLY], 0) == {}
    assert fleet.given == [0]


def test_a_late_report_brings_back_what_was_set_aside() -> None:
    first, second = make_shards(2)
    failed = Failed(ScoreShard(first), "torn")
    record = Record()
    fleet = Script([failed], [failed], [failed], [scored(report(0))], [scored(report(1))], workers=2)
    assert make(fleet, record).run([first, second], 0) == {}
    assert record.shards == [0, 1]


def test_one_broken_file_does_not_stop_a_run_whose_other_shards_are_slow() -> None:
    waits = []

    def answer(worker: int, task: Task) -> Event | None:
        if task.shard.index == 0:
            return Failed(task, "torn")
        waits.append(worker)
        return good(worker, task) if len(waits) > 20 else None

    record = Record()
    assert make(FakeFleet(3, answer), record).run(make_shards(3), 0) == {0: "torn"}
    assert sorted(record.shards) == [1, 2]


@pytest.mark.parametrize("count", [1, 2, 3, 500])
def test_a_run_in_which_nothing_succeeds_stops_early(count: int) -> None:
    fleet = FakeFleet(2, lambda worker, task: Failed(task, "no disk"))
    with pytest.raises(StoppedError, match=r"no shard could be scored; shard \d+ failed last: no disk"):
        make(fleet).run(make_shards(count), 0)
    assert len(fleet.submitted) <= 12
    dying = FakeFleet(2, lambda worker, task: Lost(worker, task, (), "boom"))
    with pytest.raises(StoppedError, match=r"its worker died: boom"):
        make(dying).run(make_shards(count), 0)


def test_a_resumed_run_whose_last_shards_are_broken_is_incomplete_not_stopped() -> None:
    fleet = FakeFleet(1, lambda worker, task: Failed(task, "torn"))
    assert make(fleet, done=Totals(shards=1, scored=10)).run(make_shards(2)[1:], 0) == {1: "torn"}


def test_a_new_run_takes_the_profile_of_its_workers_and_a_resumed_one_keeps_its_own() -> None:
    seen: list[Profile] = []
    make(FakeFleet(2, good), on_profile=seen.append).run(make_shards(2), 0)
    assert seen == [PROFILE]
    make(FakeFleet(1, good), profile=dict(PROFILE), on_profile=seen.append).run(make_shards(2), 0)
    assert seen == [PROFILE]


OTHER = PROFILE | {"threads": 2}


@pytest.mark.parametrize("odd", [0, 1])
def test_a_worker_of_another_profile_is_refused_and_the_others_go_on(odd: int) -> None:
    states: list[State] = []
    seen: list[Profile] = []
    fleet = FakeFleet(3, good, depth=2, profile=lambda worker: OTHER if worker == odd else PROFILE)
    record = Record()
    events: list[RunEvent] = []
    coordinator = make(fleet, record, on_profile=seen.append, on_progress=states.append, on_event=events.append)
    assert coordinator.run(make_shards(20), 0) == {}
    assert sorted(record.shards) == list(range(20))
    assert not any(f"-{odd}.parquet" in report.scores for report in record.reports)  # none is of that worker
    told = "threads (1, here 2) (2 of the first 3 workers have the run's)"
    why = f"worker {odd} has another numeric profile than this run: {told}"
    assert [(event.worker, event.why) for event in events if event.what == "refused"] == [(odd, why)]
    assert (states[-1].refused, states[-1].workers) == ((why,), 2)
    assert seen == [PROFILE]


def test_a_run_that_no_worker_fits_stops_with_one_message() -> None:
    fleet = FakeFleet(3, good, profile=lambda worker: OTHER)
    with pytest.raises(ConfigError, match=r"^no worker has the numeric profile of this run; .* threads \(1, here 2\)"):
        make(fleet, profile=dict(PROFILE)).run(make_shards(2), 0)
    assert fleet.submitted == []


def test_a_mixed_run_takes_every_worker_and_tells_of_every_profile() -> None:
    seen: list[Profile] = []
    fleet = FakeFleet(4, good, profile=lambda worker: PROFILE | {"threads": 1 + worker % 2})
    states: list[State] = []
    coordinator = make(fleet, allow_mixed=True, on_profile=seen.append, on_progress=states.append)
    assert coordinator.run(make_shards(20), 0) == {}
    assert seen == [PROFILE, OTHER]
    assert (states[-1].refused, states[-1].workers) == ((), 4)


def test_errors_of_the_job_are_raised() -> None:
    class Broken(FakeFleet):
        def wait(self, seconds: float) -> list[Event]:
            raise StoppedError("no cluster")

    with pytest.raises(StoppedError, match=r"no cluster"):
        make(Broken(1, good)).run(make_shards(1), 0)


@pytest.mark.parametrize(
    ("shards", "rejected", "pool_rows", "allowed", "stops_after"),
    [
        (30, 0, 300, 0.0, None),
        (30, 1, 300, 0.1, None),
        (30, 1, 300, 0.05, ENOUGH_SHARDS),  # a tenth of what was seen, of ten random shards
        (30, 1, 30_000, 0.05, ENOUGH_SHARDS),
        (30, 1, 300, 0.0, 1),
        (30, 6, 30_000, 0.01, ENOUGH_SHARDS),
        (30, 5, 30_000, 0.4, ENOUGH_SHARDS),
        (30, 5, 30_000, 0.5, None),
        (30, 10, 300, 1.0, None),
        (3, 2, 30, 0.1, 2),  # more than a tenth of the whole pool, however few shards
    ],
)
def test_too_many_bad_rows_stop_the_run(
    shards: int, rejected: int, pool_rows: int, allowed: float, stops_after: int | None
) -> None:
    record = Record()
    coordinator = make(FakeFleet(1, rejecting(rejected)), record, pool_rows=pool_rows, max_bad_fraction=allowed)
    if stops_after is None:
        coordinator.run(make_shards(shards), 0)
        return
    with pytest.raises(ConfigError, match=r"more than run.max_bad_fraction=.*the commonest reason \(\d+ rows\): null"):
        coordinator.run(make_shards(shards), 0)
    assert len(record.reports) == stops_after  # what was scored is kept


@pytest.mark.parametrize(("limit", "stops_after"), [(0, 1), (4, 3), (6, None)])
def test_a_number_of_bad_rows_stops_the_run(limit: int, stops_after: int | None) -> None:
    record = Record()
    coordinator = make(FakeFleet(1, rejecting(2)), record, max_bad_rows=limit, max_bad_fraction=1.0)
    if stops_after is None:
        coordinator.run(make_shards(3), 0)
        return
    with pytest.raises(ConfigError, match=rf"more than run.max_bad_rows={limit} allows; the commonest reason"):
        coordinator.run(make_shards(3), 0)
    assert len(record.reports) == stops_after


def test_a_hopeless_failure_stops_the_run_once_it_is_set_aside() -> None:
    fleet = FakeFleet(
        1, lambda worker, task: Failed(task, "no room", True) if task.shard.index == 3 else good(worker, task)
    )
    with pytest.raises(StoppedError, match=r"shard 3 does not fit into memory \(no room\); begin anew"):
        make(fleet).run(make_shards(6), 0)
    assert fleet.attempts()[3] == ATTEMPTS


def test_bad_rows_that_cluster_do_not_stop_a_run_within_the_limit() -> None:
    """Two bad files, met first or last: 12 of 2,000 rows."""
    for bad in ({0, 1}, {25, 29}):

        def answer(worker: int, task: Task, bad: set[int] = bad) -> Event:
            return rejecting(6)(worker, task) if task.shard.index in bad else good(worker, task)

        make(FakeFleet(1, answer), pool_rows=2000, max_bad_fraction=0.01).run(make_shards(30), 0)


def test_a_run_that_was_stopped_for_its_bad_rows_stops_again() -> None:
    done = Totals(shards=20, scored=100, rejected=100, bad_shards=20, reasons={"null": 60, "torn": 40})
    with pytest.raises(ConfigError, match=r"100 of 200 rows .* \(60 rows\): null"):
        make(FakeFleet(1, good), done=done).run([], 0)
    make(FakeFleet(1, good), done=done, max_bad_fraction=0.6).run([], 0)


def test_progress_tells_how_far_the_run_is() -> None:
    states: list[State] = []

    def answer(worker: int, task: Task) -> Event:
        return Failed(task, "torn") if task.shard.index == 0 else good(worker, task)

    fleet = FakeFleet(2, answer)
    make(fleet, on_progress=states.append).run(make_shards(4), 0)
    assert len(states) == fleet.waits
    assert [state.totals.rows for state in states] == sorted(state.totals.rows for state in states)
    assert (states[-1].totals.shards, states[-1].workers, states[-1].in_flight) == (3, 2, 0)
    assert (states[-1].retried, states[-1].set_aside) == (ATTEMPTS, 1)
    assert max(state.in_flight for state in states) <= 2


def test_workers_are_counted_as_they_come_and_go() -> None:
    states: list[State] = []
    fleet = Script([Joined(1, PROFILE)], [Lost(1, None, (), "gone")], [scored(report(0))], workers=1)
    make(fleet, on_progress=states.append).run([ONLY], 0)
    assert [state.workers for state in states] == [1, 2, 1, 1]


def long_shards(count: int) -> list[Shard]:
    return [Shard(i, 40 * i, 40, (Piece("pool", i, 0, 0, 40, 40 * i),)) for i in range(count)]


def poisoned(poison: dict[int, set[int]], die: bool = True) -> Answer:
    """Workers that die of these places of shards, or raise on them, whenever they score one."""

    def answer(worker: int, task: Task) -> Event:
        if isinstance(task, TryReading):
            return Done(task, None)
        assert isinstance(task, ScoreShard | TryRows)
        rows = range(task.start, task.stop) if isinstance(task, TryRows) else range(task.shard.rows)
        lethal = {place for place in poison.get(task.shard.index, ()) if task.shard.row_id + place not in task.blank}
        if lethal.intersection(rows):
            return Lost(worker, task, (), "boom") if die else Failed(task, "boom", of_row=True)
        if isinstance(task, TryRows):
            return Done(task, None)
        return scored(report(task.shard.index, task.shard.rows - len(task.blank), len(task.blank), attempt=worker))

    return answer


@given(
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(0, 2**32),
    st.dictionaries(
        st.integers(0, 5), st.just(set(range(40))) | st.sets(st.integers(0, 39), min_size=1, max_size=12), max_size=3
    ),
    st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_every_row_but_the_poison_is_scored_in_any_order_of_events(
    workers: int, depth: int, seed: int, poison: dict[int, set[int]], die: bool
) -> None:
    luck, deaths, answer = random.Random(seed), Counter[Any](), poisoned(poison, die)

    def unlucky(worker: int, task: Task) -> Event:
        """Workers die by chance as well, though never so often of the same trial."""
        trial = (task.shard.index, task.start) if isinstance(task, TryRows) else (task.shard.index, type(task))
        if luck.random() < 0.1 and deaths[trial] < ATTEMPTS - 1:
            deaths[trial] += 1
            return Lost(worker, task, (), "killed")
        return answer(worker, task)

    record = Record()
    coordinator = make(FakeFleet(workers, unlucky, depth=depth), record, max_bad_fraction=1.0)
    try:
        set_aside = coordinator.run(long_shards(6), seed)
    except StoppedError:  # by chance nothing but hopeless shards came first: that ends a run, as it should
        assert not record.reports
        reject()
    rejected = {report.shard: report.rejected for report in record.reports}
    assert set_aside.keys() == {shard for shard in poison if len(poison[shard]) > MOST_ROWS}
    assert rejected == {i: len(poison.get(i, ())) for i in range(6) if i not in set_aside}


@pytest.mark.parametrize("die", [False, True])
def test_a_pool_of_few_shards_with_poison_in_each_is_scored(die: bool) -> None:
    record = Record()
    coordinator = make(FakeFleet(1, poisoned({i: {1, 20} for i in range(3)}, die)), record, max_bad_fraction=1.0)
    assert coordinator.run(long_shards(3), 0) == {}
    assert [report.rejected for report in record.reports] == [2, 2, 2]


@pytest.mark.parametrize("count", [1, 2, 3, 500])
@pytest.mark.parametrize("die", [False, True])
def test_a_model_that_fails_on_everything_stops_the_run_early(count: int, die: bool) -> None:
    def answer(worker: int, task: Task) -> Event:
        return Lost(worker, task, (), "boom") if die else Failed(task, "boom", of_row=True)

    fleet = FakeFleet(2, answer)
    with pytest.raises(StoppedError, match=r"no shard could be scored; shard \d+ failed last: .*boom"):
        make(fleet).run(make_shards(count), 0)
    assert len(fleet.submitted) <= 6 * ATTEMPTS


def test_a_search_for_poison_keeps_one_worker_and_no_more_while_shards_wait() -> None:
    trials: list[int] = []

    class Watched(FakeFleet):
        def wait(self, seconds: float) -> list[Event]:
            trials.append(sum(not isinstance(task, ScoreShard) for held in self.held.values() for task in held))
            return super().wait(seconds)

    fleet = Watched(3, poisoned({i: {i} for i in range(30)}, die=False))
    make(fleet, max_bad_fraction=1.0).run(long_shards(30), 0)
    first = trials.index(1)
    assert trials[first : first + 10] == [1] * 10
    assert max(trials) == 3  # side by side once nothing else is to be done


def test_a_trial_for_which_there_is_no_memory_or_no_file_is_none_of_a_rows_doing() -> None:
    for hopeless in (False, True):

        def answer(worker: int, task: Task, hopeless: bool = hopeless) -> Event:
            if not isinstance(task, ScoreShard):
                return Failed(task, "gone", hopeless)
            return Failed(task, "boom", of_row=True) if task.shard.index == 3 else good(worker, task)

        fleet = FakeFleet(2, answer)
        if hopeless:
            with pytest.raises(StoppedError, match=r"shard 3 does not fit into memory \(gone\)"):
                make(fleet).run(make_shards(6), 0)
        else:
            assert make(fleet).run(make_shards(6), 0) == {3: "gone"}
        assert fleet.attempts()[3] == 2 * ATTEMPTS


def test_at_a_limit_shards_at_work_are_finished_and_no_other_is_begun() -> None:
    record, fleet = Record(), FakeFleet(2, good, depth=2)
    coordinator = make(fleet, record, stop_when=lambda: "late" if len(record.reports) >= 3 else None)
    assert coordinator.run(make_shards(50), 0) == {}
    assert coordinator.stopped == "late"
    assert sorted(record.shards) == sorted(fleet.submitted)
    assert 3 <= len(record.shards) <= 3 + 4


def test_a_shard_that_fails_while_the_rest_is_left_is_not_begun_again() -> None:
    record = Record()
    fleet = FakeFleet(1, lambda worker, task: Failed(task, "unreadable"))
    coordinator = make(fleet, record, done=Totals(shards=1), stop_when=lambda: "late" if fleet.submitted else None)
    assert coordinator.run(make_shards(5), 0) == {}
    assert len(fleet.submitted) == 1


def test_a_shard_that_hangs_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("poolscore.engine.run.coordinator.DRAIN", 0.0)
    fleet = FakeFleet(1, lambda worker, task: None)
    coordinator = make(fleet, stop_when=lambda: "late" if fleet.submitted else None)
    assert coordinator.run(make_shards(5), 0) == {}
    assert coordinator.stopped == "late"


def test_a_run_whose_time_is_over_looks_for_no_more_poison() -> None:
    trials: list[Task] = []
    dies = poisoned({0: {7}})

    def answer(worker: int, task: Task) -> Event:
        if not isinstance(task, ScoreShard):
            trials.append(task)
        return dies(worker, task)

    coordinator = make(
        FakeFleet(2, answer), done=Totals(shards=1), stop_when=lambda: "the deadline came" if trials else None
    )
    assert coordinator.run(long_shards(1), 0) == {}
    assert coordinator.stopped == "the deadline came"
    assert len(trials) == 1


@pytest.mark.parametrize("within", [True, False])
def test_an_interrupt_takes_nothing_that_was_done(within: bool) -> None:
    """Whether it comes while a shard is recorded, others waiting for it, or between: all are."""

    class Interrupted(Record):
        def append(self, *reports: ShardReport) -> None:
            if len(self.reports) == 3 and within and not self.hurried:
                raise KeyboardInterrupt
            super().append(*reports)

    class Writing(FakeFleet):
        def last(self) -> list[Done]:
            return [scored(report(task.shard.index)) for held in self.held.values() for task in held]

    def on_progress(state: State) -> None:
        if state.totals.shards >= 2 and not within:
            raise KeyboardInterrupt

    record = Interrupted()
    fleet = Writing(3, good, depth=2)
    with pytest.raises(KeyboardInterrupt):
        make(fleet, record, on_progress=on_progress).run(make_shards(50), 0)
    assert record.hurried
    assert sorted(record.shards) == sorted(fleet.attempts())
    assert len(record.shards) < 50
