"""Two runs side by side: how alike they rank the rows that both have, and what only one of them would label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from poolscore.engine.errors import ConfigError
from poolscore.engine.keys import IdSet
from poolscore.engine.machine.cores import usable_cores
from poolscore.engine.run.directory import RunDirectory
from poolscore.engine.selection.batch import selected
from poolscore.engine.selection.choice import Choice
from poolscore.engine.selection.parts import Part, Reader, parts_of
from poolscore.engine.selection.ranking import ByScore
from poolscore.engine.selection.runs import SortedRuns
from poolscore.engine.selection.threshold import Question, Threads, grouped
from poolscore.engine.selection.top import Scored, fill

SAMPLE = 1 << 20  # rows of the larger run that are correlated; of more rows, those with the smallest keys
MOST = 1_000_000  # largest k of the overlaps

Keyed = tuple[NDArray[np.uint64], NDArray[np.float32]]  # keys in their order, and scores


@dataclass(frozen=True)
class Overlap:
    """What the best k rows of both runs have in common."""

    k: int
    rows: int

    @property
    def share(self) -> float:
        """Of k."""
        return self.rows / self.k


@dataclass(frozen=True)
class Group:
    """Rows of a batch by the value of a kept column."""

    value: Any
    a: int
    b: int
    both: int


@dataclass(frozen=True)
class Comparison:
    """Two runs side by side."""

    scores: tuple[str, str]
    rows: tuple[int, int]  # scored
    id_columns: tuple[str | None, str | None]  # by which the rows are known; None: by path and row
    common: int  # rows, by key, among those that were looked at
    sampled: bool  # whether not all rows were looked at
    spearman: float | None  # over the common rows; None: there are fewer than two, or all scores of a run are the same
    overlaps: tuple[Overlap, ...]
    k: int  # of the batches
    by: str | None
    groups: tuple[Group, ...]  # of the batches, the commonest first
    only: pa.Table  # rows of one batch alone: run ('a' or 'b'), and the columns of a selection that both have

    def to_dict(self) -> dict[str, Any]:
        """For scripts; without the rows."""
        return {
            "scores": self.scores,
            "rows": self.rows,
            "id_columns": self.id_columns,
            "common": self.common,
            "sampled": self.sampled,
            "spearman": self.spearman,
            "overlaps": [{**asdict(overlap), "share": overlap.share} for overlap in self.overlaps],
            "k": self.k,
            "by": self.by,
            "groups": [asdict(group) for group in self.groups],
            "only_a": self.only_in("a"),
            "only_b": self.only_in("b"),
        }

    def only_in(self, run: str) -> int:
        """Rows that only this run's batch has."""
        return int(pc.sum(pc.equal(self.only["run"], run)).as_py() or 0)


def compare_runs(
    a: RunDirectory, b: RunDirectory, *, score: str | None = None, k: int | None = None, by: str | None = None
) -> Comparison:
    """Compare two runs by their stored scores; rows are the same where their keys are. Needs no GPU, model or pool.

    Memory: 12 bytes for each of SAMPLE rows of both runs, 32 for each of MOST rows, and the batches of k rows.

    Args:
        score: of both; default: what each was configured to select by.
        k: rows of the batches that are compared row by row; default: as `a` was configured.
        by: kept column, by which the batches are broken down.

    Raises:
        ConfigError: no such score or column, nothing is scored yet, or the runs have no row in common.
        StoppedError: a part cannot be read.
    """
    wanted = a.config.select.k if k is None else k
    sides = [_Side(run, Choice.of(run.config, score=score, k=wanted, method="topk")) for run in (a, b)]
    rows = (sides[0].scored.rows, sides[1].scored.rows)
    limit = (1 << 64) - 1 if max(rows) <= SAMPLE else int((SAMPLE / max(rows)) * 2.0**64)
    common, spearman = _correlation(*(side.sample(limit) for side in sides))
    if not common:
        raise ConfigError(_nothing_in_common(a, b))
    sizes = _sizes(min(MOST, *rows))
    best = [side.best(max(sizes, default=0)) for side in sides]
    batches = [side.batch(by) for side in sides]
    return Comparison(
        scores=(sides[0].choice.score, sides[1].choice.score),
        rows=rows,
        id_columns=(a.config.pool.id, b.config.pool.id),
        common=common,
        sampled=max(rows) > SAMPLE,
        spearman=spearman,
        overlaps=tuple(Overlap(size, _in_common(best[0][:size], best[1][:size])) for size in sizes),
        k=wanted,
        by=by,
        groups=_groups(batches[0], batches[1], by) if by else (),
        only=_only(*batches),
    )


def _nothing_in_common(a: RunDirectory, b: RunDirectory) -> str:
    """Why there is nothing to compare."""
    first, second = (f"the column '{run.config.pool.id}'" if run.config.pool.id else "path and row" for run in (a, b))
    if first != second:
        why = f"rows of the first are known by {first}, of the second by {second}"
    elif a.config.pool.id is None:
        why = "rows are known by path and row, and the pools have no path in common; name a column in pool.id"
    else:
        why = f"no value of {first} is in both: they are of different pools, or their ids were made anew"
    return f"{a.storage.root} and {b.storage.root}: no row is in both, so there is nothing to compare; {why}"


class _Side:
    """One of the two runs."""

    def __init__(self, run: RunDirectory, choice: Choice) -> None:
        self.run = run
        self.choice = choice
        reports = run.reports().values()
        if not reports:
            raise ConfigError(f"{run.storage.root}: no shard is scored yet, so there is nothing to compare")
        workers = Threads(max(usable_cores(), run.storage.at_once))
        self.scored = Scored(parts_of([(run.storage, reports)], choice.score), [0], workers)

    def sample(self, limit: int) -> Keyed:
        """Keys of at most `limit` and the scores of their rows; a key's first, where it occurs more than once."""
        tasks = grouped(self.scored.parts)
        found = list(self.scored.workers.map(_sample, (self.choice.score, limit), tasks))
        keys = np.concatenate([np.empty(0, np.uint64), *(keys for keys, _ in found)])
        scores = np.concatenate([np.empty(0, np.float32), *(scores for _, scores in found)])
        keys, places = np.unique(keys, return_index=True)
        return keys, scores[places]

    def best(self, k: int) -> NDArray[np.uint64]:
        """Keys of the best k rows, in their order."""
        with SortedRuns(k) as best:
            fill(best, self.scored, Question(self.choice.score, ByScore(), IdSet()), k)
            return np.concatenate([np.empty(0, np.uint64), *(rows["key"] for rows in best.merged())])

    def batch(self, by: str | None) -> pa.Table:
        """What this run would label."""
        config = self.run.config
        if by is not None and by not in config.pool.keep and by not in ("prediction", "confidence"):
            kept = ", ".join([*config.pool.keep, "prediction"])
            raise ConfigError(f"--by {by}: {self.run.storage.root} keeps no such column; it has: {kept}")
        with selected([self.run], config, self.choice) as batch:
            return pa.concat_tables(list(batch.tables())).combine_chunks()


def _sample(reader: Reader, wanted: tuple[str, int], parts: Sequence[Part]) -> Keyed:
    """Keys of at most a limit, and their scores, of the rows that have one."""
    score, limit = wanted
    all_keys, all_scores = [np.empty(0, np.uint64)], [np.empty(0, np.float32)]
    for part in parts:
        with reader.opened(part) as file:
            keys, scores = file.numbers("key"), file.numbers(score)
            places = np.flatnonzero((keys <= np.uint64(limit)) & np.isfinite(scores))
            all_keys.append(keys[places])
            all_scores.append(scores[places])
    return np.concatenate(all_keys), np.concatenate(all_scores)


def _correlation(a: Keyed, b: Keyed) -> tuple[int, float | None]:
    """How many keys both have, and Spearman's rank correlation of their scores; ties have the mean of their ranks."""
    common, in_a, in_b = np.intersect1d(a[0], b[0], assume_unique=True, return_indices=True)
    ranks_a, ranks_b = _ranks(a[1][in_a]), _ranks(b[1][in_b])
    spread = float(np.sqrt((ranks_a @ ranks_a) * (ranks_b @ ranks_b)))
    return len(common), float(ranks_a @ ranks_b) / spread if spread else None


def _ranks(scores_N: NDArray[np.float32]) -> NDArray[np.float64]:
    """Ranks about their mean."""
    _, which, counts = np.unique(scores_N, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - (counts - 1) / 2
    ranks: NDArray[np.float64] = middle[which] - (len(scores_N) + 1) / 2
    return ranks


def _sizes(most: int) -> list[int]:
    """10, 100, 1000, …"""
    return [10**power for power in range(1, 10) if 10**power <= most] or [most] * bool(most)


def _in_common(a: NDArray[np.uint64], b: NDArray[np.uint64]) -> int:
    return len(np.intersect1d(a, b))


def _groups(a: pa.Table, b: pa.Table, by: str) -> tuple[Group, ...]:
    both = a.filter(pc.is_in(a["key"], b["key"].combine_chunks()))
    counts = [_counts(table[by]) for table in (a, b, both)]
    groups = [Group(value, *(count.get(value, 0) for count in counts)) for value in {**counts[0], **counts[1]}]
    return tuple(sorted(groups, key=lambda group: (-group.a - group.b, str(group.value))))


def _counts(column: pa.ChunkedArray) -> Mapping[Any, int]:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_nested(column.type):
        raise ConfigError(f"--by: a column of type {column.type} has no groups")
    counted = pc.value_counts(column)
    return dict(zip(counted.field("values").to_pylist(), counted.field("counts").to_pylist(), strict=True))


def _only(a: pa.Table, b: pa.Table) -> pa.Table:
    """Rows of one batch alone, in their order."""
    parts = []
    for name, own, other in (("a", a, b), ("b", b, a)):
        rows = own.filter(pc.invert(pc.is_in(own["key"], other["key"].combine_chunks())))
        parts.append(rows.add_column(0, "run", pa.repeat(name, rows.num_rows)).replace_schema_metadata())
    shared = [f.name for f in parts[0].schema if f in parts[1].schema]
    return pa.concat_tables([part.select(shared) for part in parts])
