"""`badge`: a batch of rows that would change the last layer much, and each in another way.

Source: Ash, Zhang, Krishnamurthy, Langford, Agarwal 2020, "Deep Batch Active Learning by Diverse, Uncertain Gradient
Lower Bounds" (ICLR). The gradient of the loss by the last layer's weights, were the predicted class the label, is the
outer product a h of a = p - onehot(argmax p) and the features h; p is the mean over the passes. k-means++ over these
gradients: the first row is the one with the longest (as the authors' code has it), each other one is drawn with
probability proportional to the square of its distance to the nearest one taken before.

The products are never formed: |a h - b g|^2 = |a|^2 |h|^2 + |b|^2 |g|^2 - 2 (a.b)(h.g).

Of weights u, the row with the largest ln u + g, g ~ Gumbel(0, 1), is a draw with probabilities proportional to u. The
noise is of the row's key, the step and the seed, so that a draw depends neither on the order of the rows nor on the
machine; and an upper bound of u is one of ln u + g, so that few rows are looked at (see `greedy`).

Legend: N candidates, B of them, C classes (or outputs), F features.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from poolscore.engine.selection.greedy import Taken, best_open
from poolscore.engine.selection.groups import Room
from poolscore.engine.selection.order import Places, Values
from poolscore.kernels.gumbel import gumbel_of

STREAM = 0xBAD6E  # high half of the Philox key of the seeds of the steps
TIE = 1e-9  # of ln u
SAME = 1e-12  # of the squares of the lengths: a distance that float64 rounds to about this is none


class Gradients:
    """The gradients of the candidates, and how far each is from the nearest that was taken."""

    def __init__(self, factors_NC: Values, features_NF: NDArray[np.float32], most: int) -> None:
        self._factors_NC = factors_NC
        self._features_NF = features_NF
        self._lengths_N = np.square(factors_NC).sum(axis=1) * _squares(features_NF)
        self._taken_factors = np.empty((most, factors_NC.shape[1]))
        self._taken_features = np.empty((most, features_NF.shape[1]))
        self._taken_lengths = np.empty(most)
        self._seen_N = np.zeros(len(features_NF), np.int64)
        self.count = 0
        self.squares_N = self._lengths_N.copy()  # as if 0 had been taken; the distances replace it with the first row
        self.noise_N = np.zeros(len(features_NF))

    def add(self, place: int) -> None:
        """A row is taken."""
        self._taken_factors[self.count] = self._factors_NC[place]
        self._taken_features[self.count] = self._features_NF[place]
        self._taken_lengths[self.count] = self._lengths_N[place]
        self.count += 1
        if self.count == 1:
            self.squares_N[:] = np.inf
            self.squares_N[np.isnan(self._lengths_N)] = np.nan

    def bounds_N(self) -> Values:
        """Upper bounds of ln u + g."""
        return _log(self.squares_N) + self.noise_N

    def look(self, places: Places) -> tuple[Values, Values]:
        """Compare candidates with the rows taken that are new to them; see `best_open`."""
        new = slice(int(self._seen_N[places].min()), self.count)
        if new.start < new.stop:
            products = self._factors_NC[places] @ self._taken_factors[new].T
            products *= self._features_NF[places].astype(np.float64) @ self._taken_features[new].T
            lengths = self._lengths_N[places, None] + self._taken_lengths[new]
            squares = lengths - 2 * products
            squares[squares <= SAME * lengths] = 0
            self.squares_N[places] = np.minimum(self.squares_N[places], squares.min(axis=1))
            self._seen_N[places] = self.count
        values = _log(self.squares_N[places]) + self.noise_N[places]
        return values, values


def badge(
    factors_NC: Values,
    features_NF: NDArray[np.float32],
    keys_N: NDArray[np.uint64],
    order_N: NDArray[np.int64],
    k: int,
    room: Room,
    seed: int,
) -> Taken:
    """Up to k candidates, in the order in which they were taken.

    Args:
        factors_NC: float64 [N, C], a: see `of_classes` and `of_labels`.
        features_NF: float32 [N, F], what the last layer is applied to.
        keys_N: uint64 [N], by which the noise is drawn.
        order_N: int64 [N]; of candidates of one key, or that are all like those taken, the one with the least is taken.
        k: rows.
        room: which candidates may be taken; it is told of each.
        seed: 64 bits.

    Returns:
        Gains are distances of gradients to the nearest one taken before; of the first row, the length of its own.

    Memory: 8 bytes for each feature of k rows, and of 4,096 rows at work.
    """
    places: list[int] = []
    gains: list[float] = []
    gradients = Gradients(factors_NC, features_NF, k)
    for step_seed in np.random.Philox(key=seed | STREAM << 64).random_raw(k).tolist():
        if gradients.count:
            gradients.noise_N = gumbel_of(keys_N, step_seed)
        found = best_open(gradients.bounds_N(), room.open_N, order_N, gradients.look, TIE)
        if found is None:
            break
        place, _ = found
        places.append(place)
        gains.append(float(np.sqrt(gradients.squares_N[place])))
        room.take(place)
        gradients.add(place)
    return Taken.of(places, gains)


def of_classes(probs_NC: Values) -> Values:
    """a = p - onehot(argmax p); of several classes with the largest p, the first."""
    factors = probs_NC.copy()
    factors[np.arange(len(factors)), probs_NC.argmax(axis=1)] -= 1
    return factors


def of_labels(probs_NC: Values) -> Values:
    """The same of multilabel tasks, where each p is of a label or of its absence: a = p - [p > 1/2]."""
    return probs_NC - (probs_NC > 0.5)


def _squares(features_NF: NDArray[np.float32]) -> Values:
    squares: Values = np.einsum("nf,nf->n", features_NF, features_NF, dtype=np.float64)
    return squares


def _log(squares_N: Values) -> Values:
    with np.errstate(divide="ignore"):
        logs: Values = np.log(squares_N)
    return logs
