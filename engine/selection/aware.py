"""Batch-aware selection from a run's shortlist: rows are taken for what they add to those taken before.

`batchbald`, `kcenter` and `badge` are functions on arrays, in modules of these names; here they get the shortlist's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from poolscore.engine.scores import Task
from poolscore.engine.selection.badge import badge, of_classes, of_labels
from poolscore.engine.selection.batchbald import ENOUGH, batchbald, probs_of
from poolscore.engine.selection.choice import Choice
from poolscore.engine.selection.greedy import Taken
from poolscore.engine.selection.groups import Room
from poolscore.engine.selection.kcenter import kcenter
from poolscore.engine.selection.methods import require_method
from poolscore.engine.selection.order import Places, Values
from poolscore.engine.selection.ranking import ranking_of
from poolscore.engine.shortlist.read import Shortlist

MOST_PASSES = 1000  # that are advised
BLOCK = 256  # rows whose probabilities are averaged at once


@dataclass(frozen=True)
class Picked:
    """A batch, in the order in which its rows were taken: the row of step i is the i-th."""

    places: Places  # in the shortlist's rows
    gains: Values  # what each added, see the method's module; NaN: nothing to compare with, or taken by `power`
    methods: tuple[str, ...]  # by which each was taken
    notes: tuple[str, ...]  # what is to be said of it

    @property
    def steps(self) -> NDArray[np.int64]:
        """From 1."""
        return np.arange(1, len(self.places) + 1)


def pick(shortlist: Shortlist, task: Task, choice: Choice, k: int, room: Room) -> Picked:
    """The batch by a batch-aware method. It depends on the rows, not on their order.

    Args:
        shortlist: of the run.
        task: of the run.
        choice: method, score, beta, seed, samples. The score decides the first row of `kcenter` without labelled rows,
            and what `power` takes once `batchbald` has taken its rows.
        k: rows to take.
        room: which rows of the shortlist may be taken; it is told of each.

    Returns:
        k rows; fewer where no more may be taken.

    Raises:
        ConfigError: the method is not defined for these outputs.
    """
    asked, k = k, min(k, shortlist.rows.num_rows)
    T = 0 if shortlist.log_probs_NTC is None else shortlist.log_probs_NTC.shape[1]
    require_method(choice.method, task, T, shortlist.shared_masks)
    rows = shortlist.rows
    keys_N = rows["key"].to_numpy()
    order_N = np.empty(rows.num_rows, np.int64)  # the place of each row in the order of keys, which breaks ties
    order_N[np.lexsort((rows["row_id"].to_numpy(), keys_N))] = np.arange(rows.num_rows)
    if choice.method == "batchbald":
        return _batchbald(shortlist, choice, k, asked, room, order_N)
    features_NF = shortlist.features_NF
    if choice.method == "kcenter":
        best = _best_first(rows, choice, "topk", room)
        taken = kcenter(features_NF, shortlist.centre_F, shortlist.labelled_MF, order_N, k, room, best)
    else:
        taken = badge(_factors(shortlist, task), features_NF, keys_N, order_N, k, room, choice.seed)
    return _result(taken, choice, asked)


def _batchbald(
    shortlist: Shortlist, choice: Choice, k: int, asked: int, room: Room, order_N: NDArray[np.int64]
) -> Picked:
    log_probs_NTC = shortlist.log_probs_NTC
    assert log_probs_NTC is not None
    T = log_probs_NTC.shape[1]
    found = batchbald(log_probs_NTC, order_N, k, room, samples=choice.samples, seed=choice.seed)
    notes: list[str] = []
    fill: list[int] = []
    if found.exact < len(found.places):
        drawn = len(found.places) - found.exact
        notes.append(
            f"batchbald: the first {found.exact} rows by exact joint entropies, the next {drawn} by {choice.samples} "
            "drawn outcomes"
        )
    if found.full:
        told = f"{len(found.places)} rows tell {found.gains.sum():.2f} of the {math.log(T):.2f} nats (ln T)"
        if found.gains.sum() >= ENOUGH * math.log(T):
            why = f"{told} that {T} passes can tell at most. {_more_passes(found.gains.sum() / len(found.places), k)}"
        else:
            why = f"{told}, and no other row that may be taken adds anything to them"
        notes.append(f"batchbald: {why}; the others are taken by power")
        for place in _best_first(shortlist.rows, choice, "power", room):
            if len(found.places) + len(fill) == k:
                break
            if room.open_N[place]:
                room.take(place)
                fill.append(place)
    return _result(found, choice, asked, fill, notes)


def _more_passes(gain: float, k: int) -> str:
    """How many passes would fill a batch of k rows that tell `gain` nats each, as those before did on average. Later
    rows tell less, so it is enough by a factor of two or so."""
    nats = k * gain / ENOUGH
    if nats > math.log(MOST_PASSES):
        return f"Not even {MOST_PASSES:,} passes fill a batch of {k:,}; badge, kcenter and power do"
    return f"About {math.ceil(math.exp(nats)):,} passes (passes.count) fill a batch of {k:,}"


def _result(taken: Taken, choice: Choice, asked: int, fill: Sequence[int] = (), notes: Sequence[str] = ()) -> Picked:
    places = np.concatenate([taken.places, np.array(fill, np.intp)])
    if len(places) < asked:
        caps = f" under the caps ({choice.caps}); wider ones may, or" if choice.caps else ";"
        less = (
            f"{choice.method}: {len(places)} of the {asked} rows asked for, for the shortlist holds no more that may be"
        )
        notes = [*notes, f"{less} taken{caps} a larger one may (shortlist.rows)"]
    gains = np.concatenate([taken.gains, np.full(len(fill), np.nan)])
    methods = (choice.method,) * len(taken.places) + ("power",) * len(fill)
    return Picked(places, gains, methods, tuple(notes))


def _best_first(rows: pa.Table, choice: Choice, method: str, room: Room) -> list[int]:
    """The open rows in the total order of a score-based method."""
    open_M = np.flatnonzero(room.open_N)
    scores, keys, row_ids = (rows[name].to_numpy()[open_M] for name in (choice.score, "key", "row_id"))
    among, values = ranking_of(method, choice.beta, choice.seed).at_least(scores, keys, -np.inf)
    best: list[int] = open_M[among[np.lexsort((row_ids[among], keys[among], -values))]].tolist()
    return best


def _factors(shortlist: Shortlist, task: Task) -> Values:
    """What `badge` needs of the probabilities."""
    log_probs_NTC = shortlist.log_probs_NTC
    assert log_probs_NTC is not None
    blocks = range(0, len(log_probs_NTC), BLOCK)
    if task is Task.MULTILABEL:
        means = [np.exp(log_probs_NTC[i : i + BLOCK].astype(np.float64)).mean(axis=1) for i in blocks]
        return of_labels(np.concatenate(means))
    return of_classes(np.concatenate([probs_of(log_probs_NTC[i : i + BLOCK]).mean(axis=1) for i in blocks]))
