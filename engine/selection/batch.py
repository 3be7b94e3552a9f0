"""Step 7: the batch to label, as a pure function of the committed scores. Needs no GPU, no model, no pool."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from poolscore.engine.config import Config
from poolscore.engine.errors import ConfigError, StoppedError
from poolscore.engine.exclude import read_ids
from poolscore.engine.filesystem import in_order, locate, reason
from poolscore.engine.keys import IdSet, id_text, total_order
from poolscore.engine.run.directory import SELECTION, RunDirectory
from poolscore.engine.run.journal import ShardReport
from poolscore.engine.scores import require_score
from poolscore.engine.storage import Storage

ORDER = ("row_id", "key")  # what, beside the score, decides a row's rank
ABOUT = b"poolscore"  # key of the schema metadata: JSON, what the rows were selected from
NAME = "[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}"
NAME_FORMAT = "up to 100 letters, digits, '-', '_' and '.' (not first)"


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

    Memory: k rows, and the columns of the parts that are read at once. A part whose best score is below the k-th when
    its turn comes is not read.
    """
    chosen = _no_candidates()
    columns = [*ORDER, score, *(["id"] if len(exclude) else [])]

    def may_hold_some(report: ShardReport) -> bool:
        return bool(report.scored and k and (len(chosen) < k or report.best[score] >= chosen.scores[-1]))

    best_first = filter(may_hold_some, sorted(reports, key=lambda r: -r.best.get(score, -np.inf)))
    for table in in_order(lambda report: _read_part(storage, report, columns), best_first, storage.at_once):
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

    Where rejected rows leave fewer than the configured k, fewer are selected.

    Returns:
        Table, best first: rank (int64, from 1), row_id, key, id, score, method, score_name, prediction, confidence, and
        the columns of `pool.keep`. The schema's metadata say under ABOUT whether every shard of the run was scored.

    Raises:
        ConfigError: the run has no such score or no scores yet, `exclude` cannot be read, or fewer rows are left than
            `k` or `exclude` ask for.
    """
    name = score or config.selected_by
    require_score(name, config.model.task, config.passes.count)
    wanted = config.select.k if k is None else k
    if wanted < 0:
        raise ConfigError(f"k must be 0 or more, got {wanted}")
    reports = run.reports()
    if not reports:
        raise ConfigError(f"{run.storage.root}: no shard is scored yet, so there is nothing to select from")
    left_out = read_ids(exclude, config.pool.id, "--exclude")
    chosen = top_k(run.storage, reports.values(), name, wanted, left_out)
    if len(chosen) < wanted and (k is not None or exclude is not None):
        raise ConfigError(f"k: {wanted} rows are asked for, {len(chosen)} scored rows are left to select from")
    about = json.dumps(_about(run, reports))
    return _with_columns(run, reports, chosen, name, config).replace_schema_metadata({ABOUT: about})


def write_selection(storage: Storage, table: pa.Table, name: str = SELECTION) -> None:
    """Write a selection; the same rows give the same bytes."""
    storage.publish(name, lambda file: pq.write_table(table, file, compression="zstd"))


def write_named_selection(run: RunDirectory, name: str, table: pa.Table, about: Mapping[str, Any]) -> str:
    """Write `selections/NAME.parquet` and its manifest; never over an older one. Returns its path.

    The manifest comes first and claims the name. Where the rows could not be written then, the same call goes on.

    Args:
        run: the run that the rows are from.
        name: NAME_FORMAT.
        table: from `select_batch`.
        about: further entries of the manifest.

    Raises:
        ConfigError: the name is taken, or no name (NAME_FORMAT).
    """
    if not re.fullmatch(NAME, name):
        raise ConfigError(f"--name {name}: a name has {NAME_FORMAT} only")
    storage = run.storage
    file, claim = f"selections/{name}.parquet", f"selections/{name}.json"
    source = json.loads(table.schema.metadata[ABOUT])
    manifest = (json.dumps({"name": name, "rows": table.num_rows, **about, **source}, indent=2) + "\n").encode()
    rows = io.BytesIO()
    pq.write_table(table, rows, compression="zstd")
    free = f"{name}.parquet" not in storage.names("selections")
    claimed = free and (storage.create(claim, manifest) or storage.read(claim) == manifest)
    if not claimed or not storage.create(file, rows.getvalue()):
        raise ConfigError(f"--name {name}: exists in {storage.path('selections')}; choose another name")
    return storage.path(file)


def _about(run: RunDirectory, reports: Mapping[int, ShardReport]) -> dict[str, Any]:
    """What a selection is made from. No time and no path: the same rows give the same bytes."""
    shards = len(run.plan.shards)
    scored = sum(index in reports for index in range(shards))
    return {
        "complete": scored == shards,
        "shards_scored": scored,
        "shards": shards,
        "pool_digest": run.info["identity"].get("the pool"),
        "weights_digest": run.info["identity"].get("the weights"),
    }


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
    names = list(dict.fromkeys(["id", "prediction", "confidence", *config.pool.keep]))
    shard_of = np.searchsorted(run.plan.shards.row_ids, chosen.row_ids, side="right") - 1

    def rows_of(shard: int) -> pa.Table:
        return _rows_of(run, reports[shard], chosen.row_ids[shard_of == shard], names)

    parts = list(in_order(rows_of, np.unique(shard_of).tolist(), run.storage.at_once))
    if not parts:
        parts = [_rows_of(run, next(iter(reports.values())), np.empty(0, np.int64), names)]
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
    table = _read_part(run.storage, report, ["row_id", *names])
    return table.filter(pa.array(np.isin(table["row_id"].to_numpy(), row_ids)))


def _read_part(storage: Storage, report: ShardReport, columns: Sequence[str]) -> pa.Table:
    path = storage.path(report.scores)
    try:
        at = locate(path)
        with pq.ParquetFile(at.path, filesystem=at.filesystem, pre_buffer=True) as file:  # one request for many columns
            return file.read(columns).select(list(columns))  # which misses none, as `read` does
    except (OSError, pa.ArrowException, KeyError) as error:
        why = reason(error)
        raise StoppedError(f"{path}, which the journal names, cannot be read ({why}); bring it back") from error
