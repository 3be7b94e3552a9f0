"""Caps and control rows around the exact selection: a walk down the total order of a method.

Each row in turn is taken, unless it is a control row or a group of its own is full. Groups only ever fill, so rows that
come later change nothing of what was taken before: it is looked at the best rows, and at WIDER times as many from the
start where those were not enough, until k rows are taken or there are no more. Memory beside that of `fill` and
`Columns`: about 200 bytes for each group of which a row was taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from poolscore.engine.selection.alike import Alike
from poolscore.engine.selection.caps import Caps, Room, Taken, none_taken
from poolscore.engine.selection.columns import Columns
from poolscore.engine.selection.order import ROW, Rows
from poolscore.engine.selection.runs import SortedRuns

LOOK = 1 << 14  # rows that are looked at first, at least
WIDER = 4


@dataclass(frozen=True)
class Walk:
    """What decides which rows are taken."""

    fill: Callable[[SortedRuns, int], int]  # puts the best rows into a sink, so many of them; see `top.fill`
    rows: int  # there are no more
    columns: Columns  # reads those of the caps
    caps: Caps
    control: Rows  # that are in the batch already; they count for the caps, but are not bound by them
    alike: Callable[[NDArray[np.int64]], Alike] | None = None  # clusters of rows in this order; for NEAR_DUPLICATES

    def into(self, best: SortedRuns, k: int) -> tuple[int, int]:
        """Put the rows that are taken into a sink, k at most.

        Returns:
            How many they are, and how many of the first k rows that are no control rows the caps refused.
        """
        look = max(LOOK, 2 * k) if self.caps else k
        looked_at = min(look + len(self.control), self.rows)
        while True:
            best.clear()
            with SortedRuns(looked_at) as found:
                count = self.fill(found, looked_at)
                taken, refused = self._take(found, count, best, k)
            if taken == k or looked_at == self.rows:
                return taken, refused
            looked_at = min(looked_at * WIDER, self.rows)

    def _take(self, found: SortedRuns, count: int, best: SortedRuns, k: int) -> tuple[int, int]:
        alike = self._clusters(found)
        counts = none_taken()
        for rows, table in self._with_groups(iter([self.control]), len(self.control)):
            room = self._room(rows, table, alike, counts)
            for place in range(len(rows)):
                room.take(place)
        left, seen, refused = k, 0, 0
        control = np.sort(_where(self.control))
        for rows, table in self._with_groups(found.merged(), count):
            others = ~np.isin(_where(rows), control)
            rows, table = rows[others], table.filter(pa.array(others))
            places = _places(self._room(rows, table, alike, counts), left)
            best.add(rows[places])
            before = min(len(rows), max(k - seen, 0))
            refused += before - int(np.searchsorted(places, before))
            left, seen = left - len(places), seen + len(rows)
            if not left:
                break
        return k - left, refused
