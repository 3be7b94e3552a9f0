"""A worker in the middle of a long run: never without a shard, and shards as the job has them.

Files are opened, threads begun and a part is written for every shard, so a shard of a few rows tells little of a night.
The shards here are the plan's own. Where one of those would last long, it is whole batches of it from some row group
on, about SHARD_SECONDS long. Rounds follow each other without a pause: nothing is filled or drained between.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from poolscore.engine.errors import StoppedError
from poolscore.engine.pool.plan import Plan, Shard
from poolscore.engine.run.fleet import IN_FLIGHT, Done, Failed, Fleet
from poolscore.engine.run.journal import ShardReport
from poolscore.engine.run.task import ScoreShard

SHARD_SECONDS = 2.0  # of a shard that is cut, at least
ROUND_SECONDS = 3.0  # at least
SHARDS = 4  # of a round whose rows are given
FILLED = 4  # batches of a shard that is cut, at least, where rows are left out: they are in no batch


@dataclass(frozen=True)
class Round:
    """Shards that followed each other."""

    reports: list[ShardReport]
    seconds: float
    cpu_seconds: float  # of this process

    @property
    def rows(self) -> int:
        """That were scored or rejected."""
        return sum(map(rows_of, self.reports))


def rows_of(report: ShardReport) -> int:
    """Rows of a shard that were scored or rejected, and not left out before."""
    return report.scored + report.rejected


def drawn_shards(plan: Plan, rows: int, seed: int) -> Iterator[Shard]:
    """Shards of the plan in random order, again and again; of one with more rows, so many from some row group on."""
    rng = np.random.default_rng(seed)
    while True:
        for index in rng.permutation(len(plan.shards)).tolist():
            shard = plan.shards[index]
            if shard.rows > rows:
                starts = np.cumsum([0, *(piece.rows for piece in shard.pieces)])[:-1]
                start = int(rng.choice(starts[starts + rows <= shard.rows]))
                shard = shard.part(start, start + rows)
            yield shard


def fitting_rows(fleet: Fleet, plan: Plan, batch: int, seed: int) -> int:
    """Rows that shards are cut to so that one takes SHARD_SECONDS, or more than the plan's largest has. Warms up, too.

    Raises:
        StoppedError: a shard could not be scored.
    """
    rows, most, cold = batch, int(plan.shards.rows.max()), True
    while rows < most:
        started = time.perf_counter()
        (report,) = scored(fleet, islice(drawn_shards(plan, rows, seed), 1))
        long = time.perf_counter() - started >= SHARD_SECONDS
        left_out = report.excluded + report.filtered
        if not cold:  # the first call of a model says nothing
            if long and rows_of(report) >= batch * (FILLED if left_out else 1):
                break
            rows *= 2
        cold = False
    return rows


def measured_rounds(fleet: Fleet, plan: Plan, shards: Iterator[Shard], count: int, rows: int | None) -> list[Round]:
    """Rounds of at least so many rows, or of ROUND_SECONDS. The shards before the first are not counted.

    Raises:
        StoppedError: a shard could not be scored, or no row of the pool is left in those that were read.
    """
    reports = scored(fleet, shards)
    for _ in range(IN_FLIGHT):
        next(reports)
    found: list[Round] = []
    started, cpu = time.perf_counter(), time.process_time()
    for _ in range(count):
        mine: list[ShardReport] = []
        while True:
            mine += islice(reports, IN_FLIGHT)  # two that are at work at a time may end at a time
            seconds, sum_rows = time.perf_counter() - started, sum(map(rows_of, mine))
            if sum_rows and (seconds >= ROUND_SECONDS if rows is None else sum_rows >= rows):
                break
            if not sum_rows and len(mine) >= SHARDS * len(plan.shards):
                raise StoppedError("bench: pool.filter, sample or exclude left no row of what was read; take them out")
        found.append(Round(mine, seconds, time.process_time() - cpu))
        started, cpu = started + seconds, time.process_time()
    return found


def scored(fleet: Fleet, shards: Iterator[Shard]) -> Iterator[ShardReport]:
    """What becomes of shards, of which the worker always has as many as in a run.

    Raises:
        StoppedError: one could not be scored.
    """
    waiting = 0
    while True:
        while fleet.free() and (shard := next(shards, None)) is not None:
            fleet.submit(0, ScoreShard(shard))
            waiting += 1
        if not waiting:
            return
        for event in fleet.wait(1.0):
            if isinstance(event, Failed):
                raise StoppedError(f"bench: a shard cannot be scored: {event.reason}")
            if isinstance(event, Done):
                waiting -= 1
                yield event.result
