"""Shards of a benchmark: their rate is that of a long run, whatever one costs beside its rows. The clock is ours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from poolscore.engine.errors import StoppedError
from poolscore.engine.pool.plan import PIECES, Plan, Shard
from poolscore.engine.run.fleet import IN_FLIGHT, Done, Event, Failed
from poolscore.engine.run.journal import ShardReport
from poolscore.engine.run.task import ScoreShard, Task
from poolscore.jobs.bench import steady
from poolscore.jobs.bench.steady import ROUND_SECONDS, SHARD_SECONDS, drawn_shards, fitting_rows, measured_rounds

BATCH = 16


@dataclass
class Clocked:
    """A worker whose shards take `fixed` seconds and `each` a row, two of them side by side; the first call is slow."""

    fixed: float
    each: float
    first: float = 0.0
    kept: float = 1.0  # share of the rows that a filter leaves
    together: bool = False  # two shards are done at a time
    fails: bool = False
    now: float = 0.0
    seen: list[Shard] = field(default_factory=list)
    given: list[Task] = field(default_factory=list)

    expected = 1

    def free(self) -> Sequence[int]:
        return [0] if len(self.given) < IN_FLIGHT else []

    def submit(self, worker: int, task: Task) -> None:
        self.given.append(task)
        self.seen.append(task.shard)

    def wait(self, seconds: float) -> list[Event]:
        count = len(self.given) if self.together else 1
        done, self.given = self.given[:count], self.given[count:]
        self.now += self.first + sum(self.fixed + self.each * task.shard.rows for task in done)
        self.first = 0.0
        return [Failed(task, "broken") if self.fails else Done(task, self._report(task.shard)) for task in done]

    def _report(self, shard: Shard) -> ShardReport:
        rows = round(shard.rows * self.kept)
        return ShardReport(
            *(shard.index, "scores", None, rows, 0, 0, {}, {}, 0.0, "worker", 0), filtered=shard.rows - rows
        )

    def kill(self, worker: int, why: str) -> None: ...
    def refuse(self, worker: int) -> bool:
        return False

    def last(self) -> Sequence[Done]:
        return []

    def close(self) -> None: ...


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[Clocked]:
    """Put a worker in, and its time passes."""
    of: list[Clocked] = []

    def now() -> float:
        return of[0].now

    monkeypatch.setattr(steady, "time", SimpleNamespace(perf_counter=now, process_time=now))
    return of


def pool(shards: int, groups: int, group_rows: int) -> Plan:
    """So many shards of so many row groups."""
    count = shards * groups
    rows = np.full(count, group_rows)
    columns = {
        "shard": np.repeat(np.arange(shards, dtype=np.int32), groups),
        "path": pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), ["pool.parquet"]),
        "row_group": np.arange(count, dtype=np.int32),
        "start": np.zeros(count, np.int64),
        "file_row": np.cumsum(rows) - rows,
        "rows": rows,
        "row_id": np.cumsum(rows) - rows,
        "file_bytes": np.full(count, -1),
    }
    return Plan("", "", 0, 1, pa.table(columns, PIECES))


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize(
    ("plan", "fixed", "each"),
    [
        (pool(8, 1, 256), 0.1, 0.0002),  # light rows in the job's small shards: each costs twice its rows
        (pool(8, 32, 2048), 0.1, 0.0002),  # the same in large ones
        (pool(8, 32, 2048), 0.1, 0.25),  # heavy rows: a batch takes seconds
        (pool(3, 1, 1000), 0.0, 0.001),  # shards that just take long enough
    ],
)
def test_the_rate_is_that_of_a_long_run(
    plan: Plan, fixed: float, each: float, together: bool, clock: list[Clocked]
) -> None:
    worker = Clocked(fixed, each, first=30.0, together=together)
    clock.append(worker)
    cut = fitting_rows(worker, plan, BATCH, seed=0)
    rounds = measured_rounds(worker, plan, drawn_shards(plan, cut, seed=0), 3, None)
    of_job = int(plan.shards.rows.max())
    long_run = of_job / (fixed + each * of_job)
    for part in rounds:
        assert part.rows / part.seconds == pytest.approx(long_run, rel=0.15)
        assert part.seconds >= ROUND_SECONDS
        assert part.cpu_seconds == pytest.approx(part.seconds)
    assert worker.now < 120 + 20 * BATCH * each  # and it is measured in a minute or two


def test_cut_shards_are_of_whole_batches_and_long_enough(clock: list[Clocked]) -> None:
    clock.append(Clocked(0.1, 0.001, first=30.0))
    rows = fitting_rows(clock[0], pool(2, 64, 1024), BATCH, seed=0)
    assert rows % BATCH == 0
    assert SHARD_SECONDS <= 0.1 + 0.001 * rows < 2 * SHARD_SECONDS


def test_rows_that_a_filter_leaves_fill_batches(clock: list[Clocked]) -> None:
    clock.append(Clocked(0.0, 1.0, kept=0.1))
    assert fitting_rows(clock[0], pool(2, 64, 1024), BATCH, seed=0) * 0.1 >= 3.9 * BATCH


def test_rows_of_a_round_can_be_given(clock: list[Clocked]) -> None:
    clock.append(Clocked(0.0, 0.001))
    plan = pool(8, 1, 256)
    rounds = measured_rounds(clock[0], plan, drawn_shards(plan, 128, seed=0), 2, 500)
    assert [part.rows for part in rounds] == [512, 512]


def test_shards_are_drawn() -> None:
    plan = pool(5, 4, 100)
    assert sorted(shard.index for shard in islice(drawn_shards(plan, 400, 0), 5)) == [*range(5)]
    assert [shard.rows for shard in islice(drawn_shards(plan, 400, 0), 5)] == [400] * 5
    cut = [*islice(drawn_shards(plan, 150, 0), 50)]
    assert {shard.rows for shard in cut} == {150}
    starts = [shard.row_id - 400 * shard.index for shard in cut]
    assert set(starts) == {0, 100, 200}  # row groups behind which 150 rows are left


def test_what_cannot_be_measured(clock: list[Clocked]) -> None:
    plan = pool(2, 1, 100)
    clock.append(Clocked(0.1, 0.001, fails=True))
    with pytest.raises(StoppedError, match="a shard cannot be scored: broken"):
        fitting_rows(clock[0], plan, BATCH, seed=0)
    clock[0] = Clocked(0.1, 0.001, kept=0.0)
    with pytest.raises(StoppedError, match=r"left no row of what was read"):
        measured_rounds(clock[0], plan, drawn_shards(plan, 100, 0), 1, None)


def test_the_worker_always_has_two_shards(clock: list[Clocked]) -> None:
    clock.append(Clocked(0.1, 0.001))
    plan = pool(8, 1, 256)
    measured_rounds(clock[0], plan, drawn_shards(plan, 256, 0), 2, 1024)
    assert [type(task) for task in clock[0].given] == [ScoreShard] * (IN_FLIGHT - 1)
    assert len(clock[0].seen) == IN_FLIGHT + 2 * 4 + IN_FLIGHT - 1
