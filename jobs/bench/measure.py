"""One point of a benchmark: a job with so many passes and so large a batch, end to end and stage by stage.

End to end is what a worker of `poolscore score` does in this process: from the files of the pool to scores in storage,
its stages overlapped. Start-up, the model and a first round are not timed. The parts of the model are timed by
themselves, in turn, on a batch that is on the device.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from poolscore.engine.config import Config
from poolscore.engine.errors import StoppedError, UnreadableShard
from poolscore.engine.pool.plan import Shard
from poolscore.engine.prepare import Prepared, prepare_job
from poolscore.engine.preview import draw_sample
from poolscore.engine.profile import numeric_settings
from poolscore.engine.run.fleet import Done, Failed, LocalFleet
from poolscore.engine.run.journal import ShardReport
from poolscore.engine.run.task import ScoreShard
from poolscore.engine.stages import STAGES, bounding_stage, idle_share
from poolscore.engine.storage import open_storage
from poolscore.jobs.bench.timing import interleaved_ms, medians

SHARDS = 4  # of a round
PARTS_REPEATS = 10  # of the parts of the model
COPY_BYTES = {"cuda": 1 << 31, "cpu": 1 << 26}


@dataclass(frozen=True)
class Point:
    """What was measured. Rates are rows a second of one worker."""

    passes: int
    batch: int
    rates: list[float]  # end to end, of each round
    stages: Mapping[str, float]  # seconds over all rounds
    rows: int  # of all rounds
    rejected: int
    cpu_seconds: float  # of this process, over all rounds
    parts_ms: Mapping[str, float]  # prefix, suffix (all T passes), reduce: of one batch
    logits_bytes: int  # of one batch, read once by the reduction
    copy_bytes_per_s: float  # of the device's own copy, read and written
    flops: Mapping[str, int]  # of a row: one pass, what is computed once, all passes
    compiled: bool

    @property
    def rate(self) -> float:
        """Median of the rounds."""
        return statistics.median(self.rates)

    def to_json(self, price: float | None, pool_rows: int | None, workers: int) -> dict[str, Any]:
        """All figures, with what follows from them.

        Args:
            price: of an hour of one worker.
            pool_rows: of the pool to be scored.
        """
        reduce_bytes_per_s = self.logits_bytes / (self.parts_ms["reduce"] / 1e3)
        hours = None if pool_rows is None else pool_rows / self.rate / 3600
        return {
            "passes": self.passes,
            "batch": self.batch,
            "rows_per_second": round(self.rate, 1),
            "rounds": [round(rate, 1) for rate in self.rates],
            "rows": self.rows,
            "rejected": self.rejected,
            "stage_rows_per_second": {
                name: round(self.rows / self.stages[name], 1)
                for name in STAGES
                if name != "idle" and self.stages.get(name)
            },
            "idle_share": round(idle_share(self.stages), 3),
            "bounded_by": bounding_stage(self.stages),
            "cpu_ms_per_row": round(self.cpu_seconds / self.rows * 1e3, 4),
            "batch_ms": {name: round(ms, 3) for name, ms in self.parts_ms.items()},
            "model_rows_per_second": round(self.batch / sum(self.parts_ms.values()) * 1e3, 1),
            "reduction": {
                "bytes": self.logits_bytes,
                "bytes_per_second": round(reduce_bytes_per_s),
                "fraction_of_copy": float(f"{reduce_bytes_per_s / self.copy_bytes_per_s:.3g}"),
            },
            "flops_per_row": dict(self.flops),
            "compiled": self.compiled,
            "price_per_million_rows": None if price is None else round(1e6 / self.rate / 3600 * price, 4),
            "hours": None if hours is None else round(hours / workers, 3),
        }


def measure(config: Config, rows: int, rounds: int) -> Point:
    """Measure a job on about `rows` rows of its pool, read anew in each of the rounds.

    Raises:
        ConfigError: the job cannot be prepared.
        StoppedError: a shard could not be scored.
    """
    prepared = prepare_job(config, fresh=True)
    config = prepared.config  # its batch size is a number now
    sample = partial(draw_sample, prepared.plan, max(1, rows // SHARDS))
    shards = [replace(sample(config.passes.seed + i), index=i) for i in range(SHARDS)]
    storage = open_storage(config.run.dir)
    if prepared.job.compiled is not None:
        storage.publish(prepared.job.compiled.name, lambda file: file.write(prepared.programs))
    rates: list[float] = []
    reports: list[ShardReport] = []
    with closing(LocalFleet(prepared.job)) as fleet:
        fleet.wait(0)  # it joins
        score_all(fleet, shards)  # caches are cold, libraries choose their algorithms
        cpu = time.process_time()
        for _ in range(rounds):
            started = time.perf_counter()
            done = score_all(fleet, shards)
            rates.append(_rows(done) / (time.perf_counter() - started))
            reports += done
        cpu = time.process_time() - cpu
    with numeric_settings(config.run.threads):
        parts_ms, logits_bytes = parts_of_model(prepared, shards[0])
    stages = {name: sum(report.stages.get(name, 0.0) for report in reports) for name in STAGES}
    return Point(
        passes=config.passes.count,
        batch=config.run.batch_size,
        rates=rates,
        stages=stages,
        rows=_rows(reports),
        rejected=sum(report.rejected for report in reports),
        cpu_seconds=cpu,
        parts_ms=parts_ms,
        logits_bytes=logits_bytes,
        copy_bytes_per_s=copy_bytes_per_s(prepared.scorer.decoder.device),
        flops={"one_pass": prepared.cost.one_pass, "once": prepared.cost.once, "all_passes": prepared.cost.all_passes},
        compiled=prepared.job.compiled is not None,
    )


def score_all(fleet: LocalFleet, shards: list[Shard]) -> list[ShardReport]:
    """Have the worker score shards, two at a time as in a run."""
    waiting, reports = list(shards), list[ShardReport]()
    while len(reports) < len(shards):
        while waiting and fleet.free():
            fleet.submit(0, ScoreShard(waiting.pop(0)))
        for event in fleet.wait(1.0):
            if isinstance(event, Failed):
                raise StoppedError(f"bench: a shard cannot be scored: {event.reason}")
            if isinstance(event, Done):
                reports.append(event.result)
    return reports


def parts_of_model(prepared: Prepared, shard: Shard) -> tuple[dict[str, float], int]:
    """Milliseconds of a batch: what is computed once, all passes behind it, the scores; and bytes of the logits."""
    scorer = prepared.scorer
    try:
        rows = next(scorer.reader.blocks(shard, scorer.config.run.batch_size))
    except UnreadableShard as error:
        raise StoppedError(f"bench: {error}") from error
    inputs, _ = scorer.decoder.decode(rows)
    keys = scorer.decoder.padded_keys(rows)
    logits_NTC = scorer.model.logits(inputs, keys)

    def scores() -> Tensor:
        return scorer.statistics(logits_NTC).finite

    ways = {
        "prefix": lambda: scorer.model.once(inputs),
        "all": lambda: scorer.model.logits(inputs, keys),
        "reduce": scores,
    }
    device = scorer.decoder.device.type
    ms = medians(interleaved_ms(ways, PARTS_REPEATS, warm_up=2, device=device))
    suffix = max(0.0, ms["all"] - ms["prefix"])
    return {"prefix": ms["prefix"], "suffix": suffix, "reduce": ms["reduce"]}, logits_NTC.nbytes


def copy_bytes_per_s(device: torch.device) -> float:
    """Of a large copy on the device, bytes read and bytes written: the roofline of whatever moves memory."""
    source = torch.zeros(COPY_BYTES[device.type], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    ms = medians(interleaved_ms({"copy": lambda: target.copy_(source)}, 10, device=device.type))["copy"]
    return 2 * source.nbytes / ms * 1e3


def _rows(reports: list[ShardReport]) -> int:
    return sum(report.scored + report.rejected for report in reports)
