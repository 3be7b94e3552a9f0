"""How the scores lie over the pool, in one pass over the committed parts.

Memory: these columns of a part, or of as many as object storage is read of at once, ROWS rows at most.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from poolscore.engine.run.directory import RunDirectory
from poolscore.engine.run.journal import ShardReport
from poolscore.engine.scores import scores_of
from poolscore.engine.storage.filesystem import in_order, open_parquet
from poolscore.jobs.report.axes import Axis
from poolscore.jobs.report.facts import class_counts
from poolscore.jobs.report.plane import PAIRS, Plane

BINS = 60  # that are drawn
FINE = 64  # counted bins in a drawn one; they place the median
BLOCK = 65_536  # rows that are counted at a time
ROWS = 1 << 22  # that are read at the same time, about 200 MB of scores

RowIds = NDArray[np.int64]
NO_ROWS: RowIds = np.empty(0, np.int64)
NONE: NDArray[np.intp] = np.empty(0, np.intp)


@dataclass
class Spread:
    """One score over the rows counted so far. Values lie in [low, high]."""

    low: float
    high: float
    counts: NDArray[np.int64]  # [BINS · FINE]
    batch: NDArray[np.int64]  # [BINS] rows of the batch
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

    def add(self, scores: NDArray[np.floating[Any]], chosen: NDArray[np.intp] = NONE) -> None:
        """Count a block of scores; `chosen` are the places of the batch's rows among them."""
        finite = np.isfinite(scores)
        values = scores[finite].astype(np.float64)
        if not len(values):
            return
        self.counts += np.bincount(self._bins(values), minlength=len(self.counts))
        of_batch = scores[chosen][finite[chosen]].astype(np.float64)
        self.batch += np.bincount(self._bins(of_batch) // FINE, minlength=BINS)
        self.least, self.most = min(self.least, float(values.min())), max(self.most, float(values.max()))
        self.total += float(values.sum())

    def _bins(self, values: NDArray[np.float64]) -> NDArray[np.int64]:
        places = ((values - self.low) * (len(self.counts) / (self.high - self.low))).astype(np.int64)
        inside: NDArray[np.int64] = np.clip(places, 0, len(self.counts) - 1)
        return inside


@dataclass(frozen=True)
class Distribution:
    """The committed scores of a run."""

    spreads: Mapping[str, Spread]  # by score, in the order of the contract's table; none where nothing is scored
    classes: Mapping[int, int]  # predicted class → rows; empty for regression
    plane: Plane | None  # None: the task has no two scores to be looked at together
    shown: Mapping[int, Mapping[str, float]]  # row_id of a row on the page → its scores


def read_distribution(
    run: RunDirectory, reports: Mapping[int, ShardReport], batch: RowIds = NO_ROWS, shown: RowIds = NO_ROWS
) -> Distribution:
    """Count every score and the predicted classes over all parts that the journal names.

    Args:
        batch: row_ids of the selected rows, ascending.
        shown: those of which all scores are wanted, ascending.
    """
    scored = [report for report in reports.values() if report.scored]
    names = scores_of(run.config.model.task, run.config.passes.count)
    ends = _ends(run, scored, names)
    spreads = {name: _empty(*ends[name]) for name in names if name in ends}
    plane = _plane(ends)
    classes: Counter[int] = Counter()
    scores: dict[int, dict[str, float]] = {}
    for block in _blocks(run, scored, ["row_id", *names, "prediction"]):
        row_ids = block.column("row_id").to_numpy()
        values = {name: block.column(name).to_numpy(zero_copy_only=False) for name in names}
        chosen = _places(row_ids, batch)
        for name, spread in spreads.items():
            spread.add(values[name], chosen)
        if plane is not None:
            across, up = (block.column(name).to_numpy(zero_copy_only=False) for name in plane.names)
            plane.add(across, up, chosen)
        classes += class_counts(block.column("prediction"))
        for place in _places(row_ids, shown).tolist():
            scores[int(row_ids[place])] = {name: float(values[name][place]) for name in names}
    return Distribution(spreads, dict(sorted(classes.items())), plane, scores)


def _blocks(run: RunDirectory, reports: Sequence[ShardReport], columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    def read(report: ShardReport) -> pa.Table:
        with open_parquet(run.storage.path(report.scores)) as file:
            return file.read(columns=columns)

    most = max((report.scored for report in reports), default=1)
    for table in in_order(read, reports, max(1, min(run.storage.at_once, ROWS // most))):
        yield from table.to_batches(BLOCK)


def _places(row_ids: RowIds, wanted: RowIds) -> NDArray[np.intp]:
    """Where the wanted rows lie in a block of at least one; both ascend."""
    first, stop = np.searchsorted(wanted, [row_ids[0], row_ids[-1] + 1])
    some = wanted[first:stop]
    places = np.searchsorted(row_ids, some)
    there: NDArray[np.intp] = places[row_ids[places] == some]
    return there


def _empty(least: float, most: float) -> Spread:
    axis = _axis(least, most)
    return Spread(axis.low, axis.high, np.zeros(BINS * FINE, np.int64), np.zeros(BINS, np.int64))


def _plane(ends: Mapping[str, tuple[float, float]]) -> Plane | None:
    for across, up in PAIRS:
        if across in ends and up in ends:
            return Plane((across, up), _axis(*ends[across]), _axis(*ends[up]))
    return None


def _axis(least: float, most: float) -> Axis:
    """A range that holds all values: from 0, unless they lie far from it."""
    low = 0.0 if 0 <= least < most / 2 else least
    return Axis(low, most if most > low else low + max(abs(low), 1.0))


def _ends(run: RunDirectory, reports: Sequence[ShardReport], names: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Least and largest value of each score, and of a prediction that is a number, from footers and journal; no column
    is read."""
    ends: dict[str, tuple[float, float]] = {}

    def widen(name: str, *values: float) -> None:
        least, most = ends.get(name, (np.inf, -np.inf))
        ends[name] = min(least, *values), max(most, *values)

    def footer_of(report: ShardReport) -> pq.FileMetaData:
        with open_parquet(run.storage.path(report.scores)) as file:
            return file.metadata

    for report, footer in zip(reports, in_order(footer_of, reports, run.storage.at_once), strict=True):
        for group in range(footer.num_row_groups):
            for column in (footer.row_group(group).column(i) for i in range(footer.num_columns)):
                about: Any = column.statistics
                if column.path_in_schema in (*names, "prediction") and about is not None and about.has_min_max:
                    widen(column.path_in_schema, float(about.min), float(about.max))
        for name in names:
            widen(name, report.best[name])
    return ends
