"""The numbers of a run, as a counter and a gauge would show them; Ray's own are in test_metrics_on_ray.py."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from fake_fleet import FakeClock, FakeFleet, make_shards, report, scored

from poolscore.engine.run.coordinator import Coordinator, State
from poolscore.engine.run.events import RunEvent, What
from poolscore.engine.run.fleet import Event, Failed
from poolscore.engine.run.journal import ShardReport
from poolscore.engine.run.metrics import COUNTERS, GAUGES, REFRESH, SILENT, Metrics
from poolscore.engine.run.task import Task
from poolscore.engine.run.totals import Totals

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


class Shown:
    """What Prometheus would see."""

    def __init__(self) -> None:
        self.series: Series = {}
        self.clock = FakeClock()
        self.metrics = Metrics(self._make, self._make, "run-1", rows=120, shards=12, clock=self.clock)

    def sum(self, name: str, **labels: str) -> float:
        """Over all series of a name that have these labels."""
        return sum(v for (n, have), v in self.series.items() if n == name and labels.items() <= set(have))

    def _make(self, name: str, text: str, tags: tuple[str, ...]) -> Any:
        series = self.series

        class One:
            def inc(self, value: float, tags: Mapping[str, str]) -> None:
                assert value > 0, "Ray refuses that"
                series[self._key(tags)] = series.get(self._key(tags), 0.0) + value

            def set(self, value: float, tags: Mapping[str, str]) -> None:
                series[self._key(tags)] = value

            def _key(self, given: Mapping[str, str]) -> tuple[str, frozenset[tuple[str, str]]]:
                assert set(given) == set(tags), "Ray refuses a label that was not declared, or is missing"
                return name, frozenset(given.items())

        return One()


def rich(shard: int, worker: str = "worker-0@here") -> ShardReport:
    """A report with something of everything."""
    return replace(
        report(shard, scored=6, rejected=3),
        worker=worker,
        excluded=1,
        rejected_by={"decode": 2, "reduce": 1},
        seconds=3.0,
        stages={"read": 1.0, "model": 3.0, "idle": 1.0, "copy": 0.0},
    )


def state(**known: Any) -> State:
    return State(**({"totals": Totals(), "workers": 1, "in_flight": 2, "retried": 0, "set_aside": 0} | known))


@pytest.fixture
def shown() -> Shown:
    return Shown()


def test_names_are_as_prometheus_wants_them() -> None:
    assert all(re.fullmatch("[a-z][a-z_]*", name) for name in [*COUNTERS, *GAUGES])
    assert not any(name.endswith("_total") for name in [*COUNTERS, *GAUGES]), "Ray appends it to counters"


def test_the_page_of_a_run_names_every_metric_and_every_event() -> None:
    page = (Path(__file__).parents[3] / "engine/run/README.md").read_text()
    assert all(f"`poolscore_{name}_total`" in page for name in COUNTERS)
    assert all(f"`poolscore_{name}`" in page for name in GAUGES)
    assert all(f"`{what}`" in page for what in get_args(What))


@pytest.mark.parametrize("seed", range(5))
def test_counters_are_the_totals_however_often_shards_are_scored(shown: Shown, seed: int) -> None:
    failed: list[int] = []
    told: Counter[str] = Counter()

    def answer(worker: int, task: Task) -> Event:
        if task.shard.index % 5 == 0 and failed.count(task.shard.index) < 2:
            failed.append(task.shard.index)
            return Failed(task, "unreadable")
        return scored(rich(task.shard.index, f"worker-{worker}@here"))

    fleet = FakeFleet(3, answer, depth=2, seed=seed)  # workers die, and reports come late or twice
    watch: dict[str, Callable[..., None]] = {
        "on_progress": shown.metrics.progress,
        "on_event": lambda event: (told.update([event.what]), shown.metrics.event(event)),
        "on_report": shown.metrics.report,
    }
    journal: Any = type("Record", (), {"append": lambda self, *reports: None})()
    coordinator = Coordinator(
        fleet, journal, Totals(), 120, 1.0, None, None, on_profile=lambda profile: None, clock=shown.clock, **watch
    )
    set_aside = coordinator.run(make_shards(12), seed)
    shown.metrics.end()
    totals = coordinator.totals
    assert totals.shards == 12 - len(set_aside) >= 9
    assert shown.sum("poolscore_rows_scored") == totals.scored
    assert shown.sum("poolscore_rows_rejected") == totals.rejected
    for stage, rows in totals.rejected_by.items():
        assert shown.sum("poolscore_rows_rejected", stage=stage) == rows
    assert shown.sum("poolscore_rows_left_out", why="excluded") == totals.excluded
    assert shown.sum("poolscore_shards_done") == shown.sum("poolscore_run_shards_done") == totals.shards
    assert shown.sum("poolscore_shards_set_aside") == len(set_aside)
    assert shown.sum("poolscore_stage_seconds", stage="idle") == pytest.approx(totals.stages["idle"])
    assert (shown.sum("poolscore_run_rows_done"), shown.sum("poolscore_run_rows")) == (totals.rows, 120)
    assert {"joined", "failed"} <= told.keys()
    for what, count in told.items():
        assert shown.sum("poolscore_events", what=what) == count
    assert shown.sum("poolscore_shards_retried") >= told["failed"]
    assert all(dict(labels)["run_id"] == "run-1" for _, labels in shown.series)


def test_gauges_tell_of_the_workers_that_are_there(shown: Shown) -> None:
    worker = {"worker": "worker-10@here"}
    shown.metrics.report(rich(0, "worker-10@here"))
    shown.metrics.progress(state(workers=4))
    assert shown.sum("poolscore_workers") == 4
    assert shown.sum("poolscore_shards_in_flight") == 2
    assert shown.sum("poolscore_worker_rows_per_second", **worker) == 3.0
    assert shown.sum("poolscore_device_idle_ratio", **worker) == 0.25
    for gone in (1, 10):
        shown.metrics.event(RunEvent("lost", gone))
        shown.series.clear()
        shown.clock.sleep(REFRESH)
        shown.metrics.progress(state())
        there = shown.sum("poolscore_worker_rows_per_second", **worker)
        assert (there > 0) == (gone == 1), "worker 1 is another one"


def test_a_late_report_of_a_worker_that_is_gone_counts_and_brings_it_not_back(shown: Shown) -> None:
    shown.metrics.report(rich(0, "worker-1@here"))
    shown.metrics.event(RunEvent("killed", 1))
    shown.metrics.report(rich(1, "worker-1@here"))
    shown.metrics.report(rich(2, "worker-10@here"))
    shown.metrics.progress(state())
    assert shown.sum("poolscore_shards_done", worker="worker-1@here") == 2
    there = {dict(labels)["worker"] for name, labels in shown.series if name == "poolscore_worker_rows_per_second"}
    assert there == {"worker-10@here"}


def test_gauges_are_set_again_now_and_then_so_that_ray_does_not_forget_them(shown: Shown) -> None:
    shown.metrics.report(rich(0))
    refreshed = 0
    for _ in range(int(SILENT + 60)):
        shown.series.clear()
        shown.metrics.progress(state())
        refreshed += ("poolscore_workers", frozenset({("run_id", "run-1")})) in shown.series
        shown.clock.sleep(1.0)
    assert refreshed == pytest.approx((SILENT + 60) / REFRESH, abs=1)
    shown.clock.sleep(REFRESH)
    shown.metrics.progress(state())
    assert not shown.sum("poolscore_worker_rows_per_second"), "a worker that is silent for long is not shown"
