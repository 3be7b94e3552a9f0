"""Batch-aware selections of real runs: at the end of one, and by `select` from its shortlist."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from poolscore.engine.config import Config
from poolscore.engine.errors import ConfigError
from poolscore.engine.run.directory import RunDirectory
from poolscore.engine.score import score_pool
from poolscore.engine.selection.batch import select_batch
from poolscore.engine.selection.batchbald import batchbald
from poolscore.engine.selection.caps import Caps
from poolscore.engine.selection.methods import AWARE
from poolscore.engine.shortlist.read import read_shortlist

Configure = Callable[..., Config]
CHANGES = {"shortlist": {"rows": 150}, "passes": {"count": 8}}


MADE: list[RunDirectory] = []  # one run for all tests, none of which changes it


@pytest.fixture
def run(digit_config: Configure) -> RunDirectory:
    if not MADE:
        config = digit_config(select={"k": 6, "method": "batchbald"}, **CHANGES)
        MADE.append(RunDirectory(score_pool(config).run_dir))
    return MADE[0]


def test_a_run_ends_with_a_batch_by_batchbald(run: RunDirectory) -> None:
    batch = pq.read_table(Path(run.storage.root) / "selection.parquet")
    assert batch["rank"].to_pylist() == batch["step"].to_pylist() == list(range(1, 7))
    there = read_shortlist(run)
    assert there.log_probs_NTC is not None
    keys = there.rows["key"].to_numpy()
    expected = batchbald(
        there.log_probs_NTC, np.argsort(np.argsort(keys)), 6, Caps().room(there.rows), samples=10_000, seed=0
    )
    told = len(expected.places)
    assert told >= 2
    assert batch["row_id"].to_pylist()[:told] == there.rows["row_id"].to_numpy()[expected.places].tolist()
    assert batch["gain"].to_pylist() == [*expected.gains.tolist(), *[None] * (6 - told)]
    assert batch["method"].to_pylist() == ["batchbald"] * told + ["power"] * (6 - told)
    assert batch["gain"].drop_null().to_numpy().sum() <= math.log(8) + 0.01
    assert batch["score_name"].to_pylist() == ["bald"] * 6


@pytest.mark.parametrize("method", AWARE)
def test_another_selection_from_the_shortlist(run: RunDirectory, method: str) -> None:
    batch = select_batch(run, run.config, k=20, method=method)
    assert batch.num_rows == len(set(batch["row_id"].to_pylist())) == 20
    assert set(batch["row_id"].to_pylist()) <= set(read_shortlist(run).rows["row_id"].to_pylist())
    assert set(batch["method"].to_pylist()) <= {method, "power"}
    assert batch["step"].to_pylist() == list(range(1, 21))
    assert select_batch(run, run.config, k=20, method=method).equals(batch)
    control = select_batch(run, run.config, k=20, method=method, control=0.2, max_per_group={"label": 3})
    hidden = np.array(control["method"].to_pylist()) == "control"
    assert hidden.sum() == 4
    assert control["step"].null_count == 4
    assert control.filter(pa.array(~hidden))["step"].to_pylist() == list(range(1, control.num_rows - 3))
    assert np.bincount(control["label"].to_numpy()).max() <= 3


def test_a_shortlist_that_is_too_small_is_said(run: RunDirectory) -> None:
    with pytest.raises(ConfigError, match=r"k: 500 rows are asked for, 150 rows of the shortlist .*shortlist\.rows"):
        select_batch(run, run.config, k=500, method="kcenter")


def test_what_the_model_does_not_allow_is_refused_before_a_row_is_scored(digit_config: Configure) -> None:
    with pytest.raises(ConfigError, match=r"select\.method: batchbald needs passes\.masks: shared"):
        digit_config(select={"k": 5, "method": "batchbald"}, passes={"count": 8, "masks": "independent"})
    with pytest.raises(ConfigError, match=r"batchbald compares passes, and passes\.count is 1"):
        digit_config(select={"k": 5, "method": "batchbald", "score": "entropy"}, passes={"count": 1})


def test_the_command_line_selects_without_torch(run: RunDirectory) -> None:
    code = (
        "import sys; sys.modules['torch'] = sys.modules['ray'] = None\n"
        "from poolscore.jobs.cli import main; sys.exit(main())"
    )
    command = ["select", run.storage.root, "--name", "diverse", "--method", "badge", "--k", "12"]
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    folder = Path(run.storage.root) / "selections"
    assert pq.read_table(folder / "diverse.parquet")["method"].to_pylist() == ["badge"] * 12
    manifest = json.loads((folder / "diverse.json").read_text())
    assert (manifest["method"], manifest["seed"], manifest["k"]) == ("badge", 0, 12)
