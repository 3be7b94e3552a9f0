"""Several runs as one: which of them may be mixed, and which of an id's rows counts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from poolscore.engine.errors import ConfigError
from poolscore.engine.identity import OF_ROWS, differences
from poolscore.engine.run.directory import RunDirectory
from poolscore.engine.selection.order import Rows, among
from poolscore.engine.selection.parts import Part, Reader
from poolscore.engine.selection.threshold import Workers, grouped

Keys = NDArray[np.uint64]
# Entries of a run's identity that say which rows were scored, not how.
WHICH_ROWS = (*OF_ROWS, "pool.filter", "pool.sample", "pool.keep")


def require_alike(runs: Sequence[RunDirectory]) -> None:
    """Refuse runs whose scores cannot be compared.

    Raises:
        ConfigError: names what differs.
    """
    first = runs[0]
    for run in runs[1:]:
        here, there = first.info["identity"], run.info["identity"]
        # Either may be of an older version, which lacks settings: they have their defaults there.
        different = set(differences(here, there, run.config, WHICH_ROWS))
        different &= set(differences(there, here, first.config, WHICH_ROWS))
        if different:
            named = ", ".join(sorted(different))
            raise ConfigError(
                f"{run.storage.root} and {first.storage.root} differ in {named}: their scores cannot be compared; "
                "select from each of them"
            )
        uris = [each.config.pool.uri.rstrip("/") for each in (run, first)]
        if run.config.pool.id is None and uris[0] != uris[1]:
            raise ConfigError(
                f"{run.storage.root} and {first.storage.root}: without pool.id a row is known by its path in pool.uri, "
                f"which is {uris[0]} and {uris[1]}, so that rows of two pools could pass for one; give pool.id, or "
                "select from each of them"
            )


def ages_of(runs: Sequence[RunDirectory]) -> list[int]:
    """The place of each run in the order in which they were created; runs of the same second are in the order given."""
    created = [datetime.fromisoformat(run.info["created"]) for run in runs]
    ages = [0] * len(runs)
    for age, run in enumerate(sorted(range(len(runs)), key=lambda run: created[run])):
        ages[run] = age
    return ages


class Newest:
    """Of the rows of an id that several runs have, the newest run's. Memory: 8 bytes for each row that is looked at."""

    def __init__(self, ages: Sequence[int]) -> None:
        self._ages = ages
        self._seen: dict[int, list[Keys]] = {run: [] for run, age in enumerate(ages) if age < len(ages) - 1}
        self._stale: dict[int, Keys] = {}

    def see(self, rows: Rows, run_of_part: NDArray[np.intp]) -> None:
        """Take note of rows."""
        runs = run_of_part[rows["part"]]
        for run, seen in self._seen.items():
            seen.append(rows["key"][runs == run])

    def look(self, parts: Sequence[Part], workers: Workers) -> None:
        """Find out which of the rows that were seen a newer run has, too."""
        for run, seen in self._seen.items():
            keys = np.unique(np.concatenate([np.empty(0, np.uint64), *seen]))
            newer = [part for part in parts if self._ages[part.run] > self._ages[run]] if len(keys) else []
            found = workers.map(_common, keys, grouped(newer))
            self._stale[run] = np.unique(np.concatenate([np.empty(0, np.uint64), *found]))

    def of(self, blocks: Iterator[Rows], run_of_part: NDArray[np.intp]) -> Iterator[Rows]:
        """The rows without those that a newer run has."""
        for rows in blocks:
            runs = run_of_part[rows["part"]]
            keep = np.ones(len(rows), bool)
            for run, stale in self._stale.items():
                keep &= (runs != run) | ~among(rows["key"], stale)
            yield rows[keep]


def _common(reader: Reader, sorted_keys: Keys, parts: Sequence[Part]) -> Keys:
    """Which of the keys these parts have."""
    found = [np.empty(0, np.uint64)]
    for part in parts:
        with reader.opened(part) as file:
            keys = file.numbers("key")
        found.append(keys[among(keys, sorted_keys)])
    return np.unique(np.concatenate(found))
