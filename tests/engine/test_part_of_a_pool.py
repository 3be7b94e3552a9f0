"""Runs over a part of a pool: by filter, by folder, by sample, without bad files. Every row is accounted for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from conftest import scores_of_run, write_pool

from poolscore.engine.config import Config
from poolscore.engine.errors import ConfigError
from poolscore.engine.finish import RunResult
from poolscore.engine.prepare import prepare_job
from poolscore.engine.run.directory import BAD_FILES, RunDirectory
from poolscore.engine.score import score_pool

Configure = Callable[..., Config]


def by_id(scores: pa.Table) -> dict[str, tuple[Any, ...]]:
    columns = ("id", "key", "bald", "entropy", "prediction")
    return {row[0]: row[1:] for row in zip(*(scores[name].to_pylist() for name in columns), strict=True)}


def require_every_row_accounted_for(result: RunResult, pool_rows: int) -> None:
    totals, run = result.totals, RunDirectory(result.run_dir)
    assert totals.rows == totals.scored + totals.rejected + totals.excluded + totals.filtered
    assert totals.rows == run.info["pool"]["rows"] == run.plan.rows
    assert run.info["pool"]["rows"] + run.info["pool"]["passed_over"] == pool_rows
    assert run.info["totals"]["filtered"] == totals.filtered


@pytest.fixture
def whole(digit_config: Configure, tmp_path: Path) -> pa.Table:
    return scores_of_run(score_pool(digit_config(run={"dir": str(tmp_path / "whole")})).run_dir)


def test_a_filter_scores_the_rows_that_match_and_no_others(digit_config: Configure, whole: pa.Table) -> None:
    result = score_pool(digit_config(pool={"filter": "label in (3, 5) and not id < 'digit-0300'"}))
    scores = scores_of_run(result.run_dir)
    expected = whole.filter((pc.field("label").isin([3, 5])) & (pc.field("id") >= "digit-0300"))
    assert 0 < expected.num_rows < 100
    assert scores["row_id"].equals(expected["row_id"])  # places among all rows of the pool
    assert by_id(scores).keys() == by_id(expected).keys()
    np.testing.assert_allclose(scores["bald"], expected["bald"], atol=1e-6)  # other neighbours in the batch
    assert result.totals.scored == expected.num_rows
    assert RunDirectory(result.run_dir).info["pool"]["passed_over"] == 300  # by the statistics of id
    require_every_row_accounted_for(result, 600)


def test_a_filter_and_an_exclude_list_are_counted_apart(digit_config: Configure, tmp_path: Path) -> None:
    ids = [f"digit-{i:04d}" for i in range(100)]
    pq.write_table(pa.table({"id": ids}), tmp_path / "labelled.parquet")
    config = digit_config(pool={"filter": "label < 5", "exclude": str(tmp_path / "labelled.parquet")})
    result = score_pool(config)
    pool = pq.read_table(tmp_path / "pool", columns=["id", "label"])
    small = pool.filter(pc.field("label") < 5)
    labelled = small.filter(pc.field("id").isin(ids)).num_rows
    totals = result.totals
    assert (totals.filtered, totals.excluded) == (600 - small.num_rows, labelled)
    assert totals.scored == small.num_rows - labelled
    require_every_row_accounted_for(result, 600)


def test_folders_are_columns_and_prune(digit_config: Configure, digits: pa.Table, tmp_path: Path) -> None:
    for day in (1, 2, 3):
        write_pool(tmp_path / "days" / f"day={day}" / "site=a%20b", digits.slice(100 * day, 100), files=1)
    changes = {"uri": str(tmp_path / "days"), "keep": ["day", "label", "site"], "filter": "day >= 2 and label != 0"}
    pq.write_table(digits.select(["image", "label"]).slice(0, 20), tmp_path / "labelled.parquet")
    check = {"labelled": str(tmp_path / "labelled.parquet")}  # it needs no more than inputs and label
    result = score_pool(digit_config(pool=changes, check=check))
    scores = scores_of_run(result.run_dir)
    assert set(scores["day"].to_pylist()) == {2, 3}
    assert set(scores["site"].to_pylist()) == {"a b"}
    assert 0 not in scores["label"].to_pylist()
    assert pq.read_table(result.selection)["day"].type == pa.int64()
    days = dict(zip(scores["id"].to_pylist(), scores["day"].to_pylist(), strict=True))
    assert days["digit-0200"] == 2
    assert RunDirectory(result.run_dir).info["pool"]["files"] == 2
    require_every_row_accounted_for(result, 200)


def test_a_sample_is_drawn_and_counted(digit_config: Configure, whole: pa.Table, tmp_path: Path) -> None:
    config = digit_config(pool={"sample": 0.25}, select={"k": 5})
    result = score_pool(config)
    scores = scores_of_run(result.run_dir)
    assert 100 < scores.num_rows < 200
    chosen = whole.filter(pc.field("row_id").isin(scores["row_id"]))
    assert by_id(scores).keys() == by_id(chosen).keys()
    require_every_row_accounted_for(result, 600)
    again = score_pool(
        config.model_copy(update={"run": config.run.model_copy(update={"dir": str(tmp_path / "again")})})
    )
    assert scores_of_run(again.run_dir).equals(scores)


def test_a_run_does_not_go_on_with_another_filter_or_sample(digit_config: Configure) -> None:
    score_pool(digit_config(pool={"filter": "label < 5"}))
    with pytest.raises(ConfigError, match=r"differs in pool.filter \(label < 5, now label < 6\)"):
        score_pool(digit_config(pool={"filter": "label < 6"}))
    with pytest.raises(ConfigError, match=r"pool.sample \(None, now 0.5\)"):
        score_pool(digit_config(pool={"filter": "label < 5", "sample": 0.5}))


def test_bad_files_are_left_out_and_listed(digit_config: Configure, tmp_path: Path) -> None:
    (tmp_path / "pool" / "part-0.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(ConfigError, match=r"part-0.parquet is no complete Parquet file.*pool.bad_files: skip"):
        prepare_job(digit_config())
    result = score_pool(digit_config(pool={"bad_files": "skip"}))
    assert result.totals.scored == 300
    listed = json.loads((tmp_path / "run" / BAD_FILES).read_text())
    assert list(listed) == ["part-0.parquet"]
    run = RunDirectory(result.run_dir)
    assert run.plan.unreadable == listed
    assert run.info["pool"]["bad_files"] == 1
    require_every_row_accounted_for(result, 300)


@pytest.mark.parametrize(
    ("pool", "select", "message"),
    [
        ({"filter": "colour == 1"}, {}, "pool.filter: column 'colour' is not in part-0.parquet"),
        ({"filter": "label == 'x'"}, {}, "pool.filter: column 'label' is int64; 'x' is none"),
        ({"filter": "label > 9"}, {}, "pool.filter: by their statistics none of the 600 rows can match"),
        ({"filter": "label == 1 and label == 2"}, {}, "pool.filter: all 600 rows of the pool are excluded"),
        ({"filter": "label == 1"}, {"k": 100}, "select.k: 100 rows are asked for, .. are left after pool.filter"),
        ({"sample": 64}, {"k": 200}, "select.k: 200 rows are asked for, .. are left after pool.sample"),
    ],
)
def test_what_leaves_too_few_rows_is_known_before_the_job(
    digit_config: Configure, pool: dict[str, Any], select: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        prepare_job(digit_config(pool=pool, select=select))
    assert "\n" not in str(caught.value)


def test_a_filters_column_has_one_type_in_all_files(digit_config: Configure, tmp_path: Path) -> None:
    config = digit_config(pool={"filter": "label < 5", "keep": []})
    path = tmp_path / "pool" / "part-1.parquet"
    table = pq.read_table(path)
    at = table.schema.get_field_index("label")
    pq.write_table(table.set_column(at, "label", table["label"].cast(pa.string())), path)
    with pytest.raises(
        ConfigError, match=r"pool.filter: column .label. is string in part-1\.parquet but int64 in part-0"
    ):
        prepare_job(config)
