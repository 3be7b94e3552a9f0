"""Step 7: the batch to label, as a pure function of the committed scores. Needs no GPU, no model, no pool."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from poolscore.engine.config import Config
from poolscore.engine.errors import ConfigError
from poolscore.engine.exclude import read_ids
from poolscore.engine.keys import IdSet, id_text, total_order
from poolscore.engine.run.directory import SELECTION, RunDirectory
from poolscore.engine.run.journal import ShardReport
from poolscore.engine.scores import require_score
from poolscore.engine.storage import Storage

ORDER = ("row_id", "key")  # what, beside the score, decides a row's rank
NAME_FORMAT = "letters, digits, '-', '_' and '.'"


@dataclass(frozen=True)
class Candidates:
    """Rows in the total order; three columns of the same length."""

    scores: np.ndarray[Any, np.dtype[np.float32]]
    keys: np.ndarray[Any, np.dtype[np.uint64]]
    row_ids: np.ndarray[Any, np.dtype[np.int64]]

    def __len__(self) -> int:
        return len(self.row_ids)

    def best(self, k: int) -> Candidates:
        """The first k rows in the total order."""
        order = total_order(self.scores, self.keys, self.row_ids)[:k]
        return Candidates(self.scores[order], self.keys[order], self.row_ids[order])

    def merged(self, other: Candidates, k: int) -> Candidates:
        """The best k of both; associative and commutative."""
        return Candidates(
            np.concatenate([self.scores, other.scores]),
            np.concatenate([self.keys, other.keys]),
            np.concatenate([self.row_ids, other.row_ids]),
        ).best(k)


def top_k(storage: Storage, reports: Iterable[ShardReport], score: str, k: int, exclude: IdSet) -> Candidates:
    """The k best rows of the committed parts, exactly, under the total order.

    Memory: k rows, and one part's columns. A part whose best score is below the k-th so far is not read.
    """
    chosen = _no_candidates()
    for report in sorted(reports, key=lambda r: -r.best.get(score, -np.inf)):
        if not report.scored or k == 0 or (len(chosen) == k and report.best[score] < chosen.scores[-1]):
            continue
        columns = [*ORDER, score, *(["id"] if len(exclude) else [])]
        table = pq.read_table(storage.path(report.scores), columns=columns)
        chosen = chosen.merged(_candidates(table, score, exclude), k)
    return chosen


def select_batch(
    run: RunDirectory, config: Config, *, score: str | None = None, k: int | None = None, exclude: str | None = None
) -> pa.Table:
    """The batch to label from a run's scores.

    Args:
        run: the run directory; only its committed scores are read.
        config: the run's configuration; `score` and `k` override it.
        exclude: Parquet or CSV of further ids to leave out.

    Returns:
        Table, best first: rank (int64, from 1), row_id, key, id, score, method, score_name, prediction, confidence, and
        the columns of `pool.keep`.

    Raises:
        ConfigError: the run has no such score, or fewer than k rows are left.
    """
    name = score or config.selected_by
    require_score(name, config.model.task, config.passes.count)
    wanted = config.select.k if k is None else k
    if wanted < 0:
        raise ConfigError(f"k must be 0 or more, got {wanted}")
    reports = run.reports()
    left_out = read_ids(exclude, config.pool.id, "--exclude")
    chosen = top_k(run.storage, reports.values(), name, wanted, left_out)
    return _with_columns(run, reports, chosen, name, config)


def write_selection(storage: Storage, table: pa.Table, name: str = SELECTION) -> None:
    """Write a selection; the same rows give the same bytes."""
    storage.publish(name, lambda file: pq.write_table(table, file, compression="zstd"))


def write_named_selection(run: RunDirectory, name: str, table: pa.Table, about: Mapping[str, Any]) -> str:
    """Write `selections/NAME.parquet` and its manifest; never over an older one. Returns its path.

    Raises:
        ConfigError: the name is taken or holds other characters than letters, digits, '-', '_' and '.'.
    """
    if not name or name.startswith(".") or not all(c.isalnum() or c in "-_." for c in name):
        raise ConfigError(f"--name {name}: a name has {NAME_FORMAT} only")
    path = run.storage.path(f"selections/{name}.parquet")
    manifest = {"name": name, "rows": table.num_rows, **about}
    if not run.storage.create(f"selections/{name}.json", (json.dumps(manifest, indent=2) + "\n").encode()):
        raise ConfigError(f"--name {name}: {path} exists; choose another name")
    write_selection(run.storage, table, f"selections/{name}.parquet")
    return path


def _candidates(table: pa.Table, score: str, exclude: IdSet) -> Candidates:
    found = Candidates(table[score].to_numpy(), table["key"].to_numpy(), table["row_id"].to_numpy())
    keep = np.isfinite(found.scores)  # a number that is none is never ranked
    if len(exclude):
        keep &= ~exclude.contains(id_text(table["id"].combine_chunks(), "id"), found.keys)
    return Candidates(found.scores[keep], found.keys[keep], found.row_ids[keep])


def _no_candidates() -> Candidates:
    return Candidates(np.empty(0, np.float32), np.empty(0, np.uint64), np.empty(0, np.int64))


def _with_columns(
    run: RunDirectory, reports: Mapping[int, ShardReport], chosen: Candidates, score: str, config: Config
) -> pa.Table:
    """Fetch the other columns of the chosen rows from their parts, and put them in the order of the choice."""
    names = ["id", "prediction", "confidence", *config.pool.keep]
    starts = np.array([shard.row_id for shard in run.plan.shards], dtype=np.int64)
    shard_of = np.searchsorted(starts, chosen.row_ids, side="right") - 1
    parts = [_rows_of(run, reports[int(s)], chosen.row_ids[shard_of == s], names) for s in np.unique(shard_of)]
    if not parts:
        parts = [_rows_of(run, report, np.empty(0, np.int64), names) for report in list(reports.values())[:1]]
    fetched = pa.concat_tables(parts).combine_chunks()
    place = np.argsort(fetched["row_id"].to_numpy())
    rows = fetched.take(pa.array(place[np.searchsorted(fetched["row_id"].to_numpy()[place], chosen.row_ids)]))
    count = len(chosen)
    return pa.table(
        {
            "rank": pa.array(np.arange(1, count + 1, dtype=np.int64)),
            "row_id": pa.array(chosen.row_ids),
            "key": pa.array(chosen.keys),
            "id": rows["id"],
            "score": pa.array(chosen.scores),
            "method": pa.array([config.select.method] * count, pa.string()),
            "score_name": pa.array([score] * count, pa.string()),
            **{name: rows[name] for name in names[1:]},
        }
    )


def _rows_of(run: RunDirectory, report: ShardReport, row_ids: Any, names: Sequence[str]) -> pa.Table:
    table = pq.read_table(run.storage.path(report.scores), columns=["row_id", *names])
    return table.filter(pa.array(np.isin(table["row_id"].to_numpy(), row_ids)))
