"""How the scores lie over the pool, in one pass over the committed parts. Memory: one block of rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poolscore.engine.filesystem import open_parquet
from poolscore.engine.run.directory import RunDirectory
from poolscore.engine.run.journal import ShardReport
from poolscore.engine.scores import scores_of
from poolscore.jobs.report.axes import Axis
from poolscore.jobs.report.facts import class_counts

BINS = 60  # that are drawn
FINE = 64  # counted bins in a drawn one; they place the median
BLOCK = 65_536  # rows


@dataclass
class Spread:
    """One score over the rows counted so far. Values lie in [low, high]."""

    low: float
    high: float
    counts: NDArray[np.int64]  # [BINS · FINE]
    least: float = np.inf
    most: float = -np.inf
    total: float = 0.0

    @property
    def rows(self) -> int:
        """Rows with a finite score."""
        return int(self.counts.sum())

    @property
    def mean(self) -> float:
        """Of the finite scores."""
        return self.total / self.rows

    @property
    def median(self) -> float:
        """To (high − low) / (BINS · FINE)."""
        before = np.concatenate([[0], np.cumsum(self.counts)])
        at = int(np.searchsorted(before, self.rows / 2, side="left")) - 1
        inside = (self.rows / 2 - before[at]) / self.counts[at]
        value = self.low + (at + inside) * (self.high - self.low) / len(self.counts)
        return float(np.clip(value, self.least, self.most))

    @property
    def axis(self) -> Axis:
        """What it is drawn along."""
        return Axis(self.low, self.high)

    @property
    def drawn(self) -> NDArray[np.int64]:
        """Rows in each of the BINS bins of equal width."""
        drawn: NDArray[np.int64] = self.counts.reshape(BINS, FINE).sum(axis=1)
        return drawn

    def add(self, scores: NDArray[np.floating[Any]]) -> None:
        """Count a block of scores."""
        values = scores[np.isfinite(scores)].astype(np.float64)
        if not len(values):
            return
        places = ((values - self.low) * (len(self.counts) / (self.high - self.low))).astype(np.int64)
        self.counts += np.bincount(np.clip(places, 0, len(self.counts) - 1), minlength=len(self.counts))
        self.least, self.most = min(self.least, float(values.min())), max(self.most, float(values.max()))
        self.total += float(values.sum())


@dataclass(frozen=True)
class Distribution:
    """The committed scores of a run."""

    spreads: Mapping[str, Spread]  # by score, in the order of the contract's table; none where nothing is scored
    classes: Mapping[int, int]  # predicted class → rows; empty for regression


def read_distribution(run: RunDirectory, reports: Mapping[int, ShardReport]) -> Distribution:
    """Count every score and the predicted classes over all parts that the journal names."""
    scored = [report for report in reports.values() if report.scored]
    names = scores_of(run.config.model.task, run.config.passes.count)
    spreads = {name: _empty(*ends) for name, ends in _ends(run, scored, names).items()}
    classes: Counter[int] = Counter()
    for report in scored:
        with open_parquet(run.storage.path(report.scores)) as file:
            for batch in file.iter_batches(BLOCK, columns=[*names, "prediction"]):
                for name, spread in spreads.items():
                    spread.add(batch.column(name).to_numpy(zero_copy_only=False))
                classes += class_counts(batch.column("prediction"))
    return Distribution(spreads, dict(sorted(classes.items())))


def _empty(least: float, most: float) -> Spread:
    """A range that holds all values: from 0, unless they lie far from it."""
    low = 0.0 if least < most / 2 else least
    high = most if most > low else low + max(abs(low), 1.0)
    return Spread(low, high, np.zeros(BINS * FINE, np.int64))


def _ends(run: RunDirectory, reports: Sequence[ShardReport], names: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Least and largest value of each score, from footers and journal; no column is read."""
    least: dict[str, list[float]] = {name: [] for name in names}
    for report in reports:
        with open_parquet(run.storage.path(report.scores)) as file:
            footer = file.metadata
        for group in range(footer.num_row_groups):
            for column in (footer.row_group(group).column(i) for i in range(footer.num_columns)):
                about: Any = column.statistics
                if column.path_in_schema in least and about is not None and about.has_min_max:
                    least[column.path_in_schema].append(float(about.min))
    most = {name: max((report.best[name] for report in reports), default=0.0) for name in names}
    return {name: (min(least[name], default=0.0), most[name]) for name in names} if reports else {}
