"""What the shortlist knows of a row: what the T passes said, and which rows of the batch are like it.

Legend: T passes, C columns: the classes, labels or outputs of the task.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poolscore.engine.explain.picked import ranks_in_batch
from poolscore.engine.run.directory import RunDirectory
from poolscore.engine.scores import Task
from poolscore.engine.selection.near_duplicates import ALIKE, cosines
from poolscore.engine.shortlist.listing import Listing

TOP = 5  # columns
NEAREST = 5  # rows of the batch


@dataclass(frozen=True)
class Column:
    """A class, label or output over the passes."""

    number: int
    mean: float  # probability; regression: output
    std: float  # over the passes
    votes: int | None  # passes for it: whose most likely class it is, or that say yes to the label; None: regression
    by_pass: tuple[float, ...]


@dataclass(frozen=True)
class Passes:
    """What the passes said."""

    task: Task
    count: int
    columns: tuple[Column, ...]  # those with the largest mean probability; regression: the first outputs
    more: int  # columns beside them
    says: tuple[int, ...] | None  # most likely class of each pass; None: multilabel and regression


@dataclass(frozen=True)
class Neighbour:
    """A row of the run's own batch, by how alike its features are."""

    id: Any
    row_id: int
    rank: int  # in the batch
    cosine: float

    @property
    def near_duplicate(self) -> bool:
        """Whether labelling both teaches little more than labelling one."""
        return self.cosine >= ALIKE


@dataclass(frozen=True)
class OnShortlist:
    """A row of the shortlist."""

    passes: Passes
    neighbours: tuple[Neighbour, ...]  # NEAREST rows of the batch, the most alike first; not the row itself


def on_shortlist(run: RunDirectory, listing: Listing, row_id: int) -> OnShortlist | None:
    """What the shortlist knows of a row; None: it is not there. Memory: the features of the rows of the run's batch,
    and the passes of one part.

    Raises:
        StoppedError: it cannot be read.
    """
    row_ids_N = listing.rows["row_id"].to_numpy()
    if row_id not in row_ids_N:
        return None
    ranks = ranks_in_batch(run, row_ids_N)
    near = np.array([int(i) for i in row_ids_N if int(i) in ranks or i == row_id], np.int64)
    cosine_N = cosines(listing.features(near), listing.centre_F, int(np.flatnonzero(near == row_id)[0]))
    alike = [i for i in np.argsort(-cosine_N, kind="stable").tolist() if int(near[i]) != row_id]
    ids = dict(zip(row_ids_N.tolist(), listing.rows["id"].to_pylist(), strict=True))
    neighbours = [
        Neighbour(ids[row], row, ranks[row], float(cosine_N[i]))
        for i, row in ((i, int(near[i])) for i in alike[:NEAREST])
    ]
    return OnShortlist(passes_of(*listing.passes(row_id), run.config.model.task), tuple(neighbours))


def passes_of(wide_TC: NDArray[np.float32], log_probs: bool, task: Task) -> Passes:
    """What the passes said of a row.

    Args:
        wide_TC, log_probs: see `Listing.passes`.
    """
    if not log_probs:
        values_TC = wide_TC.astype(np.float64)
        return _passes(task, values_TC, np.arange(values_TC.shape[1]), None, None)
    probabilities_TC = np.exp(wide_TC.astype(np.float64))
    if task is Task.MULTILABEL:
        probabilities_TC = probabilities_TC[:, : probabilities_TC.shape[1] // 2]  # behind them are those of 'no'
        votes_C, says_T = (probabilities_TC > 0.5).sum(axis=0), None
    else:
        says_T = probabilities_TC.argmax(axis=1)
        votes_C = np.bincount(says_T, minlength=probabilities_TC.shape[1])
    order = np.argsort(-probabilities_TC.mean(axis=0), kind="stable")
    return _passes(task, probabilities_TC, order, votes_C, says_T)


def _passes(
    task: Task,
    values_TC: NDArray[np.float64],
    order: NDArray[np.intp],
    votes_C: NDArray[np.intp] | None,
    says_T: NDArray[np.intp] | None,
) -> Passes:
    mean_C, std_C = values_TC.mean(axis=0), values_TC.std(axis=0)
    columns = tuple(
        Column(
            number=c,
            mean=float(mean_C[c]),
            std=float(std_C[c]),
            votes=None if votes_C is None else int(votes_C[c]),
            by_pass=tuple(values_TC[:, c].tolist()),
        )
        for c in order[:TOP].tolist()
    )
    says = None if says_T is None else tuple(says_T.tolist())
    return Passes(task, len(values_TC), columns, max(0, len(order) - TOP), says)
