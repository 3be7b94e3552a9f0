"""How many near-duplicates a selection holds, by the features that shortlists keep. Needs no GPU, model or pool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poolscore.engine.errors import ConfigError, StoppedError
from poolscore.engine.run.directory import RunDirectory
from poolscore.engine.selection.caps import NEAR_DUPLICATES
from poolscore.engine.selection.near_duplicates import repeated
from poolscore.engine.selection.result import Batch
from poolscore.engine.shortlist.listing import Listing, look_at

MANY = 0.1  # share of near-duplicates above which the option that removes them is named
OPTION = f"--max-per-group {NEAR_DUPLICATES}=1"  # of `poolscore select`
SETTING = f"select.max_per_group: {{{NEAR_DUPLICATES}: 1}} in the configuration"


@dataclass(frozen=True)
class NearDuplicates:
    """What is known of a selection's near-duplicates."""

    rows: int  # of the selection
    known: int  # of them, those whose features a shortlist has
    repeated: int  # of these, those that have a near-duplicate before them in the selection
    capped: bool = False  # whether no more than one of each was to be taken
    why: str | None = None  # nothing is known
    lacks: str | None = None  # what is amiss with the shortlist that they are counted on

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> NearDuplicates:
        """The inverse of `to_json`."""
        names = ("rows", "known", "repeated", "capped", "why", "lacks")
        return cls(**{name: entry[name] for name in names if name in entry})  # older versions did not write all

    def to_json(self) -> dict[str, Any]:
        """For manifests and run.json."""
        return {**asdict(self), "rate": self.rate}

    @property
    def rate(self) -> float | None:
        """Share of the rows that are known; None: there are none."""
        return self.repeated / self.known if self.known else None

    @property
    def many(self) -> bool:
        """Whether something should be done about them."""
        return (self.rate or 0) > MANY

    def in_words(self, remedy: str = SETTING) -> str:
        """For people.

        Args:
            remedy: what takes one row of each; named where there are many.
        """
        if not self.known:
            return f"not known ({self.why})" if self.why else "not known (none of the rows is on a shortlist)"
        of = f"{self.known:,} rows" if self.known == self.rows else f"the {self.known:,} rows that are on a shortlist"
        text = f"{self.repeated:,} of {of} ({self.rate:.1%}) are like a row before them"
        text += f"; {remedy} takes one of each" if self.many and not self.capped else ""
        if self.lacks is not None:
            text += f"; the shortlist that tells it is not what it should be: {self.lacks}"
        return text


def near_duplicates_of(runs: Sequence[RunDirectory], batch: Batch) -> NearDuplicates:
    """The near-duplicates of a batch. Memory: twice the features of those of its rows that are on a shortlist, and
    those of one part; 8 bytes for each row of a shortlist.

    Args:
        runs: that it was selected from.
    """
    capped = batch.choice.caps.near_duplicates == 1
    found: list[_Listed] = []
    why = lacks = None
    for number, run in enumerate(runs):
        try:
            found.append(look_at(run, partial(_listed, batch, number, run)))
        except (ConfigError, StoppedError) as error:  # which must not lose the selection
            why = str(error)
            continue
        lacks = lacks or found[-1].lacks
    if not found:
        return NearDuplicates(batch.count, 0, 0, capped, why)
    centre_F = np.mean([of_run.centre_F for of_run in found], axis=0)
    features_NF = _in_order(found)
    count = int(repeated(features_NF, centre_F).sum())
    return NearDuplicates(batch.count, len(features_NF), count, capped, lacks=lacks)


@dataclass
class _Listed:
    """Those M rows of a batch that are on the shortlist of one run."""

    places_M: NDArray[np.int64]  # in the batch
    features_MF: NDArray[np.float32]
    centre_F: NDArray[np.float64]
    lacks: str | None  # see `Shortlist.lacks`


def _listed(batch: Batch, number: int, run: RunDirectory, listing: Listing) -> _Listed:
    of_run = np.array([part.run == number for part in batch.parts], bool)
    on_list = listing.rows["row_id"].to_numpy()
    places, row_ids, first = [np.empty(0, np.int64)], [np.empty(0, np.int64)], 0
    for block in batch.ranked():
        listed = np.flatnonzero(of_run[block["part"]] & np.isin(block["row_id"], on_list))
        places.append(first + listed)
        row_ids.append(block["row_id"][listed])
        first += len(block)
    features_MF = listing.features(np.concatenate(row_ids))
    return _Listed(np.concatenate(places), features_MF, listing.centre_F, listing.lacks(run.reports()))


def _in_order(found: list[_Listed]) -> NDArray[np.float32]:
    """The features of all runs' rows, in the order of the batch. Those of the runs are given up on the way."""
    if len(found) == 1:
        return found[0].features_MF
    order = np.argsort(np.argsort(np.concatenate([of_run.places_M for of_run in found])))
    features_NF = np.empty((len(order), found[0].features_MF.shape[1]), np.float32)
    while found:
        of_run = found.pop()
        order, places = np.split(order, [len(order) - len(of_run.places_M)])
        features_NF[places] = of_run.features_MF
    return features_NF
