"""A batch size 'auto': measured on the first batch, or as the run that is there has it."""

from __future__ import annotations

import os

import torch

from poolscore.engine.config import AUTO, Config
from poolscore.engine.errors import ConfigError
from poolscore.engine.prepare.fastest_batch import measure_batch_size
from poolscore.engine.prepare.model import failures_in_one_line
from poolscore.engine.prepare.rows import Batch
from poolscore.engine.run.directory import RunDirectory
from poolscore.engine.worker.shard import Scorer


def require_measurable(config: Config, device: torch.device) -> None:
    """Refuse to measure for a cluster with GPUs where there is none."""
    cluster = config.run.executor == "ray" and (config.run.address or os.environ.get("RAY_ADDRESS"))
    if config.run.batch_size == AUTO and cluster and device.type == "cpu" and config.run.device != "cpu":
        raise ConfigError(
            "run.batch_size: 'auto' is measured where this command runs, and there is no GPU here as the cluster may "
            "have; give a number of rows, or set run.device: cpu"
        )


def with_batch_size(scorer: Scorer, batch: Batch, most: int) -> Config:
    """With the batch size that `measure_batch_size` finds; `most`: rows of the largest shard."""
    before = scorer.model.rows_per_call
    with failures_in_one_line("batches of several sizes"):
        size = measure_batch_size(scorer, batch.inputs, batch.good, most)
    smaller = size.rows_per_call if size.rows_per_call < before else scorer.config.passes.rows_per_call
    return _with_sizes(scorer.config, size.rows, smaller)


def as_begun(config: Config, begun: RunDirectory) -> Config:
    """A batch size 'auto' as the run has it."""
    there = begun.info["config"]
    return _with_sizes(config, there["run"]["batch_size"], there["passes"]["rows_per_call"])


def _with_sizes(config: Config, batch_size: int, rows_per_call: int | None) -> Config:
    run = config.run.model_copy(update={"batch_size": batch_size})
    passes = config.passes.model_copy(update={"rows_per_call": rows_per_call})
    return config.model_copy(update={"run": run, "passes": passes})
