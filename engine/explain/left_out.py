"""Why a scored row is not in a selection that it might have been in: an exclusion, a full group, no candidate.

Where each row has a place before any is taken (topk, power, softmax) a selection is a walk down that order: a row is
taken unless it is excluded or a group of its own is full. Groups only fill, so a row before the last one taken was kept
out by the list of exclusions or by a cap whose group the rows before it fill; which one, the selection itself tells.

Legend: R rows that are asked about, N rows of a selection.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from poolscore.engine.errors import PoolscoreError
from poolscore.engine.exclude import read_ids
from poolscore.engine.explain.find import Found
from poolscore.engine.keys import id_text
from poolscore.engine.run.directory import SELECTION, RunDirectory
from poolscore.engine.selection.caps import NEAR_DUPLICATES, PREDICTION
from poolscore.engine.selection.choice import Choice
from poolscore.engine.selection.control import CONTROL
from poolscore.engine.selection.groups import groupable
from poolscore.engine.selection.methods import AWARE
from poolscore.engine.selection.ranking import ranking_of
from poolscore.engine.selection.result import ABOUT
from poolscore.engine.words import amount


@dataclass(frozen=True)
class Terms:
    """What a selection was asked for."""

    method: str
    score: str
    k: int | None = None
    beta: float = 1.0
    seed: int = 0
    max_per_group: Mapping[str, int] = field(default_factory=dict)
    quotas: Mapping[str, int] = field(default_factory=dict)  # predicted class, as text
    exclude: str | None = None  # path of a list of ids
    complete: bool = True  # whether every shard was scored then

    @classmethod
    def of(cls, run: RunDirectory, file: str, metadata: Mapping[bytes, bytes] | None) -> Terms | None:
        """Of a selection, by its schema's metadata, and its manifest, or that of the run; None: they do not say it.

        Args:
            file: its name in the run directory.
        """
        asked: dict[str, Any] = {}
        if file == SELECTION:
            asked = Choice.of(run.config).manifest()
        else:
            with suppress(OSError, ValueError):
                asked = json.loads(run.storage.read(f"{file.removesuffix('.parquet')}.json"))
        asked |= json.loads((metadata or {}).get(ABOUT, b"{}"))
        if "method" not in asked:
            return None
        return cls(**{name: asked[name] for name in cls.__dataclass_fields__ if name in asked})

    @property
    def ranked(self) -> bool:
        """Whether a row has a place before any is taken, which its score and its key alone tell."""
        return self.method in ("topk", "power", "softmax")

    @property
    def from_shortlist(self) -> str | None:
        """What takes rows of the shortlist alone; None: nothing does."""
        if self.method in AWARE:
            return self.method
        return f"max_per_group {NEAR_DUPLICATES}" if NEAR_DUPLICATES in self.max_per_group else None

    @cached_property
    def caps(self) -> Sequence[tuple[str, str, int | None, int]]:
        """What each cap is called, its column, the class that it is of (None: every value), and its limit."""
        named = [(f"max_per_group {name}={n}", name, None, n) for name, n in self.max_per_group.items()]
        quotas = [(f"quota {number}={n}", PREDICTION, int(number), n) for number, n in self.quotas.items()]
        return [*(cap for cap in named if cap[1] != NEAR_DUPLICATES), *quotas]


class Walked:
    """A selection under its terms, as its rows come by, and some rows that may not be in it. Rows are known by key."""

    def __init__(self, terms: Terms, rows: Sequence[Found], id_column: str | None) -> None:
        self._terms, self._rows, self._id_column = terms, rows, id_column
        self._values_R = [_value_of(terms, row) for row in rows]
        self._passed_R = [False] * len(rows)  # whether a row that comes after it was taken
        self._in_group_RC = np.zeros((len(rows), len(terms.caps)), np.int64)  # rows before it in its group, by cap
        self._taken = 0
        self._several = False

    @property
    def columns(self) -> list[str]:
        """That `see` wants, beside those which every selection has."""
        return list(dict.fromkeys(column for _, column, _, _ in self._terms.caps))

    def see(self, table: pa.Table) -> None:
        """Rows of the selection."""
        control_N = pc.equal(table["method"], CONTROL).to_numpy(zero_copy_only=False)
        self._taken += len(table)
        self._several |= "run" in table.column_names
        for r, row in enumerate(self._rows):
            before_N = self._before(r, table)
            self._passed_R[r] |= bool((~before_N & ~control_N).any())
            for c, (_, column, number, _) in enumerate(self._terms.caps):
                own = groupable(row.row[column], column)[0]
                if own.is_valid and number in (None, own.as_py()):
                    same = pc.fill_null(pc.equal(groupable(table[column], column), own), False)
                    same_N = same.to_numpy(zero_copy_only=False)
                    self._in_group_RC[r, c] += np.count_nonzero(same_N & (before_N | control_N))

    def why(self, r: int, listed: bool | None) -> str | None:
        """Why one of the rows, which is not in the selection, is not; None: others came before it, or it is not known.

        Args:
            listed: whether it is on the run's shortlist; None: that is not known.
        """
        terms, value = self._terms, self._values_R[r]
        if self._excluded_R is not None and self._excluded_R[r]:
            return f"left out: its id is in --exclude {terms.exclude}"
        if self._several or (terms.ranked and value is None):
            return None  # its score there may be another run's, or is no finite number
        if terms.from_shortlist is not None and listed is False:
            return f"no candidate: it is not on the shortlist, whose rows alone {terms.from_shortlist} takes"
        all_taken = terms.k is not None and self._taken < terms.k
        if terms.ranked and not self._passed_R[r] and not all_taken:
            return None
        for (name, _, _, limit), rows in zip(terms.caps, self._in_group_RC[r].tolist(), strict=True):
            if rows >= limit:
                before = " before it" if terms.ranked else ""
                return f"left out by {name}: its group is full with {amount(rows, 'row')}{before}"
        return self._remains() if terms.ranked else None

    def _remains(self) -> str | None:
        """What may keep a row out that comes before others, where no list and no group of a column does."""
        terms, maybe = self._terms, []
        if terms.exclude is not None and self._excluded_R is None:
            maybe.append(f"its id is in --exclude {terms.exclude}, which cannot be read any more")
        if near := terms.max_per_group.get(NEAR_DUPLICATES):
            maybe.append(f"rows before it are like it (max_per_group {NEAR_DUPLICATES}={near})")
        if not terms.complete:
            maybe.append("its shard was not scored yet when the selection was made")
        return f"left out: {', or '.join(maybe)}" if maybe else None

    def _before(self, r: int, table: pa.Table) -> NDArray[np.bool_]:
        """[N] which rows come before one; all of them, where it has no place."""
        value, row = self._values_R[r], self._rows[r]
        if value is None:
            return np.ones(len(table), bool)
        by_chance = "perturbed_score" in table.column_names
        values_N = table["perturbed_score" if by_chance else "score"].to_numpy().astype(np.float64)
        keys_N, row_ids_N = table["key"].to_numpy(), table["row_id"].to_numpy()
        sooner_N = (keys_N < row.key) | ((keys_N == row.key) & (row_ids_N < row.row_id))
        before_N: NDArray[np.bool_] = (values_N > value) | ((values_N == value) & sooner_N)
        return before_N

    @cached_property
    def _excluded_R(self) -> NDArray[np.bool_] | None:
        """Which rows are in the list of exclusions; None: it cannot be read any more."""
        try:
            listed = read_ids(self._terms.exclude, self._id_column, "--exclude")
        except PoolscoreError:
            return None
        ids = [id_text(row.row["id"].combine_chunks(), "id")[0] for row in self._rows]
        return listed.contains(ids, np.array([row.key for row in self._rows], np.uint64))


def _value_of(terms: Terms, row: Found) -> float | None:
    """What a row is ranked by; None: it has no place before rows are taken, or none at all."""
    if not terms.ranked:
        return None
    scores, keys = row.row[terms.score].to_numpy(), np.array([row.key], np.uint64)
    _, values = ranking_of(terms.method, terms.beta, terms.seed).at_least(scores, keys, -np.inf)
    return float(values[0]) if len(values) else None
