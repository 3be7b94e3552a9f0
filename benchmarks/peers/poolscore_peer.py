"""poolscore scores the pool: from memory as most peers do, or from Parquet to the selection. All its scores."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from protocol import serve
from torch import Tensor
from workloads import DEVICE, PASSES, Workload, pool_file

from poolscore.engine import Config, RunDirectory, parse_config, prepare_job, score_pool


class FromParquet:
    """See Contestant. The whole job: plan, trial run, tracing, scoring, committing, selecting."""

    def __init__(self, workload: Workload, folder: Path) -> None:
        self._workload, self._folder = workload, folder

    def ready(self, rows: int, few: int) -> None:
        """See Contestant."""
        self._scorer = prepare_job(configuration(self._workload, self._folder, few)).scorer
        self._pool = self._workload.load_pool(self._folder, few)

    def score(self, rows: int) -> object:
        """See Contestant."""
        result = score_pool(configuration(self._workload, self._folder, rows), fresh=True)
        run = RunDirectory(result.run_dir)
        parts = [pq.read_table(run.storage.path(report.scores)) for report in run.reports().values()]
        return pa.concat_tables(parts).sort_by("row_id")["bald"].to_numpy()

    def two_passes(self) -> tuple[Tensor, Tensor]:
        """See Contestant."""
        logits_NTC = self._logits(self._pool[: self._workload.batch])
        return logits_NTC[:, 0], logits_NTC[:, 1]

    def _logits(self, x: Tensor) -> Tensor:
        batch = self._workload.batch
        padded = x if len(x) == batch else torch.cat([x, x.new_zeros(batch - len(x), *x.shape[1:])])
        keys = torch.zeros(batch, dtype=torch.int64, device=DEVICE)  # shared masks do not look at them
        return self._scorer.model.logits({"": padded.to(DEVICE)}, keys)[: len(x)]


class FromMemory(FromParquet):
    """See Contestant. The scorer of a prepared job, given batches of the pool; the last one is padded, as in a job."""

    def ready(self, rows: int, few: int) -> None:
        """See Contestant."""
        super().ready(rows, few)
        self._pool = self._workload.load_pool(self._folder, rows)

    def score(self, rows: int) -> object:
        """See Contestant."""
        batches = self._pool[:rows].split(self._workload.batch)
        return torch.cat([self._scorer.statistics(self._logits(x)).scores["bald"] for x in batches]).cpu()


def configuration(workload: Workload, folder: Path, rows: int) -> Config:
    """The job, in this process. No shortlist and no verification: nobody else makes them."""
    return parse_config(
        {
            "pool": {"uri": str(pool_file(folder, rows).parent), "id": "id", **workload.pool},
            "model": {
                "source": f"workloads:{workload.network.__name__}",
                "path": str(Path(__file__).parent),
                "weights": str(folder / "weights.pt"),
                "task": "multiclass",
            },
            "passes": {"count": PASSES},
            "select": {"k": min(100, rows)},
            "shortlist": {"rows": 0},
            "run": {
                "dir": str(folder / "run"),
                "executor": "local",
                "device": DEVICE,
                "batch_size": workload.batch,
                "threads": torch.get_num_threads(),
                "verify_rows": 0,
            },
        }
    )


if __name__ == "__main__":
    serve({"memory": FromMemory, "parquet": FromParquet}, packages=("poolscore", "torch", "numpy"))
