"""The rows of a run's shortlist as the only candidates, and their near-duplicates as groups under a limit above 1."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from poolscore.engine.run.directory import RunDirectory
from poolscore.engine.selection.caps import NEAR_DUPLICATES, NO_CAPS
from poolscore.engine.selection.choice import Choice
from poolscore.engine.selection.groups import ALONE, Closing, Groups, Tally
from poolscore.engine.selection.near_duplicates import clusters
from poolscore.engine.selection.order import Places, Values, among
from poolscore.engine.selection.ranking import METHODS, Ranking
from poolscore.engine.shortlist.read import Shortlist, require_about


@dataclass(frozen=True)
class Listed:
    """A ranking of some rows only."""

    ranking: Ranking
    keys: NDArray[np.uint64]  # of the rows, sorted

    needs_keys = True
    exact = False  # a part's best row need not be listed

    def most(self, best: float) -> float:
        """See Ranking."""
        return self.ranking.most(best)

    def at_least(
        self, scores_N: NDArray[np.float32], keys_N: NDArray[np.uint64] | None, edge: float
    ) -> tuple[Places, Values]:
        """See Ranking."""
        assert keys_N is not None
        places = np.flatnonzero(among(keys_N, self.keys))
        found, values = self.ranking.at_least(scores_N[places], keys_N[places], edge)
        return places[found], values


@dataclass(frozen=True)
class Clusters:
    """Clusters of near-duplicates among the rows of a shortlist."""

    row_ids: NDArray[np.int64]  # sorted
    numbers: NDArray[np.int64]
    limit: int  # rows of one cluster in a batch

    @classmethod
    def of(cls, shortlist: Shortlist, row_ids_M: NDArray[np.int64], limit: int) -> Clusters:
        """Clusters made in this order: a row is in the cluster of the first row that it resembles and that is in no
        other's. Rows of two clusters may be alike, but not the first of each.

        Args:
            row_ids_M: others than the shortlist's, and what comes again, are passed over.
        """
        _, first = np.unique(row_ids_M, return_index=True)
        in_order = row_ids_M[np.sort(first)]
        listed = shortlist.rows["row_id"].to_numpy()
        by_row = np.argsort(listed)
        in_order = in_order[np.isin(in_order, listed)]
        features = shortlist.features_NF[by_row[np.searchsorted(listed, in_order, sorter=by_row)]]
        numbers = clusters(features, shortlist.centre_F)
        sort = np.argsort(in_order)
        return cls(in_order[sort], numbers[sort], limit)

    def holds(self, row_ids_N: NDArray[np.int64]) -> NDArray[np.bool_]:
        """See Alike."""
        return np.isin(row_ids_N, self.row_ids)

    def closing(self, row_ids_N: NDArray[np.int64], taken: Tally) -> Closing:
        """See Alike."""
        numbers_N = self._of_rows(row_ids_N)
        return Groups(pa.array(numbers_N, mask=numbers_N == ALONE), self.limit, taken[NEAR_DUPLICATES])

    def _of_rows(self, row_ids_N: NDArray[np.int64]) -> NDArray[np.int64]:
        """int64 [N]: number of the cluster of each row; ALONE: it is not on the shortlist."""
        numbers = np.full(len(row_ids_N), ALONE, np.int64)
        held = self.holds(row_ids_N)
        numbers[held] = self.numbers[np.searchsorted(self.row_ids, row_ids_N[held])]
        return numbers


def candidates(shortlist: Shortlist) -> NDArray[np.uint64]:
    """The keys of the rows that are on a shortlist for their score, not only as control rows; sorted."""
    keys: NDArray[np.uint64] = shortlist.rows["key"].filter(pc.is_valid(shortlist.rows["rank"])).to_numpy()
    return np.sort(keys)


def ranked_otherwise(run: RunDirectory, choice: Choice) -> dict[str, Any]:
    """By what the rows of a run's shortlist are the best: method and score, by chance also beta and seed. Empty: by
    what is asked for."""
    of = require_about(run)["wanted"]["of"]
    method = choice.method if choice.method in METHODS else "topk"
    asked = replace(choice, method=method, caps=NO_CAPS, control=0.0).manifest()
    if all(of.get(name) == value for name, value in asked.items() if name != "k"):
        return {}
    return {name: of[name] for name in ("method", "score", "beta", "seed") if name in of}
