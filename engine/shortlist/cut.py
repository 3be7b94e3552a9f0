"""Rows cut into tasks, by their row_ids alone: what a task reads and infers does not depend on the cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from poolscore.engine.config import Config
from poolscore.engine.errors import ConfigError, UnreadableShard
from poolscore.engine.inputs import build_decoders
from poolscore.engine.pool.cut import make_plan
from poolscore.engine.pool.find import find_files
from poolscore.engine.pool.plan import Piece, Plan, Shard
from poolscore.engine.pool.read import of_user
from poolscore.engine.prepare import Prepared
from poolscore.engine.run.task import LookAgain, LookAtLabelled
from poolscore.engine.shortlist.look import reader_of

TASK_ROWS = 512  # of a task, filled up to whole batches
MOST_LABELLED = 20_000  # rows

RowIds = NDArray[np.int64]


@dataclass(frozen=True)
class Labelled:
    """The rows of shortlist.labelled."""

    digest: str
    tasks: Sequence[LookAtLabelled]  # numbered from 0

    def numbered(self, first: int) -> list[LookAtLabelled]:
        """The tasks, numbered from `first` on."""
        return [replace(task, shard=replace(task.shard, index=first + i)) for i, task in enumerate(self.tasks)]

    def require_decodable(self, prepared: Prepared) -> None:
        """
        Raises:
            ConfigError: no row can be read and decoded.
        """
        decoder, size, why = prepared.scorer.decoder, prepared.config.run.batch_size, "it has no row"
        try:
            for task in self.tasks:
                for rows in reader_of(task, prepared.config).blocks(task.shard, size):
                    bad = decoder.read(rows).bad
                    if len(bad) < len(rows):
                        return
                    why = next((f"{what}: {reason}" for what, reason in bad.values()), why)
        except UnreadableShard as error:
            raise of_user(error, "shortlist.labelled", "write the file again") from error
        raise ConfigError(f"shortlist.labelled: none of its rows can be decoded ({why}); look at its columns")


def find_labelled(config: Config) -> Labelled | None:
    """Look at the file of labelled rows; None: none is named.

    Raises:
        ConfigError: it does not fit.
    """
    if config.shortlist.labelled is None:
        return None
    where = "shortlist.labelled"
    files = find_files(config.shortlist.labelled, where)
    columns = [column for decoder in build_decoders(config).values() for column in decoder.columns]
    files.require_columns(dict.fromkeys(columns, where))
    plan = make_plan(files, config.run.shard_rows)
    rows = np.sort(np.random.default_rng(config.passes.seed).permutation(plan.rows)[:MOST_LABELLED])
    tasks = [LookAtLabelled(shard, ids, plan.root, files.choice) for shard, ids in _cut(plan, rows, config, 0)]
    return Labelled(plan.digest, tasks)


def tasks_of(
    plan: Plan, row_ids: RowIds, keys: NDArray[np.uint64], config: Config, first: int, whole: bool
) -> list[LookAgain]:
    """Tasks for rows that were scored, in any order, numbered from `first` on."""
    order = np.argsort(row_ids)
    row_ids, keys = row_ids[order], keys[order]
    return [
        LookAgain(shard, ids, keys[np.searchsorted(row_ids, ids)], whole)
        for shard, ids in _cut(plan, row_ids, config, first)
    ]


def _cut(plan: Plan, row_ids: RowIds, config: Config, first: int) -> Iterator[tuple[Shard, RowIds]]:
    """Rows in ascending order, cut into whole batches, and what is to be read for them."""
    size = config.run.batch_size
    step = -(-TASK_ROWS // size) * size
    starts = plan.pieces["row_id"].to_numpy()
    for number, start in enumerate(range(0, len(row_ids), step)):
        ids = row_ids[start : start + step]
        _, new = np.unique(np.searchsorted(starts, ids, side="right"), return_index=True)
        pieces = tuple(_from_first_to_last(plan, some) for some in np.split(ids, new[1:]))
        yield Shard(first + number, pieces[0].row_id, sum(piece.rows for piece in pieces), pieces), ids


def _from_first_to_last(plan: Plan, row_ids: RowIds) -> Piece:
    piece = plan.shards.piece_of(int(row_ids[0]))
    return piece.part(int(row_ids[0]) - piece.row_id, int(row_ids[-1]) + 1 - piece.row_id)
