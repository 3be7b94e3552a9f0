"""poolscore scores the pool: from memory as the peers do, or from Parquet to the selection. All its scores."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from protocol import SOME, serve
from subject import MEAN, PASSES, STD, load_pool
from torch import Tensor

from poolscore.engine import Config, RunDirectory, parse_config, prepare_job, score_pool


class FromMemory:
    """See Contestant. The scorer of a prepared job, given batches of the pool; the last one is padded, as in a job."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pool = load_pool(folder)

    def ready(self, batch: int) -> None:
        """See Contestant."""
        self._batch = batch
        self._scorer = prepare_job(configuration(self._folder, batch)).scorer
        self._bald(self._pool[: 2 * batch])

    def score(self) -> object:
        """See Contestant."""
        return self._bald(self._pool)

    def two_passes(self) -> tuple[Tensor, Tensor]:
        """See Contestant."""
        logits_NTC = self._logits(self._pool[:SOME][: self._batch])
        return logits_NTC[:, 0], logits_NTC[:, 1]

    def _bald(self, x: Tensor) -> object:
        stats = [self._scorer.statistics(self._logits(part)) for part in x.split(self._batch)]
        return torch.cat([of.scores["bald"] for of in stats])

    def _logits(self, x: Tensor) -> Tensor:
        padded = x if len(x) == self._batch else torch.cat([x, x.new_zeros(self._batch - len(x), *x.shape[1:])])
        keys = torch.zeros(self._batch, dtype=torch.int64)  # shared masks do not look at them
        return self._scorer.model.logits({"": padded}, keys)[: len(x)]


class FromParquet(FromMemory):
    """See Contestant. The whole job: plan, trial run, tracing, scoring, committing, selecting."""

    def score(self) -> object:
        """See Contestant."""
        result = score_pool(configuration(self._folder, self._batch), fresh=True)
        run = RunDirectory(result.run_dir)
        parts = [pq.read_table(run.storage.path(report.scores)) for report in run.reports().values()]
        return pa.concat_tables(parts).sort_by("row_id")["bald"].to_numpy()


def configuration(folder: Path, batch: int) -> Config:
    """The job, in this process."""
    decode: dict[str, Any] = {"kind": "tensor", "shape": [1, 28, 28], "mean": [MEAN], "std": [STD]}
    here, weights = str(Path(__file__).parent), str(folder / "weights.pt")
    return parse_config(
        {
            "pool": {"uri": str(folder / "pool"), "input": "pixels", "decode": decode},
            "model": {"source": "subject:small_cnn", "path": here, "weights": weights, "task": "multiclass"},
            "passes": {"count": PASSES},
            "select": {"k": 100},
            "run": {
                "dir": str(folder / "run"),
                "executor": "local",
                "device": "cpu",
                "batch_size": batch,
                "threads": torch.get_num_threads(),
            },
        }
    )


if __name__ == "__main__":
    serve({"memory": FromMemory, "parquet": FromParquet}, packages=("poolscore", "torch", "numpy"))
