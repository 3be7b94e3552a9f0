"""What a worker verifies before it scores, and what one bad row may cost."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import write_pool

from poolscore.engine.config import Config
from poolscore.engine.errors import INCOMPLETE, ConfigError
from poolscore.engine.prepare import prepare_job
from poolscore.engine.run.directory import RunDirectory
from poolscore.engine.score import score_pool
from poolscore.engine.worker import ShardWorker

Configure = Callable[..., Config]


def test_an_exclude_list_that_grew_is_refused(digit_config: Configure, tmp_path: Path) -> None:
    listed = tmp_path / "labelled.csv"
    listed.write_text("id\ndigit-0001\n")
    job = prepare_job(digit_config(pool={"exclude": str(listed)})).job
    ShardWorker(job)
    listed.write_text("id\ndigit-0001\ndigit-0002\n")
    with pytest.raises(ConfigError, match=r"labelled.csv changed since the job began"):
        ShardWorker(job)


def test_another_run_directory_is_refused(digit_config: Configure) -> None:
    config = digit_config()
    score_pool(config)
    job = prepare_job(config).job
    ShardWorker(replace(job, run_id=RunDirectory(config.run.dir).info["id"]))
    with pytest.raises(ConfigError, match=r"is not the run's directory on .*; it must lie on storage that all"):
        ShardWorker(replace(job, run_id="of another disk"))


def test_a_row_that_makes_the_model_raise_costs_its_shard_not_the_night(two_inputs_config: Configure) -> None:
    tokens = np.random.default_rng(0).integers(0, 20, (200, 6))
    tokens[150, 0] = 20_000  # out of the embedding's range
    result = score_pool(two_inputs_config(tokens, shard_rows=50, batch_size=16))
    assert result.exit_code == INCOMPLETE
    assert list(result.set_aside) == [3]
    assert "index out of range" in result.set_aside[3]
    assert result.totals.scored == 150
    assert pq.read_table(result.selection).num_rows == 5


def test_score_pool_checks_the_labelled_rows_itself(digit_config: Configure, digits: pa.Table, tmp_path: Path) -> None:
    pq.write_table(digits.slice(600, 50), tmp_path / "labelled.parquet")
    config = digit_config(check={"labelled": str(tmp_path / "labelled.parquet"), "min_accuracy": 1.0})
    seen = []
    with pytest.raises(ConfigError, match=r"below check.min_accuracy=1"):
        score_pool(config, on_check=seen.append)
    assert seen[0].rows == 50
    assert not Path(config.run.dir).exists()


def test_a_first_batch_of_bad_rows_is_no_verdict_on_the_model(
    digit_config: Configure, digits: pa.Table, tmp_path: Path
) -> None:
    images = [b"no picture"] * 20 + digits["image"].to_pylist()[20:600]
    write_pool(tmp_path / "pool", digits.slice(0, 600).set_column(1, "image", pa.array(images, pa.binary())))
    result = score_pool(digit_config(run={"max_bad_fraction": 0.1}))
    assert (result.totals.scored, result.totals.rejected) == (580, 20)


def test_large_tensors_come_in_large_pages() -> None:
    if "[never]" in Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text():
        pytest.skip("this machine has none")
    made = "import poolscore.engine.worker, torch; x = torch.zeros(1 << 24); print(*open('/proc/self/smaps_rollup'))"
    about = subprocess.run([sys.executable, "-c", made], capture_output=True, text=True, check=True).stdout
    huge = next(line.split()[1] for line in about.splitlines() if line.startswith("AnonHugePages"))
    assert int(huge) >= 48 << 10  # kB, of 64 MB
