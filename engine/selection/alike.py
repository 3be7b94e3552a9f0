"""How many near-duplicates a selection holds, by the features that shortlists keep. Needs no GPU, model or pool."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poolscore.engine.errors import ConfigError, StoppedError
from poolscore.engine.near_duplicates import repeated
from poolscore.engine.run.directory import RunDirectory
from poolscore.engine.selection.batch import Batch
from poolscore.engine.selection.caps import NEAR_DUPLICATES
from poolscore.engine.shortlist.listing import Listing

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

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> NearDuplicates:
        """The inverse of `to_json`."""
        return cls(*(entry[name] for name in ("rows", "known", "repeated", "capped", "why")))

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
        return f"{text}; {remedy} takes one of each" if self.many and not self.capped else text


def near_duplicates_of(runs: Sequence[RunDirectory], batch: Batch) -> NearDuplicates:
    """The near-duplicates of a batch. Memory: twice the features of those of its rows that are on a shortlist, and
    those of one part; 8 bytes for each row of a shortlist.

    Args:
        runs: that it was selected from.
    """
    capped = batch.choice.caps.near_duplicates == 1
    listings: dict[int, Listing] = {}
    why = None
    for number, run in enumerate(runs):
        try:
            listings[number] = Listing(run)
        except (ConfigError, StoppedError) as error:  # which must not lose the selection
            why = str(error)
    run_of_N, row_ids_N = _listed(listings, batch)
    features_NF, known_N = np.empty((len(run_of_N), 0), np.float32), np.zeros(len(run_of_N), bool)
    centres: list[NDArray[np.float64]] = []
    for number, listing in listings.items():
        of_run = run_of_N == number
        try:
            centre_F, features_MF = listing.centre_F, listing.features(row_ids_N[of_run])
        except StoppedError as error:
            why = str(error)
            continue
        if not centres:
            features_NF = np.empty((len(run_of_N), len(centre_F)), np.float32)
        centres.append(centre_F)
        features_NF[of_run], known_N[of_run] = features_MF, True
    if not centres:
        return NearDuplicates(batch.count, 0, 0, capped, why)
    if not known_N.all():
        features_NF = features_NF[known_N]
    count = int(repeated(features_NF, np.mean(centres, axis=0)).sum())
    return NearDuplicates(batch.count, len(features_NF), count, capped)


def _listed(listings: Mapping[int, Listing], batch: Batch) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """Run and row_id of those rows of a batch that are on the shortlist of their run, in their order."""
    run_of_part = np.array([part.run for part in batch.parts], np.intp)
    row_ids = {number: listing.rows["row_id"].to_numpy() for number, listing in listings.items()}
    runs, rows = [np.empty(0, np.intp)], [np.empty(0, np.int64)]
    for block in batch.ranked() if listings else ():
        run_of_row, listed = run_of_part[block["part"]], np.zeros(len(block), bool)
        for number, of_run in row_ids.items():
            listed |= (run_of_row == number) & np.isin(block["row_id"], of_run)
        runs.append(run_of_row[listed])
        rows.append(block["row_id"][listed])
    return np.concatenate(runs), np.concatenate(rows)
