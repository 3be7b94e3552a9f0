"""One point of a benchmark: what was measured with so many passes and so large a batch, and what follows from it."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from poolscore.engine.words import amount
from poolscore.engine.worker.stages import STAGES, bounding_stage, idle_share
from poolscore.jobs.bench.steady import Round

PARTS = ("prefix", "suffix", "reduce")
SHORT_ROUND = 1.0  # seconds: a round below says little
SHORT_SHARD = 0.5  # seconds: of a shard below, though cut from a longer one, the fixed part is too much of it
FAR_APART = 1.2  # the fastest round by the slowest
FULL = 0.9  # of batches, above which padding is not worth a word


@dataclass(frozen=True)
class Budget:
    """What a night costs and has to do."""

    price: float | None  # of an hour of one worker
    pool_rows: int | None  # to be scored; None: those of the job's own pool, where it has one
    workers: int  # like this one


@dataclass(frozen=True)
class Point:
    """What was measured. Rates are rows a second of one worker."""

    passes: int
    batch: int
    rounds: Sequence[Round]
    job_shard_rows: int  # of the largest shard that the job has
    shard_rows: int  # to which longer ones were cut
    pool_rows: int  # of the job's pool that are to be scored, about
    parts_ms: Mapping[str, float]  # prefix, suffix (all T passes), reduce: of one batch
    logits_bytes: int  # of one batch, read once by the reduction
    copy_bytes_per_s: float  # of the device's own copy, read and written
    flops: Mapping[str, int]  # of a row: one pass, what is computed once, all passes
    compiled: bool
    identity: Mapping[str, Any]  # of the job, as a run has it

    @property
    def rates(self) -> list[float]:
        """End to end, of each round."""
        return [part.rows / part.seconds for part in self.rounds]

    @property
    def rate(self) -> float:
        """Median of the rounds."""
        return statistics.median(self.rates)

    @property
    def rows(self) -> int:
        """Of all rounds."""
        return sum(part.rows for part in self.rounds)

    @property
    def seconds(self) -> float:
        """Of all rounds."""
        return sum(part.seconds for part in self.rounds)

    @property
    def shards(self) -> int:
        """Of all rounds."""
        return sum(len(part.reports) for part in self.rounds)

    @property
    def filled(self) -> float:
        """Share of the batches' rows that were rows of the pool."""
        counts = [report.scored + report.rejected for part in self.rounds for report in part.reports]
        return sum(counts) / sum(max(1, -(-count // self.batch)) * self.batch for count in counts)

    def notes(self) -> Iterator[str]:
        """Why the rate may not be that of a long run, or is poor for a reason that is easy to mend."""
        each = self.seconds / self.shards
        if self.shard_rows < self.job_shard_rows and each < SHORT_SHARD:
            yield (
                f"a shard of {amount(self.shard_rows, 'row')} took {each:.2g} s, the job's have up to "
                f"{self.job_shard_rows:,}: what each begins and ends with weighs too much here; ask for more --rows, "
                "or leave it out"
            )
        elif min(part.seconds for part in self.rounds) < SHORT_ROUND:
            shortest = min(part.seconds for part in self.rounds)
            yield f"a round of {shortest:.2g} s says little; ask for more --rows, or leave it out"
        if self.filled < FULL and self.shard_rows < self.job_shard_rows:
            yield (
                f"batches were {self.filled:.0%} full: of shards cut to {amount(self.shard_rows, 'row')}, filter, "
                "sample or exclude list left few; the job's will be fuller; ask for more --rows, or leave it out"
            )
        elif self.filled < FULL:
            yield (
                f"batches are {self.filled:.0%} full, the rest is padding, as it will be in the job: its shards have "
                f"up to {self.job_shard_rows:,} rows; take a smaller batch, or more run.shard_rows"
            )
        if (apart := max(self.rates) / min(self.rates)) > FAR_APART:
            yield (
                f"the rounds differ by a factor of {apart:.2g}: what follows from their median is no surer than that; "
                "is something else at work on this machine?"
            )

    def to_json(self, budget: Budget) -> dict[str, Any]:
        """All figures, with what follows from them."""
        reports = [report for part in self.rounds for report in part.reports]
        stages = {name: sum(report.stages.get(name, 0.0) for report in reports) for name in STAGES}
        reduce_bytes_per_s = self.logits_bytes / (self.parts_ms["reduce"] / 1e3)
        return {
            "passes": self.passes,
            "batch": self.batch,
            "rows_per_second": rounded(self.rate),
            "rounds": [rounded(rate) for rate in self.rates],
            "round_seconds": [round(part.seconds, 2) for part in self.rounds],
            "rows": self.rows,
            "shards": self.shards,
            "shard_rows": self.shard_rows,
            "job_shard_rows": self.job_shard_rows,
            "rejected": sum(report.rejected for report in reports),
            "notes": list(self.notes()),
            "stage_rows_per_second": {
                name: rounded(self.rows / stages[name]) for name in STAGES if name != "idle" and stages[name]
            },
            "idle_share": round(idle_share(stages), 3),
            "bounded_by": bounding_stage(stages),
            "cpu_ms_per_row": rounded(sum(part.cpu_seconds for part in self.rounds) / self.rows * 1e3),
            "batch_ms": {name: round(ms, 3) for name, ms in self.parts_ms.items()},
            "part_rows_per_second": {
                name: rounded(self.batch / ms * 1e3) for name, ms in self.parts_ms.items() if ms > 0
            },
            "model_rows_per_second": rounded(self.batch / sum(self.parts_ms.values()) * 1e3),
            "reduction": {
                "bytes": self.logits_bytes,
                "bytes_per_second": round(reduce_bytes_per_s),
                "fraction_of_copy": rounded(reduce_bytes_per_s / self.copy_bytes_per_s),
            },
            "flops_per_row": dict(self.flops),
            "compiled": self.compiled,
            **self._budgeted(budget),
        }

    def _budgeted(self, budget: Budget) -> dict[str, Any]:
        rows = budget.pool_rows
        million = None if budget.price is None else 1e6 / self.rate / 3600 * budget.price
        return {
            "price_per_hour": budget.price,
            "price_per_million_rows": None if million is None else rounded(million),
            "pool_rows": rows,
            "workers": budget.workers,
            "hours": None if rows is None else rounded(rows / self.rate / 3600 / budget.workers),
            "price_of_pool": None if rows is None or million is None else rounded(million * rows / 1e6),
        }


def rounded(value: float) -> float:
    """To four digits, however small."""
    return float(f"{value:.4g}") if abs(value) < 1000 else round(value, 1)
