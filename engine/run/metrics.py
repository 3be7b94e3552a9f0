"""A run in numbers, for Prometheus. Knows no Ray: it is given the classes that make a counter and a gauge.

The driver alone counts, from the reports that the journal believes: so a shard that two workers scored counts once, and
at the end of a run that was not resumed the counters are what run.json says. A driver that resumes a run counts what is
scored in its time; `run_rows_done` and `run_shards_done` are of the whole run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Protocol

from poolscore.engine.run.coordinator import State
from poolscore.engine.run.events import RunEvent
from poolscore.engine.run.journal import ShardReport
from poolscore.engine.run.observer import Observer
from poolscore.engine.worker.stages import idle_share

REFRESH = 5.0  # seconds: Ray forgets a gauge that is not set again within two of its intervals, 20 s by default
SILENT = 1800.0  # seconds without a report after which a worker's gauges are dropped
COUNTERS = {  # name → labels besides run_id, meaning. Ray puts `ray_` before and `_total` behind.
    "rows_scored": (("worker",), "Rows scored."),
    "rows_rejected": (("worker", "stage"), "Rows that could not be scored, by the stage that failed."),
    "rows_left_out": (("worker", "why"), "Rows not scored on purpose: excluded or filtered."),
    "shards_done": (("worker",), "Shards scored and journalled."),
    "shards_retried": ((), "Attempts at a shard that failed or killed their worker."),
    "stage_seconds": (("worker", "stage"), "Seconds of each stage; they overlap. Stage idle: of the device."),
    "events": (("what",), "Events of the run, by kind."),
}
GAUGES = {
    "workers": ((), "Workers that are ready."),
    "worker_rows_per_second": (("worker",), "Rows per second of a worker, in its last shard."),
    "device_idle_ratio": (("worker",), "Share of its last shard for which a worker's device had nothing to do."),
    "shards_in_flight": ((), "Shards that workers hold."),
    "shards_set_aside": ((), "Shards given up in this call."),
    "run_shards": ((), "Shards of the run."),
    "run_shards_done": ((), "Shards of the run that are done, by any driver."),
    "run_rows": ((), "Rows of the run's plan."),
    "run_rows_done": ((), "Rows of the run that something became of, by any driver."),
}


class Counts(Protocol):
    """A counter of Ray's, or a test's."""

    def inc(self, value: float, tags: dict[str, str]) -> None:
        """Add; the value is larger than 0."""


class Shows(Protocol):
    """A gauge."""

    def set(self, value: float, tags: dict[str, str]) -> None:
        """Say what is now."""


class Metrics(Observer):
    """The metrics of one call of `score`.

    Args:
        counter, gauge: `ray.util.metrics.Counter` and `Gauge`, or what takes the same arguments.
        run_id: of the run directory.
        rows, shards: of the plan.
    """

    def __init__(
        self,
        counter: Callable[[str, str, tuple[str, ...]], Counts],
        gauge: Callable[[str, str, tuple[str, ...]], Shows],
        run_id: str,
        rows: int,
        shards: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run = {"run_id": run_id}
        self._counters = {n: counter(f"poolscore_{n}", text, ("run_id", *tags)) for n, (tags, text) in COUNTERS.items()}
        self._gauges = {n: gauge(f"poolscore_{n}", text, ("run_id", *tags)) for n, (tags, text) in GAUGES.items()}
        self._rows, self._shards, self._clock = rows, shards, clock
        self._retried = 0
        self._refreshed = float("-inf")
        self._state: State | None = None  # the latest
        self._last: dict[str, tuple[float, ShardReport]] = {}  # worker → when it reported last, and what
        self._gone: set[str] = set()  # workers, without their machines; a report of theirs may come late

    def report(self, report: ShardReport) -> None:
        """A shard counts from now on."""
        worker = report.worker
        if worker.partition("@")[0] not in self._gone:
            self._last[worker] = self._clock(), report
        self._count("rows_scored", report.scored, worker=worker)
        self._count("shards_done", 1, worker=worker)
        for stage, rows in report.rejected_by.items():
            self._count("rows_rejected", rows, worker=worker, stage=stage)
        for why, rows in (("excluded", report.excluded), ("filtered", report.filtered)):
            self._count("rows_left_out", rows, worker=worker, why=why)
        for stage, seconds in report.stages.items():
            self._count("stage_seconds", seconds, worker=worker, stage=stage)

    def event(self, event: RunEvent) -> None:
        """Something happened."""
        self._count("events", 1, what=event.what)
        if event.what in ("lost", "killed"):  # a worker's name begins with its number; see RayFleet
            self._gone.add(f"worker-{event.worker}")
            self._last = {w: last for w, last in self._last.items() if w.partition("@")[0] not in self._gone}

    def progress(self, state: State) -> None:
        """To be told again and again how far the run is."""
        self._count("shards_retried", state.retried - self._retried)
        self._retried, self._state = state.retried, state
        if self._clock() - self._refreshed >= REFRESH:
            self._refresh(state)

    def end(self) -> None:
        """The last values."""
        if self._state is not None:
            self._refresh(self._state)

    def _refresh(self, state: State) -> None:
        self._refreshed, totals = self._clock(), state.totals
        now: Mapping[str, float] = {
            "workers": state.workers,
            "shards_in_flight": state.in_flight,
            "shards_set_aside": state.set_aside,
            "run_shards": self._shards,
            "run_shards_done": totals.shards,
            "run_rows": self._rows,
            "run_rows_done": totals.rows,
        }
        for name, value in now.items():
            self._gauges[name].set(value, self._run)
        self._last = {w: last for w, last in self._last.items() if self._clock() - last[0] < SILENT}
        for worker, (_, report) in self._last.items():
            labels = {**self._run, "worker": worker}
            if report.seconds:
                rate = (report.scored + report.rejected) / report.seconds
                self._gauges["worker_rows_per_second"].set(rate, labels)
            if (share := idle_share(report.stages)) == share:
                self._gauges["device_idle_ratio"].set(share, labels)

    def _count(self, name: str, value: float, **labels: str) -> None:
        if value > 0:
            self._counters[name].inc(value, {**self._run, **labels})
