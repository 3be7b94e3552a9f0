"""All rows that a batch under caps may hold. Where groups are few or lie together, these are few of many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from poolscore.engine.selection.caps import Caps
from poolscore.engine.selection.order import NO_ROWS, Rows, Threshold, among, rows_at, where
from poolscore.engine.selection.parts import Part, Reader
from poolscore.engine.selection.runs import SortedRuns
from poolscore.engine.selection.threshold import Question, grouped
from poolscore.engine.selection.top import Collect, Scored, collect


@dataclass(frozen=True)
class UnderCaps:
    """What all tasks have in common."""

    question: Question
    caps: Caps
    control: Rows  # which are not to be among the rows
    k: int


def fill_thinned(best: SortedRuns, scored: Scored, wanted: UnderCaps) -> int:
    """Put all rows that may be in the batch into a sink, of one run. Memory: GROUP_ROWS rows and the capped columns of
    these for each worker.

    Returns:
        How many they are.
    """
    count = 0
    for rows in scored.workers.map(_thinned, wanted, grouped(scored.parts)):
        best.add(rows)
        count += len(rows)
    return count


def _thinned(reader: Reader, wanted: UnderCaps, parts: Sequence[Part]) -> Rows:
    every = sum(part.rows for part in parts) + len(wanted.question.exclude)
    control = np.sort(where(wanted.control))
    found, tables = [NO_ROWS], []
    for part in parts:
        rows = collect(reader, wanted.question, Collect([part], Threshold(), every))
        rows = rows[~among(where(rows), control)]
        with reader.opened(part) as file:
            tables.append(file.columns(wanted.caps.columns).take(pa.array(rows["place"].astype(np.int64))))
        found.append(rows)
    rows, table = np.concatenate(found), pa.concat_tables(tables)
    order = np.lexsort((rows["row_id"], rows["key"], -rows["value"]))
    rows, table = rows_at(rows, order), table.take(pa.array(order))
    return rows[wanted.caps.may_hold(table, wanted.k)]
