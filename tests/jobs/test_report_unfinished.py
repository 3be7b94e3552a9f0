"""Reports where something is missing: shards, records, or the pool."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from report_workshop import (
    Elements,
    Workshop,
    copied,
    drawn_rows,
    finished_run,
    lose_shards,
    page_of,
    require_harmless,
)

from poolscore.engine import InterruptedRun, RunDirectory, StoppedError, score_pool
from poolscore.engine.prepare import prepare_job
from poolscore.jobs.report import write_report


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def whole(workshop: Workshop) -> RunDirectory:
    return finished_run(workshop)


# -- runs that are not whole


def test_an_interrupted_run_says_so_and_shows_the_best_so_far(workshop: Workshop, whole: RunDirectory) -> None:
    config = workshop.config(Path(whole.config.pool.uri), "interrupted")

    def stop(state: Any) -> None:
        if state.totals.shards >= 2:
            raise KeyboardInterrupt

    with pytest.raises(InterruptedRun):
        score_pool(config, on_progress=stop)
    run = RunDirectory(config.run.dir)
    html = page_of(run)
    page = require_harmless(html)
    scored, left = run.totals().scored, 4 - len(run.reports())
    assert 1 <= left <= 2  # a shard may end while the run is being interrupted
    assert "The run was interrupted and can be resumed." in page.text
    assert f"{left} of 4 shards have no result: {left * 100} rows, {left * 25}.0 % of the pool." in page.text
    assert "The 40 rows most worth labelling so far" in page.text
    assert "not written to the run" in page.text
    assert "poolscore score CONFIG --resume" in page.text
    assert "selection.parquet" not in page.text
    assert not (Path(config.run.dir) / "selection.parquet").exists()
    assert sum(drawn_rows(html)) == scored
    assert len(page.all("img")) == 40


def test_a_run_without_a_finished_shard(whole: RunDirectory, tmp_path: Path) -> None:
    run = copied(whole, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "_log")
    run.update(status="stopped", stopped_by="<disk> full")
    page = require_harmless(page_of(run))
    assert "Nothing is scored yet" in page.text
    assert "Stopped by: <disk> full" in page.text
    assert "4 of 4 shards have no result" in page.text


def test_shards_that_were_set_aside_are_named(workshop: Workshop) -> None:
    pool = workshop.digits("cut pool")
    config = workshop.config(pool, "cut")
    prepared = prepare_job(config)
    file = pool / "b.parquet"
    file.write_bytes(file.read_bytes()[:-20])
    result = score_pool(config, prepared=prepared)
    assert sorted(result.set_aside) == [2, 3]
    page = require_harmless(page_of(config.run.dir))
    assert "incomplete" in page.text
    assert "Some shards could not be scored. The batch is the best of the rest." in page.text
    assert "Shard 2 (100 rows in b.parquet ): b.parquet cannot be read:" in page.text
    assert "Shard 3 (100 rows in b.parquet ): b.parquet cannot be read:" in page.text
    assert "The 40 rows most worth labelling" in page.text


def test_a_done_run_with_a_lost_record_is_not_called_complete(whole: RunDirectory, tmp_path: Path) -> None:
    run = copied(whole, tmp_path / "run")
    lose_shards(run, 1)
    page = Elements(page_of(run))
    assert "incomplete" in page.text
    assert "1 of 4 shards have no result" in page.text


def test_a_lost_part_is_an_error_that_names_it(whole: RunDirectory, tmp_path: Path) -> None:
    run = copied(whole, tmp_path / "run")
    part = run.reports()[1].scores
    (tmp_path / "run" / part).unlink()
    with pytest.raises(StoppedError, match=Path(part).name):
        write_report(run)


# -- the pool has gone


def drop(pool: Path) -> None:
    shutil.rmtree(pool)


def cut(pool: Path) -> None:
    for file in pool.iterdir():
        file.write_bytes(file.read_bytes()[:100])


def turn_around(pool: Path) -> None:
    for file in pool.iterdir():
        table = pq.read_table(file)
        pq.write_table(table.take(pa.array(range(len(table) - 1, -1, -1))), file, row_group_size=50)


def shorten(pool: Path) -> None:
    for file in pool.iterdir():
        pq.write_table(pq.read_table(file).slice(0, 1), file)


def rename_column(pool: Path) -> None:
    for file in pool.iterdir():
        pq.write_table(pq.read_table(file).rename_columns(["id", "picture", "label"]), file, row_group_size=50)


def spoil(pool: Path) -> None:
    for file in pool.iterdir():
        table = pq.read_table(file)
        bad = pa.array([b"GIF89a" if i % 2 else None for i in range(len(table))], pa.binary())
        pq.write_table(table.set_column(1, "image", bad), file, row_group_size=50)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (drop, "the pool's file is gone"),
        (cut, "the pool's file cannot be read"),
        (turn_around, "the pool was changed since it was scored"),
        (shorten, "the pool's file cannot be read"),
        (rename_column, "the pool's file cannot be read"),
        (spoil, "the picture cannot be decoded"),
    ],
)
def test_a_pool_that_is_gone_or_changed_costs_only_pictures_that_the_shortlist_has_not(
    whole: RunDirectory, tmp_path: Path, change: Callable[[Path], None], says: str
) -> None:
    run = copied(whole, tmp_path / "run")
    pool = tmp_path / "pool"
    shutil.copytree(whole.config.pool.uri, pool)
    plan = tmp_path / "run" / "plan.parquet"
    table = pq.read_table(plan)
    pq.write_table(table.replace_schema_metadata({**(table.schema.metadata or {}), b"root": str(pool).encode()}), plan)
    change(pool)
    assert len(Elements(page_of(run)).all("img")) == 40
    shutil.rmtree(tmp_path / "run" / "shortlist")
    page = require_harmless(page_of(RunDirectory(run.storage.root)))
    assert not page.all("img")
    assert f"No pictures: {says}" in page.text
    assert "rank id score prediction confidence entropy expected label" in page.text
