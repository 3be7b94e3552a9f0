"""`batchbald`: the batch whose labels together tell most of the model, taken greedily.

Source: Kirsch, van Amersfoort, Gal 2019, "BatchBALD: Efficient and Diverse Batch Acquisition for Deep Bayesian Active
Learning" (NeurIPS). With passes w_t (t = 1..T), which are equally likely, a batch is worth

    I(y_1..y_m; w) = H(y_1..y_m) - sum_i E_t H(y_i | w_t)   nats,

at most ln T: nothing is left to learn once it is known which pass is right. Here it is summed from what each row adds,

    I(y_x; w | y_1..y_m) = sum_o p(o) [ H(sum_t p(t | o) p(y_x | w_t)) - sum_t p(t | o) H(y_x | w_t) ],

where o runs over the outcomes: all C^m labels of the rows taken, or labels drawn from their joint distribution. For
all outcomes that is the same number, without taking large entropies from each other; for drawn ones it is the paper's
estimate with a control variate (the expected entropy, whose mean is known), and each term is 0 or more.

Drawn outcomes are kept, and get a label of each row that is taken: it is drawn from p(y | w_t) of the pass t that the
outcome was drawn under, which is its conditional given that pass and the labels before. So the longer outcomes are as
good a sample of the longer joint distribution as new ones, at a cost that does not grow with the rows taken. They all
weigh the same for ever (no importance weights that could degenerate), therefore they are never redrawn. The price: rows
are chosen by the same draws that judge the next ones, so the noise of the gains of a batch is not independent from step
to step. It stays within the standard errors of an estimate by draws that had no part in the choice (tested).

Legend: N candidates, B of them, T passes, C classes, M outcomes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from poolscore.engine.selection.greedy import LARGEST_BLOCK, Taken, best_open
from poolscore.engine.selection.groups import Room
from poolscore.engine.selection.order import Places, Values

EXACT_BYTES = 8 << 20  # of p(t | o): outcomes are drawn where all of them would take more, and much longer
BLOCK_BYTES = 2 << 20  # of p(y_x | o) at work at once: fits into a core's cache
PROBS_BYTES = 32 << 20  # of p(y_x | w_t) of the candidates at work
TIE = 1e-9  # nats; rounding is a thousand times smaller
ERRORS = 5  # standard errors of an estimate that count as possible
ENOUGH = 0.95  # of ln T: what is left is not worth looking for
LEAST = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True)
class Outcomes:
    """What the labels of the rows taken may be, and what each outcome tells of the passes."""

    weights: Values  # [M], p(o); their sum is 1
    posterior: Values  # [M, T], p(t | o)
    drawn: bool = False


@dataclass(frozen=True)
class BatchBald(Taken):
    """The batch, which may be shorter than wanted."""

    exact: int  # rows that were taken by exact joint entropies; the others by drawn outcomes
    full: bool  # it tells ENOUGH of ln T, or no open candidate adds to it


def batchbald(
    log_probs_NTC: NDArray[np.float32], order_N: NDArray[np.int64], k: int, room: Room, *, samples: int, seed: int
) -> BatchBald:
    """The batch of up to k candidates, in the order in which they were taken.

    Of the exact gains only those are computed that may be the largest (see `greedy`). Estimated ones are no strict
    upper bounds of later ones, so ERRORS of their standard errors are added: a candidate is passed over only where even
    that much is less than what the best one is estimated at.

    Args:
        log_probs_NTC: float32 or float64 [N, T, C], ln p(y | w_t); the same pass is the same network for all rows.
        order_N: int64 [N]; of candidates that are worth the same, the one with the least is taken.
        k: rows.
        room: which candidates may be taken; it is told of each.
        samples: outcomes that are drawn (rounded up to a multiple of T) once EXACT_BYTES do not hold them all.
        seed: 64 bits, of the draws.

    Returns:
        Gains in nats; their sum is I(y_1..y_m; w). NaN probabilities are never taken.

    Memory: EXACT_BYTES or twice samples * T * 8 bytes, PROBS_BYTES and BLOCK_BYTES; more only where one candidate takes
    more.
    """
    N, T, C = log_probs_NTC.shape
    bounds_N = np.full(N, np.inf)
    outcomes = Outcomes(np.ones(1), np.full((1, T), 1 / T))
    places: list[int] = []
    gains: list[float] = []
    exact = 0
    largest_block = max(1, min(LARGEST_BLOCK, PROBS_BYTES // (8 * T * C)))
    while len(places) < k and sum(gains) < ENOUGH * math.log(T):
        look = partial(_look, outcomes, log_probs_NTC)
        found = best_open(bounds_N, room.open_N, order_N, look, TIE, largest_block)
        if found is None:
            return _made(places, gains, exact, full=False)
        place, gain = found
        if gain <= TIE:
            return _made(places, gains, exact, full=True)
        exact += not outcomes.drawn
        places.append(place)
        gains.append(gain)
        room.take(place)
        outcomes = _with(outcomes, log_probs_NTC, places, samples, seed)
    return _made(places, gains, exact, full=len(places) < k)


def _made(places: list[int], gains: list[float], exact: int, full: bool) -> BatchBald:
    return BatchBald(np.array(places, np.intp), np.array(gains, np.float64), exact, full)


def probs_of(log_probs_BTC: NDArray[np.floating]) -> Values:
    """Probabilities in float64. Those of float32 sum to 1 within 1e-7 only, by which entropies would not be
    submodular."""
    probs = np.exp(log_probs_BTC.astype(np.float64))
    probs /= probs.sum(axis=2, keepdims=True)
    return probs


def gains_of(outcomes: Outcomes, probs_BTC: Values) -> tuple[Values, Values]:
    """What each candidate adds, in nats, and the standard error of that over the outcomes."""
    B, T, C = probs_BTC.shape
    probs_TCB = np.ascontiguousarray(probs_BTC.transpose(1, 2, 0))
    flat, expected_TB = probs_TCB.reshape(T, C * B), _entropies(probs_TCB)
    mean, square = np.zeros(B), np.zeros(B)
    rows = max(1, BLOCK_BYTES // (8 * C * B))
    for start in range(0, len(outcomes.weights), rows):
        weights, posterior = outcomes.weights[start : start + rows], outcomes.posterior[start : start + rows]
        told = _entropies((posterior @ flat).reshape(-1, C, B))
        told -= posterior @ expected_TB
        mean += weights @ told
        if outcomes.drawn:
            square += weights @ np.square(told, out=told)
    variance = np.maximum(square - mean * mean, 0) if outcomes.drawn else np.zeros(B)
    return mean, np.sqrt(variance / len(outcomes.weights))


def all_outcomes(outcomes: Outcomes, probs_TC: Values) -> Outcomes:
    """The outcomes with each label of one more row; those that cannot be are left out."""
    joint_MT = outcomes.weights[:, None] * outcomes.posterior
    joint_MT = (joint_MT[:, None, :] * probs_TC.T).reshape(-1, len(probs_TC))
    weights_M = joint_MT.sum(axis=1)
    possible = weights_M > 0
    weights_M, joint_MT = weights_M[possible], joint_MT[possible]
    joint_MT /= weights_M[:, None]
    return Outcomes(weights_M, joint_MT)


def drawn_outcomes(probs_mTC: Values, samples: int, seed: int) -> Outcomes:
    """Labels of m rows, drawn from their joint distribution: as many under each pass, `samples` or up to T - 1 more."""
    T = probs_mTC.shape[1]
    M = T * -(-samples // T)
    outcomes = Outcomes(np.full(M, 1 / M), np.full((M, T), 1 / T), drawn=True)
    for step, probs_TC in enumerate(probs_mTC):
        outcomes = with_drawn_label(outcomes, probs_TC, step, seed)
    return outcomes


def with_drawn_label(outcomes: Outcomes, probs_TC: Values, step: int, seed: int) -> Outcomes:
    """The drawn outcomes with a label of one more row, the one taken in `step` (from 0).

    Outcome o is drawn under pass o * T // M, to its end: given the pass, labels are independent of each other. Each
    step has a stream of its own. p(t | o) is brought back to sum 1 in each, so hundreds of factors do not underflow:
    only passes do that are 1e-300 times as likely as others, and an outcome's own pass never is.
    """
    M, T = outcomes.posterior.shape
    draws_TD = np.random.Generator(np.random.Philox(key=seed | step << 64)).random((T, M // T))
    edges_TC = probs_TC.cumsum(axis=1)[:, :-1]
    labels = [
        np.searchsorted(edges_C, draws_D, side="right") for edges_C, draws_D in zip(edges_TC, draws_TD, strict=True)
    ]
    posterior_MT = probs_TC.T.take(np.concatenate(labels), axis=0)
    posterior_MT *= outcomes.posterior
    posterior_MT /= posterior_MT.sum(axis=1, keepdims=True)
    return Outcomes(outcomes.weights, posterior_MT, drawn=True)


def _look(outcomes: Outcomes, log_probs_NTC: NDArray[np.floating], places: Places) -> tuple[Values, Values]:
    gains, errors = gains_of(outcomes, probs_of(log_probs_NTC[places]))
    return gains, gains + ERRORS * errors


def _with(
    outcomes: Outcomes, log_probs_NTC: NDArray[np.floating], places: list[int], samples: int, seed: int
) -> Outcomes:
    """The outcomes for the rows at `places`; `outcomes` are those of all but the last."""
    C = log_probs_NTC.shape[2]
    last_TC = probs_of(log_probs_NTC[places[-1:]])[0]
    if outcomes.drawn:
        return with_drawn_label(outcomes, last_TC, len(places) - 1, seed)
    if outcomes.posterior.nbytes * C <= EXACT_BYTES:
        return all_outcomes(outcomes, last_TC)
    return drawn_outcomes(probs_of(log_probs_NTC[places]), samples, seed)


def _entropies(probs_MCB: Values) -> Values:
    """H over C, [M, B], where 0 ln 0 = 0."""
    logs = np.log(np.maximum(probs_MCB, LEAST))
    logs *= probs_MCB
    entropies: Values = -logs.sum(axis=1)
    return entropies
