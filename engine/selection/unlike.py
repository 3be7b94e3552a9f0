"""A batch of which no two rows are near-duplicates: a row that is taken closes all that are like it.

Being alike makes no groups: b may be like a and like c, which are not like each other. So rows are closed when one is
taken, whatever method takes it, and a row that another cap refuses closes none.

Legend: M rows of the shortlist, F features, N candidates.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from poolscore.engine.selection.groups import ALONE, Closing, Tally
from poolscore.engine.selection.near_duplicates import are_alike, directions
from poolscore.engine.shortlist.read import Shortlist


class Alike(Protocol):
    """Near-duplicates among rows of a shortlist, under a limit."""

    def holds(self, row_ids_N: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which rows it knows."""

    def closing(self, row_ids_N: NDArray[np.int64], taken: Tally) -> Closing:
        """What keeps N candidates to the limit.

        Args:
            taken: the rows taken before, see `Caps.room`.
        """


class Unlike:
    """The rows of a shortlist, where no two that are alike are to be taken.

    Memory: their directions, 4 bytes a feature. Time: a row taken is compared with all, M F products.
    """

    def __init__(self, shortlist: Shortlist) -> None:
        row_ids = shortlist.rows["row_id"].to_numpy()
        self._by_row = np.argsort(row_ids)
        self._row_ids = row_ids[self._by_row]
        self._directions_MF = directions(shortlist.features_NF, shortlist.centre_F)
        self._closed_M = np.zeros(len(row_ids), bool)

    def begin(self) -> None:
        """Forget what was taken."""
        self._closed_M[:] = False

    def holds(self, row_ids_N: NDArray[np.int64]) -> NDArray[np.bool_]:
        """See Alike."""
        return np.isin(row_ids_N, self._row_ids)

    def closing(self, row_ids_N: NDArray[np.int64], taken: Tally) -> Closing:
        """See Alike."""
        places_N = np.full(len(row_ids_N), ALONE, np.int64)
        held = self.holds(row_ids_N)
        places_N[held] = self._by_row[np.searchsorted(self._row_ids, row_ids_N[held])]
        return _Unlike(self, places_N)

    def closed(self, places_N: NDArray[np.int64]) -> NDArray[np.intp]:
        """Which of these places in the shortlist are like a row that was taken."""
        there = np.flatnonzero(places_N != ALONE)
        return there[self._closed_M[places_N[there]]]

    def take(self, place: int) -> None:
        """Close the rows that are like the one at this place."""
        one = self._directions_MF[place : place + 1]
        self._closed_M |= are_alike(self._directions_MF, one)[:, 0]


class _Unlike:
    """N candidates, by their places in the shortlist; ALONE: not there."""

    def __init__(self, rows: Unlike, places_N: NDArray[np.int64]) -> None:
        self._rows = rows
        self._places_N = places_N

    def full(self) -> Iterator[NDArray[np.intp]]:
        """See Closing."""
        yield self._rows.closed(self._places_N)

    def take(self, place: int) -> NDArray[np.intp] | None:
        """See Closing."""
        if self._places_N[place] == ALONE:
            return None
        self._rows.take(int(self._places_N[place]))
        return self._rows.closed(self._places_N)
