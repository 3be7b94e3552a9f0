"""How many near-duplicates a selection holds, by the features that shortlists keep. Needs no GPU, model or pool."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poolscore.engine.errors import ConfigError, StoppedError
from poolscore.engine.near_duplicates import repeated
from poolscore.engine.run.directory import RunDirectory
from poolscore.engine.selection.batch import Batch
from poolscore.engine.selection.caps import NEAR_DUPLICATES, Caps
from poolscore.engine.selection.order import Rows
from poolscore.engine.shortlist.read import Shortlist, read_shortlist

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
    """The near-duplicates of a batch. Memory: the features of the runs' shortlists, twice.

    Args:
        runs: that it was selected from.
    """
    capped = _capped(batch.choice.caps)
    listed: dict[int, Shortlist] = {}
    why = None
    for number, run in enumerate(runs):
        try:
            listed[number] = read_shortlist(run, passes=False)
        except (ConfigError, StoppedError) as error:  # which must not lose the selection
            why = str(error)
    if not listed:
        return NearDuplicates(batch.count, 0, 0, capped, why)
    run_of_part = np.array([part.run for part in batch.parts], np.intp)
    features_NF = _features(listed, batch.ranked(), run_of_part)
    centre_F = np.mean([shortlist.centre_F for shortlist in listed.values()], axis=0)
    count = int(repeated(features_NF, centre_F).sum())
    return NearDuplicates(batch.count, len(features_NF), count, capped)


def _capped(caps: Caps) -> bool:
    return caps.max_per_group.get(NEAR_DUPLICATES) == 1


def _features(
    listed: dict[int, Shortlist], blocks: Iterable[Rows], run_of_part: NDArray[np.intp]
) -> NDArray[np.float32]:
    """[N, F] of those rows that are on the shortlist of their run, in their order."""
    starts = np.cumsum([0, *(len(shortlist.features_NF) for shortlist in listed.values())])
    features_MF = np.concatenate([shortlist.features_NF for shortlist in listed.values()])
    row_ids = [shortlist.rows["row_id"].to_numpy() for shortlist in listed.values()]
    sorts = [np.argsort(of_run) for of_run in row_ids]
    places = [np.empty(0, np.intp)]
    for rows in blocks:
        found = np.full(len(rows), -1, np.intp)
        for number, start, of_run, sort in zip(listed, starts[:-1], row_ids, sorts, strict=True):
            at = np.searchsorted(of_run, rows["row_id"], sorter=sort)
            place = sort[np.minimum(at, len(sort) - 1)]
            here = (run_of_part[rows["part"]] == number) & (of_run[place] == rows["row_id"])
            found[here] = start + place[here]
        places.append(found[found >= 0])
    return features_MF[np.concatenate(places)]
