"""One point of a benchmark: a job with so many passes and so large a batch, end to end and stage by stage.

End to end is what a worker of `poolscore score` does in this process: from the files of the pool to scores in storage,
its stages overlapped (`steady.py`). Start-up and the model are not timed. The parts of the model are timed by
themselves, in turn, on a batch that is on the device (`parts.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

import torch

from poolscore.engine.config import Config
from poolscore.engine.prepare import prepare_job
from poolscore.engine.run.fleet import LocalFleet
from poolscore.engine.storage.open import open_storage
from poolscore.engine.worker.profile import numeric_settings
from poolscore.jobs.bench.parts import copy_bytes_per_s, parts_of_model
from poolscore.jobs.bench.point import Point
from poolscore.jobs.bench.steady import SHARDS, drawn_shards, fitting_rows, measured_rounds


def measure(config: Config, rows: int | None, rounds: int, made_up: bool) -> Point:
    """Measure a job on shards of its pool.

    Args:
        rows: of a round, at least; None: as many as some seconds take.
        made_up: the pool stands for a large one: no shard of it is to end in the middle of a batch.

    Raises:
        ConfigError: the job cannot be prepared.
        StoppedError: a shard could not be scored.
    """
    with _same_weights():
        prepared = prepare_job(config, fresh=True)
    config, plan = prepared.config, prepared.plan  # its batch size is a number now
    batch, seed, most = config.run.batch_size, config.passes.seed, int(plan.shards.rows.max())
    whole = most - most % batch if made_up else most
    storage = open_storage(config.run.dir)
    if prepared.job.compiled is not None:
        storage.publish(prepared.job.compiled.name, lambda file: file.write(prepared.programs))
    with _same_weights():
        fleet = LocalFleet(prepared.job)
    with closing(fleet):
        fleet.wait(0)  # it joins
        fitting = fitting_rows(fleet, plan, batch, seed) if rows is None else batch * -(-rows // (SHARDS * batch))
        cut = min(fitting, whole)
        timed = measured_rounds(fleet, plan, drawn_shards(plan, cut, seed), rounds, rows)
    with numeric_settings(config.run.threads):
        parts_ms, logits_bytes = parts_of_model(prepared, plan.shards[0])
    reports = [report for part in timed for report in part.reports]
    read = sum(report.scored + report.rejected + report.excluded + report.filtered for report in reports)
    return Point(
        passes=config.passes.count,
        batch=batch,
        rounds=timed,
        job_shard_rows=config.run.shard_rows if made_up else most,
        shard_rows=cut,
        pool_rows=round(plan.rows * sum(part.rows for part in timed) / read),
        parts_ms=parts_ms,
        logits_bytes=logits_bytes,
        copy_bytes_per_s=copy_bytes_per_s(prepared.scorer.decoder.device),
        flops={"one_pass": prepared.cost.one_pass, "once": prepared.cost.once, "all_passes": prepared.cost.all_passes},
        compiled=prepared.job.compiled is not None,
        identity=prepared.identity,
    )


@contextmanager
def _same_weights() -> Iterator[None]:
    """A model that is built without weights gets the same random ones each time: speed does not depend on them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
