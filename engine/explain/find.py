"""Finding rows of a run, and how many of all scored rows come before them.

Columns of numbers are read part by part. Memory: one part for each thread; time: that of reading the key column of all
parts for an id, of one part for a row_id, and of the score columns of the parts that may hold a better row.

Legend: R rows that were asked for, S scores.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from poolscore.engine.keys import id_text, keys_of
from poolscore.engine.machine.cores import usable_cores
from poolscore.engine.run.directory import RunDirectory
from poolscore.engine.run.journal import ShardReport
from poolscore.engine.selection.parts import DTYPES, Part, Reader
from poolscore.engine.selection.threshold import Threads
from poolscore.engine.storage.patient import patience_of


@dataclass(frozen=True)
class Found:
    """A row of a part."""

    shard: int
    row_id: int
    key: int
    row: pa.Table  # one row, all its columns


@dataclass(frozen=True)
class Standing:
    """A score of a row, and its place among all scored rows in the total order."""

    score: str
    value: float
    rank: int | None  # from 1; None: the score is no finite number, which no selection takes
    of: int  # scored rows

    @property
    def share(self) -> float | None:
        """Of the scored rows, those up to and with this one: 0.01 is the best hundredth."""
        return None if self.rank is None else self.rank / self.of


@dataclass(frozen=True)
class Wanted:
    """Rows by one of their numbers."""

    column: str  # 'key' or 'row_id'
    values: tuple[int, ...]
    ids: tuple[bytes, ...] = ()  # that a row with such a key must have; a key alone may be another id's


@dataclass(frozen=True)
class Asked:
    """Rows whose places are wanted."""

    scores: tuple[str, ...]
    values: NDArray[np.float32]  # [R, S]
    keys: NDArray[np.uint64]  # [R]
    row_ids: NDArray[np.int64]  # [R]


class RunParts:
    """The committed parts of a run."""

    def __init__(self, run: RunDirectory) -> None:
        self.reports = run.reports()
        self.scored = sum(report.scored for report in self.reports.values())
        self.scores = next((tuple(report.best) for report in self.reports.values() if report.scored), ())
        self._storage = run.storage
        self._workers = Threads(max(usable_cores(), run.storage.at_once))

    def scored_rows(self, wanted: Wanted, shards: Iterable[int] | None = None) -> list[Found]:
        """Scored rows, by row_id; of these shards alone, where they are known."""
        return self._rows(wanted, [self._part(report) for report in self._reports_of(shards)])

    def rejected_rows(self, wanted: Wanted, shards: Iterable[int] | None = None) -> list[Found]:
        """Rows that could not be scored, with stage and error."""
        reports = self._reports_of(shards)
        return self._rows(wanted, [self._part_of(r, r.errors, r.rejected) for r in reports if r.errors is not None])

    def standings(self, rows: Sequence[Found]) -> list[tuple[Standing, ...]]:
        """The places of scored rows by each score."""
        values_RS = np.array([[row.row[name][0].as_py() for name in self.scores] for row in rows], np.float32)
        values_RS = values_RS.reshape(len(rows), len(self.scores))
        keys_R = np.array([row.key for row in rows], np.uint64)
        row_ids_R = np.array([row.row_id for row in rows], np.int64)
        asked = Asked(self.scores, values_RS, keys_R, row_ids_R)
        before_RS = np.zeros(values_RS.shape, np.int64)
        tasks = [(self._part(report), report.best) for report in self.reports.values() if report.scored]
        for found_RS in self._workers.map(_before, asked, tasks):
            before_RS += found_RS
        return [
            tuple(
                Standing(name, float(value), int(before) + 1 if np.isfinite(value) else None, self.scored)
                for name, value, before in zip(self.scores, values_S, before_S, strict=True)
            )
            for values_S, before_S in zip(values_RS, before_RS, strict=True)
        ]

    def _rows(self, wanted: Wanted, parts: Sequence[Part]) -> list[Found]:
        tasks = [part for part in parts if part.rows]
        found = [row for rows in self._workers.map(_matching, wanted, tasks) for row in rows]
        return sorted(found, key=lambda row: row.row_id)

    def _reports_of(self, shards: Iterable[int] | None) -> list[ShardReport]:
        return [self.reports[i] for i in (self.reports if shards is None else shards) if i in self.reports]

    def _part(self, report: ShardReport) -> Part:
        return self._part_of(report, report.scores, report.scored)

    def _part_of(self, report: ShardReport, name: str, rows: int) -> Part:
        return Part(report.shard, self._storage.path(name), 0, rows, np.inf, patience_of(self._storage))


def wanted_id(text: str) -> Wanted:
    """Rows with this id: text, a number as it is written, or the bytes of a hexadecimal 0x…"""
    ids = [text.encode("utf-8", "surrogateescape")]
    if text.startswith("0x"):
        with suppress(ValueError):
            ids.append(bytes.fromhex(text[2:]))
    return Wanted("key", tuple(keys_of(ids).tolist()), tuple(ids))


def _matching(reader: Reader, wanted: Wanted, part: Part) -> list[Found]:
    with reader.opened(part) as file:
        places = np.flatnonzero(np.isin(file.numbers(wanted.column), np.array(wanted.values, DTYPES[wanted.column])))
        if not len(places):
            return []
        table = file.columns(file.names()).take(pa.array(places))
    rows = [table.slice(i, 1) for i in range(len(places))]
    return [
        Found(part.number, row["row_id"][0].as_py(), row["key"][0].as_py(), row) for row in rows if _is(row, wanted)
    ]


def _is(row: pa.Table, wanted: Wanted) -> bool:
    """Whether its id is one that is wanted. A row without an id has a key of its path and row."""
    if not wanted.ids:
        return True
    value = id_text(row["id"].combine_chunks(), "id")[0]
    return value is None or (value.encode() if isinstance(value, str) else value) in wanted.ids


def _before(reader: Reader, asked: Asked, task: tuple[Part, dict[str, float]]) -> NDArray[np.int64]:
    """[R, S] how many rows of a part come before each row."""
    part, best = task
    before_RS = np.zeros(asked.values.shape, np.int64)
    open_RS = np.array([best.get(name, np.inf) for name in asked.scores], np.float32) >= asked.values
    if not open_RS.any():
        return before_RS
    with reader.opened(part) as file:
        for s in np.flatnonzero(open_RS.any(axis=0)):
            scores_N = file.numbers(asked.scores[s])
            for r in np.flatnonzero(open_RS[:, s]):
                value = asked.values[r, s]
                before_RS[r, s] = np.count_nonzero((scores_N > value) & (scores_N < np.inf))
                tied = np.flatnonzero(scores_N == value)
                if len(tied):
                    keys, row_ids = file.numbers("key")[tied], file.numbers("row_id")[tied]
                    same = keys == asked.keys[r]
                    first = (keys < asked.keys[r]) | (same & (row_ids < asked.row_ids[r]))
                    before_RS[r, s] += np.count_nonzero(first)
    return before_RS
