"""What a run came to: read once, shown by the sections."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from poolscore.engine.config import Config
from poolscore.engine.run import directory
from poolscore.engine.run.directory import RunDirectory
from poolscore.engine.run.journal import ShardReport
from poolscore.engine.run.totals import Totals
from poolscore.engine.selection.batch import select_batch
from poolscore.engine.selection.control import CONTROL
from poolscore.engine.storage.filesystem import open_parquet

SHOWN = 1000  # best rows on the page


@dataclass(frozen=True)
class Selection:
    """The batch to label, or the best rows so far where none was written yet."""

    written: bool  # false: made for this page from the shards that are there
    score: str
    method: str
    rows: int
    control: int  # of them, those that are there by chance
    cutoff: float | None  # least score of the rows that are not there by chance; None without such rows
    classes: Mapping[int, int]  # predicted class → rows; empty for regression
    row_ids: NDArray[np.int64]  # of all rows, ascending
    best: pa.Table  # at most SHOWN rows, best first, with all columns


@dataclass(frozen=True)
class Facts:
    """A run as its journal tells it."""

    run: RunDirectory
    reports: Mapping[int, ShardReport]
    totals: Totals
    selection: Selection | None  # None: nothing is scored yet

    @property
    def config(self) -> Config:
        """The run's configuration."""
        return self.run.config

    @property
    def status(self) -> str:
        """`done` only where every shard is in the journal."""
        status = str(self.run.info["status"])
        if not self.missing:
            return directory.DONE
        return directory.INCOMPLETE if status == directory.DONE else status

    @property
    def score(self) -> str:
        """The score that the batch was selected by."""
        return self.selection.score if self.selection else self.config.selected_by

    @property
    def row_ids(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Of the batch, and of those of its rows that are shown; ascending."""
        if self.selection is None:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        return self.selection.row_ids, np.sort(self.selection.best["row_id"].to_numpy())

    @property
    def pool_rows(self) -> int:
        """Rows of the pool, scored or not."""
        return int(self.run.info["pool"]["rows"])

    @cached_property
    def missing(self) -> list[int]:
        """Shards of the plan without a result."""
        return [index for index in range(len(self.run.plan.shards)) if index not in self.reports]

    @property
    def set_aside(self) -> dict[int, str]:
        """Shard → why it was given up, for those that are still without a result."""
        named: Mapping[str, str] = self.run.info.get("set_aside") or {}
        return {shard: named[str(shard)] for shard in self.missing if str(shard) in named}


def gather(run: RunDirectory) -> Facts:
    """Read journal and selection."""
    reports = run.reports()
    return Facts(run, reports, Totals.of(reports), _selection(run) if reports else None)


def _selection(run: RunDirectory) -> Selection:
    finished = run.info["status"] in (directory.DONE, directory.INCOMPLETE)
    if finished and directory.SELECTION in run.storage.names(""):
        with open_parquet(run.storage.path(directory.SELECTION)) as file:
            every = file.read(columns=["row_id", "score", "score_name", "method", "prediction"])
            first = next(file.iter_batches(SHOWN), None)
            best = file.schema_arrow.empty_table() if first is None else pa.Table.from_batches([first])
        return _described(run, every, best, written=True)
    every = select_batch(run, run.config)
    return _described(run, every, every.slice(0, SHOWN), written=False)


def _described(run: RunDirectory, every: pa.Table, best: pa.Table, written: bool) -> Selection:
    config = run.config
    # What the rows say goes before what the configuration says: a selection can be made again with other settings.
    by_chance = pc.equal(every["method"].cast(pa.string()), CONTROL)
    return Selection(
        written=written,
        score=every["score_name"][0].as_py() if every.num_rows else config.selected_by,
        method=next((m for m in every["method"].unique().to_pylist() if m != CONTROL), config.select.method),
        rows=every.num_rows,
        control=pc.sum(by_chance).as_py() or 0,
        cutoff=pc.min(every["score"].filter(pc.invert(by_chance))).as_py(),
        classes=class_counts(every["prediction"]),
        row_ids=np.sort(every["row_id"].to_numpy()),
        best=best,
    )


def class_counts(prediction: pa.ChunkedArray[Any] | pa.Array[Any]) -> Counter[int]:
    """Rows of each predicted class; empty where the prediction is no class."""
    if not pa.types.is_integer(prediction.type):
        return Counter()
    counted: Any = pc.value_counts(prediction)
    return Counter(dict(zip(counted.field("values").to_pylist(), counted.field("counts").to_pylist(), strict=True)))
