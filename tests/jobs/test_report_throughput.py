"""Throughput over time and by worker, from what the shards' reports say; older ones do not say when."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from report_workshop import Elements, Workshop, finished_run, page_of

from poolscore.engine.run.journal import ShardReport
from poolscore.jobs.report import facts, throughput
from poolscore.jobs.report.pace import SLICES, pace_of, workers_of

START = 1.79e9  # seconds since 1970


def report(shard: int, at: float, seconds: float = 10.0, rows: int = 100, worker: str = "w0@a") -> ShardReport:
    """Of a shard that was done `at` seconds after START."""
    return ShardReport(shard, "s", None, rows - 1, 1, 5, {}, {}, seconds, worker, 1, at=START + at if at else 0.0)


def test_two_workers_make_the_sum_of_their_rows() -> None:
    reports = [report(i, 10.0 * (i + 1)) for i in range(6)]
    reports += [report(6 + i, 10.0 * (i + 1), rows=50, worker="w1@b") for i in range(3)]
    pace = pace_of(reversed(reports))
    assert pace is not None
    assert (pace.seconds, pace.pauses, pace.unknown) == (60.0, [], 0)
    half = SLICES // 2
    np.testing.assert_allclose(pace.rows_per_second, [15.0] * half + [10.0] * half)  # rejected rows count, others not
    np.testing.assert_allclose(pace.workers, [2.0] * half + [1.0] * half)


def test_a_pause_is_left_out_and_named() -> None:
    pace = pace_of([report(0, 10.0), report(1, 20.0), report(2, 10_000.0), report(3, 0.0), report(4, 10_030.0)])
    assert pace is not None
    assert pace.pauses == [(20.0, 9970.0)]
    assert (pace.seconds, pace.unknown) == (60.0, 1)  # twenty seconds without a worker are no pause
    assert pace.rows_per_second.mean() * pace.seconds == pytest.approx(400)
    np.testing.assert_allclose(pace.rows_per_second, [10.0] * (SLICES // 2) + [0.0] * (SLICES // 3) + [10.0] * 10)
    assert "<title>pause of 2 h 46 min</title>" in throughput.drawing(pace)


def test_workers_are_told_the_slowest_first() -> None:
    reports = [report(0, 10.0), report(1, 20.0), report(2, 0.0, seconds=40.0, worker="<b>slow")]
    slow, fast = workers_of(reports)
    assert (slow.name, slow.rows_per_second, fast.rows_per_second) == ("<b>slow", 2.5, 10.0)
    assert (fast.shards, fast.rows, fast.seconds) == (2, 200, 20.0)


def test_the_page_tells_of_a_run(tmp_path_factory: pytest.TempPathFactory) -> None:
    began = time.time()
    run = finished_run(Workshop(tmp_path_factory.mktemp("throughput")))
    assert all(began <= report.at <= time.time() for report in run.reports().values())
    told = facts.gather(run)
    worker = next(iter(run.reports().values())).worker
    text = Elements(throughput.section(told)).text
    assert text.count("400 rows in ") == 1
    assert "seconds at work" in text
    assert f" {worker} " in text
    assert "Throughput" in Elements(page_of(run)).text
    older = replace(told, reports={shard: replace(report, at=0.0) for shard, report in told.reports.items()})
    html = throughput.section(older)
    assert "did not note when" in html
    assert "<svg" not in html
    assert worker in html


def test_many_shards_and_workers_make_no_larger_page() -> None:
    reports = [report(i, 10.0 + i / 10, worker=f"worker-{i % 700}@host") for i in range(70_000)]
    pace = pace_of(reports)
    assert pace is not None
    assert pace.rows_per_second.sum() * pace.seconds / SLICES == pytest.approx(7_000_000)
    assert len(throughput.drawing(pace)) < 40_000
    table = Elements(throughput._table(workers_of(reports)))
    assert len(table.all("tr")) == 1 + throughput.LINES
    assert f"and {700 - throughput.LINES} faster ones." in table.text
