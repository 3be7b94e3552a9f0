"""Control rows: drawn at random from all scored rows and hidden in the batch. What labels of the others gain over
those of these is what the selection gains over chance.

The first n rows by a uniform draw of each row, keyed by seed and key, are a true random sample of the pool whatever the
method, and the first of more. They stand at random places, one in each of n equal stretches of the batch, so that a
part of the batch holds as large a part of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from poolscore.engine.selection.order import NO_ROWS, Places, Rows, Values
from poolscore.engine.selection.runs import SortedRuns
from poolscore.engine.selection.threshold import Question
from poolscore.engine.selection.top import Scored, fill
from poolscore.kernels.random_score import CONTROL_PLACES, CONTROL_ROWS, uniforms_from_keys

CONTROL = "control"  # in the column `method`


@dataclass(frozen=True)
class ByChance:
    """A ranking: rows in the order of a uniform draw, the least first."""

    seed: int

    needs_keys = True
    exact = False

    def most(self, best: float) -> float:
        """See Ranking."""
        return 0.0

    def at_least(
        self, scores_N: NDArray[np.float32], keys_N: NDArray[np.uint64] | None, edge: float
    ) -> tuple[Places, Values]:
        """See Ranking."""
        assert keys_N is not None
        places = np.flatnonzero(np.isfinite(scores_N))
        values = -uniforms_from_keys(keys_N[places], self.seed, CONTROL_ROWS)
        enough = values.astype(np.float32) >= np.float32(edge)
        return places[enough], values[enough]


def control_rows(scored: Scored, question: Question, share: float, k: int, seed: int) -> Rows:
    """The control rows of a batch of k: round(share k) of them, and of fewer rows than k the same share.

    Memory: 32 bytes for each.

    Args:
        question: whose excluded rows are left out; its ranking does not count.

    Returns:
        Rows in the order of their draws.
    """
    count = round(share * min(k, scored.rows))
    if not count:
        return NO_ROWS
    with SortedRuns(count) as drawn:
        fill(drawn, scored, replace(question, ranking=ByChance(seed)), count)
        return np.concatenate([NO_ROWS, *drawn.merged()])


def control_ranks(control: Rows, count: int, seed: int) -> NDArray[np.int64]:
    """The rank (from 1) of each control row in a batch of `count` rows, which are no fewer."""
    bounds = np.arange(len(control) + 1) * count // max(len(control), 1)
    drawn = uniforms_from_keys(control["key"], seed, CONTROL_PLACES)
    ranks: NDArray[np.int64] = bounds[:-1] + (drawn * np.diff(bounds)).astype(np.int64) + 1
    return ranks


def with_control(blocks: Iterator[Rows], control: Rows, ranks: NDArray[np.int64]) -> Iterator[Rows]:
    """The rows, best first, and the control rows at their ranks."""
    if not len(control):
        yield from blocks
        return
    before = ranks - 1 - np.arange(len(ranks))  # others that come before each
    seen = used = 0
    for block in chain([NO_ROWS], blocks):
        stop = int(np.searchsorted(before, seen + len(block), side="right"))
        yield np.insert(block, before[used:stop] - seen, control[used:stop])
        seen, used = seen + len(block), stop
