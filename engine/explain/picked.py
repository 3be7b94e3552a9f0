"""Whether rows of a run are in its selections, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from poolscore.engine.errors import StoppedError
from poolscore.engine.explain.find import Found
from poolscore.engine.explain.left_out import Terms, Walked
from poolscore.engine.run.directory import SELECTION, RunDirectory
from poolscore.engine.selection.control import CONTROL
from poolscore.engine.storage.filesystem import open_parquet, reason

WHY = ("rank", "method", "score_name", "score", "perturbed_score", "step", "gain", "run")


@dataclass(frozen=True)
class Membership:
    """A selection, and what it says of a row."""

    file: str  # relative to the run directory
    rows: int
    score: str | None  # that it was selected by; None: it has no rows
    method: str | None
    why: dict[str, Any] | None  # WHY, as far as it has them; None: the row is not in it
    left_out: str | None = None  # why it is not in it, where others did not simply come before it


@dataclass
class _Seen:
    rows: int = 0
    score: str | None = None
    method: str | None = None
    why: dict[int, dict[str, Any]] = field(default_factory=dict)  # by place among the rows that were asked for
    walked: Walked | None = None  # None: it does not say what it was asked for

    def membership(self, file: str, row: int, listed: bool | None) -> Membership:
        """Of one of the rows that were asked for."""
        why = self.why.get(row)
        left_out = self.walked.why(row, listed) if why is None and self.walked is not None else None
        return Membership(file, self.rows, self.score, self.method, why, left_out)


def memberships(
    run: RunDirectory, rows: Sequence[Found], listed: Sequence[bool | None]
) -> list[tuple[Membership, ...]]:
    """What each selection of a run says of each row. Memory: one row group of a selection.

    Rows are known by key and row_id; in a selection over several runs by key alone, for an id counts once there.

    Args:
        listed: whether each row is on the run's shortlist; None: that is not known.

    Raises:
        StoppedError: a selection cannot be read.
    """
    files = [SELECTION] * (SELECTION in run.storage.names(""))
    files += sorted(f"selections/{name}" for name in run.storage.names("selections") if name.endswith(".parquet"))
    seen = {file: _look(run, file, rows) for file in files}
    return [tuple(one.membership(file, i, on_list) for file, one in seen.items()) for i, on_list in enumerate(listed)]


def ranks_in_batch(run: RunDirectory, row_ids_N: NDArray[np.int64]) -> dict[int, int]:
    """row_id → rank of those of the rows that are in the run's own batch. Memory: one row group of it."""
    ranks: dict[int, int] = {}
    if SELECTION in run.storage.names(""):
        with open_parquet(run.storage.path(SELECTION)) as file:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, columns=["row_id", "rank"])
                of_batch = table.filter(pc.is_in(table["row_id"], pa.array(row_ids_N)))
                ranks |= zip(of_batch["row_id"].to_pylist(), of_batch["rank"].to_pylist(), strict=True)
    return ranks


def _look(run: RunDirectory, name: str, rows: Sequence[Found]) -> _Seen:
    try:
        with open_parquet(run.storage.path(name)) as file:
            terms = Terms.of(run, name, file.schema_arrow.metadata)
            walked = None if terms is None else Walked(terms, rows, run.config.pool.id)
            seen = _Seen(rows=file.metadata.num_rows, walked=walked)
            for group in range(file.num_row_groups):
                _look_at_group(file, group, rows, seen)
            return seen
    except (OSError, pa.ArrowException, KeyError) as error:
        raise StoppedError(f"{run.storage.path(name)} cannot be read ({reason(error)}); bring it back") from error


def _look_at_group(file: pq.ParquetFile, group: int, rows: Sequence[Found], seen: _Seen) -> None:
    columns = ["row_id", "key", *WHY, *(seen.walked.columns if seen.walked is not None else ())]
    table = file.read_row_group(group, columns=[name for name in columns if name in file.schema_arrow.names])
    if seen.walked is not None:
        seen.walked.see(table)
    if seen.method is None and table.num_rows:
        of_score = table.filter(pc.not_equal(table["method"], CONTROL))
        first = of_score if of_score.num_rows else table
        seen.score, seen.method = first["score_name"][0].as_py(), first["method"][0].as_py()
    keys, row_ids = table["key"].to_numpy(), table["row_id"].to_numpy()
    for i, row in enumerate(rows):
        mine = keys == np.uint64(row.key)
        if "run" not in table.column_names:
            mine &= row_ids == row.row_id
        for place in np.flatnonzero(mine)[:1].tolist():
            values = {name: table[name][place].as_py() for name in WHY if name in table.column_names}
            seen.why[i] = {name: value for name, value in values.items() if value is not None}
