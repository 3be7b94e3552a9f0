"""Batches that are built one row at a time, each the best beside those taken before: which row is it, without looking
at all candidates?

A candidate is worth no more beside more rows (joint information is submodular, distances to the nearest centre only
fall), so what it was worth when it was last looked at is an upper bound. Candidates are looked at again in the order of
these bounds until no bound comes up to the best value found: the same row as if all had been looked at (Minoux 1978,
"Accelerated greedy algorithms for maximizing submodular set functions").
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from poolscore.engine.selection.order import Places, Values

FIRST_BLOCK = 16  # candidates that are looked at first; then twice as many, and so on
LARGEST_BLOCK = 4096


@dataclass(frozen=True)
class Taken:
    """The candidates that were taken, in the order in which they were."""

    places: Places
    gains: Values  # what each was worth beside those before it; NaN: nothing to compare with

    @staticmethod
    def of(places: list[int], gains: list[float]) -> Taken:
        """From lists."""
        return Taken(np.array(places, np.intp), np.array(gains, np.float64))


def best_open(
    bounds_N: Values,
    open_N: NDArray[np.bool_],
    order_N: NDArray[np.int64],
    look: Callable[[Places], tuple[Values, Values]],
    tie: float,
    largest_block: int = LARGEST_BLOCK,
) -> tuple[int, float] | None:
    """The open candidate with the largest value.

    Args:
        bounds_N: float64 [N], no less than the values; those looked at get what `look` gives. NaN: never taken.
        open_N: bool [N].
        order_N: int64 [N]: of candidates whose values differ by no more than `tie`, the one with the least is taken.
        look: places → their values, and bounds of them for the steps to come.
        tie: larger than the rounding of values and bounds, so that rounding decides nothing.
        largest_block: candidates that `look` is asked for at once.

    Returns:
        Its place and its value; None where no candidate is open.
    """
    values_N = np.full(len(bounds_N), -np.inf)
    waiting_N = open_N.copy()
    looked_N = np.zeros(len(bounds_N), bool)
    size = min(FIRST_BLOCK, largest_block)
    while True:
        edge = values_N.max(where=looked_N, initial=-np.inf) - tie
        # A bound that equals its value up to rounding may lie below it, hence the second `tie`.
        worthy = np.flatnonzero(waiting_N & (bounds_N >= edge - tie))
        if not len(worthy):
            break
        if len(worthy) > size:
            worthy = worthy[np.argpartition(-bounds_N[worthy], size)[:size]]
        values_N[worthy], bounds_N[worthy] = look(worthy)
        waiting_N[worthy] = False
        looked_N[worthy] = ~np.isnan(values_N[worthy])
        size = min(2 * size, largest_block)
    tied = np.flatnonzero(looked_N & (values_N >= edge))
    if not len(tied):
        return None
    place = int(tied[np.argmin(order_N[tied])])
    return place, float(values_N[place])
