"""The rows of a batch that are no control rows: the best, under caps, or those of a batch-aware method."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from poolscore.engine.scores import Task
from poolscore.engine.selection.aware import Picked, pick
from poolscore.engine.selection.choice import Choice
from poolscore.engine.selection.methods import AWARE
from poolscore.engine.selection.order import NO_ROWS, Rows, among, where
from poolscore.engine.selection.runs import SortedRuns
from poolscore.engine.selection.walk import Walk


@dataclass(frozen=True)
class Others:
    """The rows of a batch that are no control rows, in their order."""

    count: int
    blocks: Callable[[], Iterator[Rows]]  # each call begins anew
    about: Mapping[str, Any] = field(default_factory=dict)  # what is to be known of them
    notes: Sequence[str] = ()  # what is to be said of them
    columns: pa.Table | None = None  # method, step and gain of each, where that is not the same for all


def find_others(best: SortedRuns, walk: Walk, choice: Choice, task: Task, k: int) -> Others:
    """Find them.

    Args:
        best: holds k rows; those of score-based methods stay there.
        walk: to the rows.
        k: rows, at most.
    """
    if choice.method in AWARE:
        rows, picked = _of_shortlist(walk, task, choice, k)
        return Others(len(rows), lambda: iter([rows]), {"notes": picked.notes}, picked.notes, _columns_of(picked))
    if choice.caps or len(walk.control):
        count, refused = walk.into(best, k)
        return Others(count, best.merged, {"refused_by_caps": refused} if choice.caps else {})
    return Others(walk.fill(best, k), best.merged)


def _of_shortlist(walk: Walk, task: Task, choice: Choice, k: int) -> tuple[Rows, Picked]:
    """The rows that a batch-aware method takes from the shortlist, in their order; fewer than k where it holds no more.

    Args:
        walk: with the shortlist, and a `fill` that gives its candidates.
        k: rows, control rows apart.
    """
    shortlist = walk.shortlist
    assert shortlist is not None
    row_ids_N = shortlist.rows["row_id"].to_numpy()
    with SortedRuns(len(row_ids_N)) as found:
        walk.fill(found, len(row_ids_N))
        rows = np.concatenate([NO_ROWS, *found.merged()])
    rows = rows[~among(where(rows), np.sort(where(walk.control))) & np.isin(rows["row_id"], row_ids_N)]
    alike = walk.alike([row_ids_N])
    counts = walk.begun(alike)
    closing = None if alike is None else alike.closing(row_ids_N, counts)
    room = walk.caps.room(shortlist.rows, counts, closing)
    room.open_N &= np.isin(row_ids_N, rows["row_id"])
    picked = pick(shortlist, task, choice, k, room)
    by_row = np.argsort(rows["row_id"])
    taken = by_row[np.searchsorted(rows["row_id"], row_ids_N[picked.places], sorter=by_row)]
    return rows[taken], picked


def _columns_of(picked: Picked) -> pa.Table:
    """What a selection says of each row: method, step (from 1) and gain (null: nothing to compare with)."""
    gains = pa.array(picked.gains, mask=np.isnan(picked.gains))
    return pa.table({"method": pa.array(picked.methods, pa.string()), "step": picked.steps, "gain": gains})
