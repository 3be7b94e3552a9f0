"""A run of what the pool has gained since another run, and of nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import scores_of_run

from poolscore.engine.config import Config
from poolscore.engine.errors import DONE, ConfigError, InterruptedRun
from poolscore.engine.prepare import prepare_job
from poolscore.engine.run.coordinator import State
from poolscore.engine.run.directory import RunDirectory
from poolscore.engine.score import score_pool
from poolscore.engine.shortlist.read import read_shortlist

Configure = Callable[..., Config]


@pytest.fixture
def base(digit_config: Configure) -> str:
    return score_pool(digit_config()).run_dir


@pytest.fixture
def more(digit_config: Configure, digits: pa.Table, tmp_path: Path) -> Callable[..., Config]:
    """Adds a file of 40 rows to the pool; gives the configuration of a further run."""

    def add(name: str = "part-0b.parquet", start: int = 600, **run: Any) -> Config:
        pq.write_table(digits.slice(start, 40), tmp_path / "pool" / name)
        return digit_config(run={"dir": str(tmp_path / "more"), **run})

    return add


def refused(config: Config, base: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        score_pool(config, extends=base)
    assert not (Path(config.run.dir) / "run.json").exists() or config.run.dir == base


def test_only_what_came_is_scored_and_as_in_one_run(
    base: str, more: Callable[..., Config], digit_config: Configure, tmp_path: Path
) -> None:
    config = more()
    result = score_pool(config, extends=base)
    assert (result.exit_code, result.totals.scored) == (DONE, 40)
    whole = scores_of_run(score_pool(digit_config(run={"dir": str(tmp_path / "whole")})).run_dir)
    mine = scores_of_run(result.run_dir)
    same = whole.filter(pa.array([i in set(mine["id"].to_pylist()) for i in whole["id"].to_pylist()]))
    assert mine["id"].equals(same["id"])
    assert mine["key"].equals(same["key"])
    for name in ("bald", "entropy"):  # the rows lie elsewhere in their batches
        assert mine[name].to_numpy() == pytest.approx(same[name].to_numpy(), abs=2e-6)
    info = RunDirectory(result.run_dir).info
    assert info["extends"] == [{"run": base, "id": RunDirectory(base).info["id"]}]
    assert pq.read_table(result.selection).num_rows == 20


def test_fewer_new_rows_than_k_are_all_selected(base: str, more: Callable[..., Config]) -> None:
    config = more()
    config = config.model_copy(update={"select": config.select.model_copy(update={"k": 100})})
    assert pq.read_table(score_pool(config, extends=base).selection).num_rows == 40


def test_an_extension_can_be_extended_and_resumed(
    base: str, more: Callable[..., Config], digit_config: Configure, tmp_path: Path
) -> None:
    second = more(shard_rows=40)

    def stop(state: State) -> None:
        raise KeyboardInterrupt

    with pytest.raises(InterruptedRun):
        score_pool(second, extends=base, on_progress=stop)
    with pytest.raises(ConfigError, match=r"differs in the run that it extends \(give --extend as"):
        score_pool(second)
    assert score_pool(second, extends=base).totals.scored == 40
    assert read_shortlist(RunDirectory(second.run.dir)).rows.num_rows == 40  # of what came alone
    third = more("part-9.parquet", 700, dir=str(tmp_path / "third"))
    result = score_pool(third, extends=second.run.dir)
    assert scores_of_run(result.run_dir)["id"].to_pylist() == [f"digit-{i:04d}" for i in range(700, 740)]
    told = RunDirectory(result.run_dir).info["extends"]
    assert [entry["run"] for entry in told] == [second.run.dir, base]
    Path(base).rename(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match=r"extends a run that cannot be read: .*run is no run directory"):
        score_pool(third, extends=second.run.dir)


def test_what_cannot_be_extended_is_refused_by_name(
    base: str, more: Callable[..., Config], digit_config: Configure, tmp_path: Path, digits: pa.Table
) -> None:
    there = {"dir": str(tmp_path / "more")}
    refused(digit_config(run=there), base, "the pool has gained no file since .*; there is nothing to score")
    refused(digit_config(), base, "is run.dir itself")
    config = more()
    refused(digit_config(run=there, passes={"count": 6}), base, r"--extend: .* differs in passes\.count \(5, now 6\)")
    refused(digit_config(run=there, passes={"count": 5, "seed": 1}), base, r"passes\.seed \(0, now 1\)")
    refused(digit_config(run=there, model={"args": {"p": 0.4}}), base, r"model\.args")
    refused(digit_config(run=there, pool={"sample": 0.5}), base, r"what pool\.sample left out")
    pool = tmp_path / "pool"
    pq.write_table(digits.slice(0, 299), pool / "part-0.parquet", row_group_size=50)
    refused(config, base, r"part-0\.parquet changed since .* scored it; write new rows to files of their own")
    (pool / "part-0.parquet").unlink()
    (pool / "part-1.parquet").unlink()
    refused(config, base, "none of the 2 files of .* is in pool.uri")


def test_last_bits_and_labelled_rows_may_differ(
    base: str, more: Callable[..., Config], digit_config: Configure, tmp_path: Path
) -> None:
    more()
    pq.write_table(pa.table({"id": ["digit-0601"]}), tmp_path / "labelled.parquet")
    config = digit_config(
        run={"dir": str(tmp_path / "more"), "batch_size": 8}, pool={"exclude": str(tmp_path / "labelled.parquet")}
    )
    result = score_pool(config, extends=base)
    assert (result.totals.scored, result.totals.excluded) == (39, 1)


def test_a_file_that_went_and_a_base_that_is_not_whole_are_told_of(
    more: Callable[..., Config], digit_config: Configure, tmp_path: Path
) -> None:
    def stop(state: State) -> None:
        raise KeyboardInterrupt

    base = digit_config()
    with pytest.raises(InterruptedRun):
        score_pool(base, on_progress=stop)
    config = more()
    (tmp_path / "pool" / "part-1.parquet").unlink()
    prepared = prepare_job(config, extends=base.run.dir)
    assert prepared.extension is not None
    gone, missing = prepared.extension.notes
    assert gone == "part-1.parquet went since it was scored: a selection over both runs may still name its rows"
    assert missing.endswith("is not whole: it misses 6 shards, which this run does not score")
    assert prepared.plan.rows == 40
