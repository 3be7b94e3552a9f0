"""plan --preview: a sample drawn, scored and looked at."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import scores_of_run

from poolscore.engine.before.estimate import Work, estimate
from poolscore.engine.config import Config, PricesConfig
from poolscore.engine.errors import ConfigError
from poolscore.engine.pool.cut import make_plan
from poolscore.engine.pool.find import find_files
from poolscore.engine.pool.plan import Plan
from poolscore.engine.prepare import prepare_job
from poolscore.engine.score import score_pool
from poolscore.engine.selection.near_duplicates import near_duplicate_rate
from poolscore.engine.worker.preview import PICKED, draw_sample, preview
from poolscore.engine.worker.shard import Scorer
from poolscore.jobs import preview as jobs_preview

Configure = Callable[..., Config]


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """3 files of 700 rows in groups of 130; the column is the row_id."""
    for file in range(3):
        table = pa.table({"x": range(700 * file, 700 * (file + 1))})
        pq.write_table(table, tmp_path / f"{file}.parquet", row_group_size=130)
    return make_plan(find_files(str(tmp_path)), 300)


@pytest.mark.parametrize("rows", [1, 64, 100, 640, 2100, 9999])
def test_a_sample_is_rows_of_the_pool_from_many_places(plan: Plan, rows: int) -> None:
    sample = draw_sample(plan, rows, seed=3)
    read = []
    for piece in sample.pieces:
        table = pq.ParquetFile(f"{plan.root}/{piece.path}").read_row_group(piece.row_group)
        found = table["x"].slice(piece.start, piece.rows).to_pylist()
        assert found == list(range(piece.row_id, piece.row_id + piece.rows))
        assert found[0] % 700 == piece.file_row
        read += found
    assert len(read) == sample.rows == len(set(read))
    assert min(rows, 2100) * 0.9 <= sample.rows <= min(rows + 130, 2100)
    assert sorted(read) == read
    if rows in (64, 640):
        assert np.ptp(read) > 1500  # 18 row groups
        assert {piece.start for piece in sample.pieces} == {0}
    if rows == 64:
        assert sample != draw_sample(plan, rows, seed=4)


def test_a_preview_scores_as_the_job_does(digit_config: Configure) -> None:
    config = digit_config(passes={"count": 5})
    prepared = prepare_job(config)
    sample = draw_sample(prepared.plan, 400, config.passes.seed)
    found = preview(prepared.scorer, sample, "here")
    score_pool(config, prepared=prepared)
    scores = {row["row_id"]: row for row in scores_of_run(config.run.dir).to_pylist()}
    assert (found.device, found.on_gpu, found.rows, found.scored) == ("here", False, sample.rows, sample.rows)
    assert found.picks.num_rows == min(PICKED, sample.rows // 20)
    for pick in found.picks.to_pylist():
        assert pick["key"] == scores[pick["row_id"]]["key"]
        assert pick["bald"] == pytest.approx(scores[pick["row_id"]]["bald"], abs=1e-5)
    sampled = [row for piece in sample.pieces for row in range(piece.row_id, piece.row_id + piece.rows)]
    best = sorted(-scores[row]["bald"] for row in sampled)[: found.picks.num_rows]
    assert [-x for x in found.picks["bald"].to_pylist()] == pytest.approx(best, abs=1e-5)
    assert found.inputs.num_rows == found.picks.num_rows
    held = found.inputs.get_total_buffer_size()
    assert (
        held < found.inputs.nbytes + 1000 * found.inputs.num_rows
    )  # of these rows, not of the blocks that they lay in
    assert found.passes_cost > 0.5
    assert found.rows_per_second > 1
    assert {stage for stage, seconds in found.stages.items() if seconds > 0} >= {"read", "decode", "model", "reduce"}


def test_a_preview_decodes_on_all_the_cores_that_a_worker_has(
    digit_config: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Scorer] = []

    def look(scorer: Scorer, *_: object) -> NoReturn:
        seen.append(scorer)
        raise ConfigError("seen")

    monkeypatch.setattr(jobs_preview, "preview", look)
    monkeypatch.setattr(jobs_preview, "usable_cores", lambda: 9)
    for workers, threads in ((1, 8), (2, 3)):
        prepared = prepare_job(digit_config(run={"workers": workers}))
        with pytest.raises(ConfigError, match="seen"):
            jobs_preview.run_preview(prepared, 100, tmp_path / "page.html")
        assert seen[-1].decoder._threads == threads


def test_rows_that_are_alike_are_found() -> None:
    rng = np.random.default_rng(0)
    different = rng.normal(size=(20, 500))
    nothing = np.zeros(500)
    assert near_duplicate_rate(different, nothing) == 0
    assert near_duplicate_rate(np.repeat(different[:10], 2, axis=0), nothing) == 0.5
    slightly = np.concatenate([different, 3 * different + rng.normal(size=(20, 500)) * 0.1])
    assert near_duplicate_rate(slightly, nothing) == 0.5
    shifted = different + 100  # as features behind a ReLU: all point one way
    assert near_duplicate_rate(shifted, nothing) > 0.9
    assert near_duplicate_rate(shifted, shifted.mean(axis=0)) == 0
    assert near_duplicate_rate(np.ones((4, 3)), np.ones(3)) == 0.75
    assert math.isnan(near_duplicate_rate(different[:1], nothing))


def test_the_whole_pool_is_priced_by_what_is_known() -> None:
    work = Work(rows=36_000_000, rows_per_second=1000, cpu_seconds_per_row=0.01, requests=50_000, bytes=2 * 10**12)
    prices = PricesConfig(gpu_hour=3.0, cpu_hour=0.04, thousand_requests=0.0004)
    found = estimate(work, 4, on_gpu=True, prices=prices)
    assert (found.hours, found.gpu_hours, found.cpu_hours) == pytest.approx((2.5, 10.0, 100.0))
    assert found.prices == {
        "GPU": pytest.approx(30.0),
        "CPU": pytest.approx(4.0),
        "requests": pytest.approx(0.02),
        "egress": None,
    }
    assert found.price == pytest.approx(34.02)
    elsewhere = estimate(work, 4, on_gpu=False, prices=prices)
    assert (elsewhere.gpu_hours, elsewhere.prices["GPU"]) == (None, None)
    assert estimate(work, 1, True, PricesConfig()).price is None
