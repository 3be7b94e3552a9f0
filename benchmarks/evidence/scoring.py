"""Scores of a whole pool, for experiments that look at these and not at a batch."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from loop import WITHOUT, Sections, joined

from poolscore.engine import parse_config, score_pool


def scores_of(config: Sections, weights: Path, folder: Path, seed: int) -> pa.Table:
    """Every score of every row, in the order of `id`; `folder` is that of the run, which is removed."""
    of_run: Sections = {
        "pool": {"id": "id"},
        "model": {"weights": str(weights)},
        "passes": {"seed": seed},
        "select": {"k": 0},
        "run": {"dir": str(folder), "executor": "local", "verify_rows": 0},
    }
    shutil.rmtree(folder, ignore_errors=True)
    score_pool(parse_config(joined(config, WITHOUT, of_run)))
    scores = pq.read_table(folder / "scores").sort_by("id")
    shutil.rmtree(folder)
    return scores
