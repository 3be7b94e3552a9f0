"""How fast a run went, over time and by worker, from what the shards' reports say. Memory: some numbers for a shard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from poolscore.engine.run.journal import ShardReport

SLICES = 60  # of the time
PAUSE = 60.0  # seconds without a worker at a shard that are left out: the run was stopped, or waited for machines

Seconds = NDArray[np.float64]


@dataclass(frozen=True)
class Pace:
    """A run in slices of equal length. Rows of a shard are spread evenly over the time that it took."""

    seconds: float  # of all slices together; pauses are left out
    rows_per_second: NDArray[np.float64]  # [SLICES] scored or rejected, of all workers together
    workers: NDArray[np.float64]  # [SLICES] at a shard, on average
    pauses: Sequence[tuple[float, float]]  # after so many seconds, so many seconds long
    unknown: int  # shards whose record, of an older version, does not say when they were scored


@dataclass(frozen=True)
class WorkerPace:
    """What a worker did."""

    name: str
    shards: int
    rows: int  # scored or rejected
    seconds: float

    @property
    def rows_per_second(self) -> float:
        """While it was at a shard."""
        return self.rows / self.seconds if self.seconds else 0.0


def pace_of(reports: Iterable[ShardReport]) -> Pace | None:
    """The run over time; None where no report says when."""
    every = list(reports)
    known = [report for report in every if report.at > 0 and report.seconds > 0]
    if not known:
        return None
    ended = np.array([report.at for report in known])
    took = np.array([report.seconds for report in known])
    rows = np.array([_rows(report) for report in known], np.float64)
    order = np.argsort(ended - took, kind="stable")
    took, rows = took[order], rows[order]
    began, pauses = _without_pauses(ended[order] - took, ended[order])
    whole = float((began + took).max())
    edges = np.linspace(0.0, whole, SLICES + 1)
    shares = [np.clip((edge - began) / took, 0.0, 1.0) for edge in edges]
    rows_by, work_by = (np.diff([share @ weight for share in shares]) * SLICES / whole for weight in (rows, took))
    return Pace(whole, rows_by, work_by, pauses, len(every) - len(known))


def workers_of(reports: Iterable[ShardReport]) -> list[WorkerPace]:
    """Each worker, the slowest first."""
    shards: Counter[str] = Counter()
    rows: Counter[str] = Counter()
    seconds: dict[str, float] = {}
    for report in reports:
        shards[report.worker] += 1
        rows[report.worker] += _rows(report)
        seconds[report.worker] = seconds.get(report.worker, 0.0) + report.seconds
    workers = [WorkerPace(name, shards[name], rows[name], seconds[name]) for name in shards]
    return sorted(workers, key=lambda worker: (worker.rows_per_second, worker.name))


def _without_pauses(began: Seconds, ended: Seconds) -> tuple[Seconds, list[tuple[float, float]]]:
    """When shards began, ascending, in seconds since the first of them, without the pauses; and the pauses."""
    latest = np.maximum.accumulate(ended)
    gaps = np.maximum(began[1:] - latest[:-1], 0.0)
    gaps[gaps < PAUSE] = 0.0
    left_out = np.concatenate([[0.0], np.cumsum(gaps)])
    at = began - began[0] - left_out
    pauses = [(float(latest[i] - began[0] - left_out[i]), float(gaps[i])) for i in np.flatnonzero(gaps).tolist()]
    return at, pauses


def _rows(report: ShardReport) -> int:
    return report.scored + report.rejected
