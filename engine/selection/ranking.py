"""What rows are ranked by: the score itself, or the score with noise (stochastic batch acquisition).

Source: Kirsch, Farquhar, Atighehchian, Jesson, Branchaud-Charron, Gal 2021/2023, "Stochastic Batch Acquisition: A
Simple Baseline for Deep Active Learning" (TMLR). With scores s, ranks r (from 1) and noise e ~ Gumbel(0, 1/beta), the
k rows with the largest s + e (`softmax`), log s + e (`power`) or -log r + e (`softrank`) are k rows drawn one after
another without replacement, with probabilities proportional to exp(beta s), s^beta and r^-beta. Here all is multiplied
by beta, which changes no order: beta s + g, beta log s + g, -beta log r + g with g ~ Gumbel(0, 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from poolscore.engine.selection.order import Places, Values
from poolscore.kernels.gumbel import LARGEST, gumbel_may_reach, gumbel_of, log

METHODS = ("topk", "power", "softmax", "softrank")
SLACK = 1e-5  # relative, by which the odds of a row are called too high rather than too low


class Ranking(Protocol):
    """A method: values as a function of score and key alone. Small, because it travels."""

    needs_keys: bool
    exact: bool  # values are float32 numbers

    def most(self, best: float) -> float:
        """An upper bound of the values of rows whose largest score is `best`."""

    def at_least(
        self, scores_N: NDArray[np.float32], keys_N: NDArray[np.uint64] | None, edge: float
    ) -> tuple[Places, Values]:
        """The rows whose value, as float32, is at least `edge` (a float32), and their values. A score that is no finite
        number is never among them. Keys [N] are None where none are needed."""


@dataclass(frozen=True)
class ByScore:
    """`topk`."""

    needs_keys = False
    exact = True

    def most(self, best: float) -> float:
        """See Ranking."""
        return best

    def at_least(
        self, scores_N: NDArray[np.float32], keys_N: NDArray[np.uint64] | None, edge: float
    ) -> tuple[Places, Values]:
        """See Ranking."""
        places = np.flatnonzero(scores_N >= np.float32(edge))
        values = scores_N[places]
        finite = np.isfinite(values)
        if not finite.all():
            places, values = places[finite], values[finite]
        return places, values.astype(np.float64)


@dataclass(frozen=True)
class Noisy:
    """`softmax`: beta s + g; `power`: beta log s + g, where a score of 0 or less is -inf: last, by key."""

    method: str
    beta: float
    seed: int

    needs_keys = True
    exact = False

    def most(self, best: float) -> float:
        """See Ranking."""
        if not np.isfinite(best):
            return float(np.inf)
        return float(self._location(np.array([best]))[0]) + LARGEST

    def at_least(
        self, scores_N: NDArray[np.float32], keys_N: NDArray[np.uint64] | None, edge: float
    ) -> tuple[Places, Values]:
        """See Ranking."""
        assert keys_N is not None
        possible_N = np.isfinite(scores_N)
        if edge > -np.inf:  # most rows fall here, at the cost of the draw but not of its logarithms
            possible_N &= gumbel_may_reach(keys_N, self.seed, self._odds(scores_N, edge))
        places = np.flatnonzero(possible_N)
        values = self._location(scores_N[places].astype(np.float64)) + gumbel_of(keys_N[places], self.seed)
        enough = values.astype(np.float32) >= np.float32(edge)
        return places[enough], values[enough]

    def _location(self, scores_N: NDArray[np.float64]) -> Values:
        if self.method == "softmax":
            return self.beta * scores_N
        located = np.full(len(scores_N), -np.inf)
        positive = scores_N > 0
        located[positive] = self.beta * log(scores_N[positive])
        return located

    def _odds(self, scores_N: NDArray[np.float32], edge: float) -> NDArray[np.float64]:
        """At least exp(location - edge), which the exponential variate of a row must not exceed; NaN: not known."""
        scores = scores_N.astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            if self.method == "softmax":
                odds = np.exp(self.beta * scores - edge)
            else:
                odds = np.maximum(scores, 0) if self.beta == 1 else np.maximum(scores, 0) ** self.beta
                odds = odds * np.exp(-edge)
            widened: NDArray[np.float64] = odds * ((1 + SLACK) * (1 + SLACK * abs(edge)))
        return widened


def ranking_of(method: str, beta: float, seed: int) -> Ranking:
    """The ranking of a method. That of `softrank` is for the ranks, not the scores: see `softranks`; that of the
    batch-aware methods is of their candidates."""
    return Noisy(method, beta, seed) if method in ("power", "softmax") else ByScore()


def softranks(keys_N: NDArray[np.uint64], first_rank: int, beta: float, seed: int) -> Values:
    """-beta log r + g of rows in the total order, of which the first has the rank `first_rank` (from 1)."""
    ranks_N = np.arange(first_rank, first_rank + len(keys_N), dtype=np.float64)
    values: Values = gumbel_of(keys_N, seed) - beta * log(ranks_N)
    return values
