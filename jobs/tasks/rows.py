"""The columns of chosen rows, read again from the pool through the plan of the run that scored them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from poolscore.engine.config import columns_of
from poolscore.engine.errors import ConfigError, UnreadableShard
from poolscore.engine.keys import IdSet
from poolscore.engine.pool.choice import RowChoice
from poolscore.engine.pool.plan import Piece, Plan, Shard
from poolscore.engine.pool.read import ShardReader
from poolscore.engine.run.directory import RunDirectory
from poolscore.engine.storage.filesystem import open_parquet, reason
from poolscore.engine.storage.uri import join

BLOCK = 32  # rows in memory at once


def input_columns(run: RunDirectory) -> list[str]:
    """The pool's columns that a run's model sees, in their order."""
    decoders = run.config.pool.named_inputs().values()
    return list(dict.fromkeys(column for decode in decoders for column in columns_of(decode)))


def schema_of(run: RunDirectory, columns: Sequence[str]) -> pa.Schema:
    """The types of columns of a run's pool, as its first file has them.

    Raises:
        ConfigError: the pool is not there any more, or has no such column.
    """
    plan = run.plan
    path = join(plan.root, plan.pieces["path"][0].as_py())
    try:
        with open_parquet(path) as file:
            schema = _choice(plan).with_keys(file.schema_arrow)
    except (OSError, pa.ArrowException) as error:
        raise ConfigError(
            f"the pool of {run.storage.root} is needed, and {path} cannot be read: {reason(error)}"
        ) from error
    if missing := [name for name in columns if schema.get_field_index(name) < 0]:
        raise ConfigError(f"the pool has no column '{missing[0]}'; it has: {', '.join(schema.names)}")
    return pa.schema([schema.field(name) for name in columns])


def read_rows(
    run: RunDirectory, columns: Sequence[str], row_ids_N: NDArray[np.int64], keys_N: NDArray[np.uint64]
) -> Iterator[tuple[NDArray[np.intp], pa.Table]]:
    """Columns of N rows of a run's pool, in the pool's order: each time the places among the N, and their rows. Of each
    row group all up to the last of them is read, never more than some MB at once.

    Raises:
        ConfigError: the pool cannot be read, or holds other rows than those that were scored.
    """
    order = np.argsort(row_ids_N, kind="stable")
    wanted = row_ids_N[order]
    plan, done = run.plan, 0
    reader = ShardReader(plan.root, columns, run.config.pool.id, IdSet(), _choice(plan)).only(wanted)
    where = f"the pool of {run.storage.root} is needed"
    try:
        with closing(reader.blocks(_shard_of(plan, wanted), BLOCK)) as blocks:
            for rows in blocks:
                places = order[done : done + len(rows)]
                if not (np.array_equal(rows.row_ids, row_ids_N[places]) and np.array_equal(rows.keys, keys_N[places])):
                    raise ConfigError(f"{where}, and it holds other rows than those that were scored; bring it back")
                done += len(rows)
                yield places, rows.table.select(list(columns))
    except (UnreadableShard, IndexError) as error:
        raise ConfigError(f"{where}: {error}") from error
    if done < len(wanted):
        raise ConfigError(f"{where}, and {len(wanted) - done:,} of the rows are not in it any more; bring it back")


def _choice(plan: Plan) -> RowChoice:
    """All rows, with the columns that folders named key=value give them."""
    return RowChoice.of(None, plan.pieces["path"].unique().to_pylist())


def _shard_of(plan: Plan, row_ids: NDArray[np.int64]) -> Shard:
    """What is to be read for these rows, ascending: of each piece that holds one, from the first to the last."""
    pieces: list[Piece] = []
    start = 0
    while start < len(row_ids):
        piece = plan.shards.piece_of(int(row_ids[start]))
        stop = int(np.searchsorted(row_ids, piece.row_id + piece.rows))
        pieces.append(piece.part(int(row_ids[start]) - piece.row_id, int(row_ids[stop - 1]) + 1 - piece.row_id))
        start = stop
    return Shard(0, pieces[0].row_id if pieces else 0, sum(piece.rows for piece in pieces), pieces)
