"""`kcenter`: a batch that covers the candidates, each row the farthest from what is labelled or taken already.

Source: Sener & Savarese 2018, "Active Learning for Convolutional Neural Networks: A Core-Set Approach" (ICLR),
algorithm 1, k-Center-Greedy: at most twice the radius that the best k centres leave.

The distance of a row to its nearest centre only falls, so a distance to some of the centres is an upper bound: only
rows whose bound is the largest are compared with the centres that are new to them, in matrix products (see `greedy`).

Legend: N candidates, B of them, M labelled rows, F features.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from poolscore.engine.selection.greedy import Taken, best_open
from poolscore.engine.selection.groups import Room
from poolscore.engine.selection.order import Places, Values

TIE = 1e-12  # of the largest square of a vector's length: what float64 rounds is less
CENTRES = 1024  # that rows are compared with at once


class Centres:
    """The centres so far, and how far each candidate is from the nearest."""

    def __init__(self, features_NF: NDArray[np.float32], centre_F: Values, most: int) -> None:
        self._features_NF = features_NF
        self._middle_F = centre_F  # subtracted: short vectors lose fewer digits
        self._centres = np.empty((most, len(centre_F)))
        self._lengths = np.empty(most)
        self.count = 0
        self.squares_N = np.full(len(features_NF), np.inf)  # distance to the nearest of the first `_seen_N` centres
        self._seen_N = np.zeros(len(features_NF), np.int64)
        self.longest = 0.0

    def add(self, features_MF: NDArray[np.float32]) -> None:
        """More centres."""
        new = slice(self.count, self.count + len(features_MF))
        self._centres[new] = self._centred(features_MF)
        self._lengths[new] = (self._centres[new] ** 2).sum(axis=1)
        self.count = new.stop

    def look(self, places: Places) -> tuple[Values, Values]:
        """Compare candidates with the centres that are new to them; see `best_open`."""
        x_BF = self._centred(self._features_NF[places])
        lengths_B1 = (x_BF**2).sum(axis=1, keepdims=True)
        for start in range(int(self._seen_N[places].min()), self.count, CENTRES):
            stop = min(start + CENTRES, self.count)
            squares = lengths_B1 + self._lengths[start:stop] - 2 * (x_BF @ self._centres[start:stop].T)
            self.squares_N[places] = np.minimum(self.squares_N[places], squares.min(axis=1))
        self._seen_N[places] = self.count
        squares_B = np.maximum(self.squares_N[places], 0)
        return squares_B, squares_B

    def _centred(self, features_BF: NDArray[np.float32]) -> Values:
        return features_BF.astype(np.float64) - self._middle_F


def kcenter(
    features_NF: NDArray[np.float32],
    centre_F: Values,
    labelled_MF: NDArray[np.float32],
    order_N: NDArray[np.int64],
    k: int,
    room: Room,
    best: Sequence[int],
) -> Taken:
    """Up to k candidates, in the order in which they were taken.

    Args:
        features_NF: float32 [N, F].
        centre_F: float64 [F], about their mean.
        labelled_MF: float32 [M, F], the first centres.
        order_N: int64 [N]; of candidates that are equally far, the one with the least is taken.
        k: rows.
        room: which candidates may be taken; it is told of each.
        best: candidates; where there is no labelled row, the first of them that may be taken begins; none: the least of
            `order_N`.

    Returns:
        Gains are Euclidean distances to the nearest centre; NaN for a first row without any centre. Features that are
        no numbers are never taken, and such labelled rows are passed over.

    Memory: 8 bytes for each feature of the labelled rows, of k rows, and of 4,096 rows at work.
    """
    places: list[int] = []
    gains: list[float] = []
    centres = Centres(features_NF, centre_F, len(labelled_MF) + k)
    centres.add(labelled_MF[_finite(labelled_MF)])
    room.open_N &= _finite(features_NF)
    first = next((place for place in best if room.open_N[place]), None)
    tie = TIE * _longest(features_NF, centre_F)
    while len(places) < k:
        if centres.count == 0 and first is not None:
            found: tuple[int, float] | None = first, np.inf
        else:
            found = best_open(centres.squares_N, room.open_N, order_N, centres.look, tie)
        if found is None:
            break
        place, square = found
        places.append(place)
        gains.append(float(np.sqrt(square)) if np.isfinite(square) else np.nan)
        room.take(place)
        centres.add(features_NF[place : place + 1])
    return Taken.of(places, gains)


def _finite(features_MF: NDArray[np.float32]) -> NDArray[np.bool_]:
    """The rows whose features are all numbers."""
    blocks = [np.isfinite(features_MF[i : i + CENTRES]).all(axis=1) for i in range(0, len(features_MF), CENTRES)]
    return np.concatenate([np.empty(0, bool), *blocks])


def _longest(features_NF: NDArray[np.float32], centre_F: Values) -> float:
    """The largest square of a length."""
    longest = 0.0
    for start in range(0, len(features_NF), CENTRES):
        x = features_NF[start : start + CENTRES] - centre_F
        squares = np.einsum("nf,nf->n", x, x)
        longest = max(longest, float(squares[np.isfinite(squares)].max(initial=0.0)))
    return longest
