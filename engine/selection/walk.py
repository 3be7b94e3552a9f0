"""Caps and control rows around the exact selection: a walk down the total order of a method.

Each row in turn is taken, unless it is a control row or a group of its own is full. Groups only ever fill, so rows that
come later change nothing of what was taken before: it is looked at the best rows, and at WIDER times as many from the
start where those were not enough, until k rows are taken or there are no more. Where hardly any of those that were
looked at are taken, all rows are thinned out instead (see `thin`). Memory beside that of `fill` and `Columns`: about
200 bytes for each group of which a row was taken.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from poolscore.engine.selection.caps import Caps
from poolscore.engine.selection.clusters import Clusters
from poolscore.engine.selection.columns import Columns
from poolscore.engine.selection.groups import Room, Tally, none_taken
from poolscore.engine.selection.order import ROW, Rows, among, where
from poolscore.engine.selection.runs import SortedRuns
from poolscore.engine.selection.unlike import Alike, Unlike
from poolscore.engine.shortlist.read import Shortlist

LOOK = 1 << 14  # rows that are looked at first, at least
WIDER = 4
HARDLY_ANY = 1 / 8
ALL = 1 << 62  # rows


@dataclass(frozen=True)
class Walk:
    """What decides which rows are taken."""

    fill: Callable[[SortedRuns, int], int]  # puts so many of the best rows into a sink; see `top.fill`
    columns: Columns  # reads those of the caps
    caps: Caps
    control: Rows  # which are in the batch already; they count for the caps, but are not bound by them
    shortlist: Shortlist | None = None  # for NEAR_DUPLICATES: the only candidates
    fill_thinned: Callable[[SortedRuns, int], int] | None = None  # puts all rows into a sink that k can be made of

    def into(self, best: SortedRuns, k: int) -> tuple[int, int]:
        """Put the rows that are taken into a sink, k at most.

        Returns:
            How many they are; and how many of the first k, control rows apart, the caps refused.
        """
        looked_at = len(self.control) + (max(LOOK, 2 * k) if self.caps else k)
        with SortedRuns(looked_at) as found:
            count = self.fill(found, looked_at)
            taken, refused = self._take(found, count, best, k)
        while taken < k and count == looked_at:
            thinned = self.fill_thinned if taken < HARDLY_ANY * count else None
            looked_at = ALL if thinned is not None else looked_at * WIDER
            best.clear()
            with SortedRuns(looked_at) as found:
                count = thinned(found, k) if thinned is not None else self.fill(found, looked_at)
                taken, _ = self._take(found, count, best, k)
        return taken, refused

    def alike(self, row_ids: Iterable[NDArray[np.int64]]) -> Alike | None:
        """Near-duplicates, none of which is taken yet; None: the caps do not ask.

        Args:
            row_ids: candidates; clusters are made of the control rows and these, in this order.
        """
        limit = self.caps.near_duplicates
        if self.shortlist is None or limit is None:
            return None
        if limit == 1:
            self._unlike.begin()
            return self._unlike
        return Clusters.of(self.shortlist, np.concatenate([self.control["row_id"], *row_ids]), limit)

    @cached_property
    def _unlike(self) -> Unlike:
        assert self.shortlist is not None
        return Unlike(self.shortlist)

    def begun(self, alike: Alike | None) -> Tally:
        """The groups of the control rows."""
        counts = none_taken()
        for rows, table in self._with_groups(iter([self.control]), len(self.control)):
            room = self._room(rows, table, alike, counts)
            for place in range(len(rows)):
                room.take(place)
        return counts

    def _take(self, found: SortedRuns, count: int, best: SortedRuns, k: int) -> tuple[int, int]:
        alike = self.alike(rows["row_id"] for rows in found.merged())
        counts, control = self.begun(alike), np.sort(where(self.control))
        taken, seen, refused = 0, 0, 0
        with closing(self._with_groups(found.merged(), count)) as blocks:
            for rows, table in blocks:
                if taken == k:
                    break
                others = ~among(where(rows), control)
                rows, table = rows[others], table.filter(pa.array(others))
                places = self._places(rows, table, alike, counts, k - taken)
                best.add(rows[places])
                first = min(len(rows), max(k - seen, 0))  # of them are among the first k
                refused += first - int(np.searchsorted(places, first))
                taken, seen = taken + len(places), seen + len(rows)
        return taken, refused

    def _places(self, rows: Rows, table: pa.Table, alike: Alike | None, counts: Tally, wanted: int) -> NDArray[np.intp]:
        """The rows that are taken, one after another."""
        if not self.caps:
            return np.arange(min(len(rows), wanted))
        room = self._room(rows, table, alike, counts)
        if alike is not None:
            room.open_N &= alike.holds(rows["row_id"])
        places: list[int] = []
        for place in np.flatnonzero(room.open_N).tolist():
            if len(places) == wanted:
                break
            if room.open_N[place]:
                room.take(place)
                places.append(place)
        return np.array(places, np.intp)

    def _room(self, rows: Rows, table: pa.Table, alike: Alike | None, counts: Tally) -> Room:
        return self.caps.room(table, counts, None if alike is None else alike.closing(rows["row_id"], counts))

    def _with_groups(self, blocks: Iterator[Rows], count: int) -> Generator[tuple[Rows, pa.Table], None, None]:
        """The rows with the columns that tell their groups."""
        if not self.caps.columns:
            for rows in blocks:
                yield rows, pa.table({"row_id": rows["row_id"]})
            return
        for table in self.columns.tables(blocks, count):
            rows = np.empty(table.num_rows, ROW)
            for name in ROW.names or ():
                rows[name] = table[name].to_numpy()
            yield rows, table
