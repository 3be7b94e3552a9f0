"""The mean of the features of many rows of the pool: what the cosine of two rows is taken around.

It is the mean over a random sample of the scored rows, read near the starts of random row groups, so that it is cheap;
or over all scored rows, where the shortlist holds them all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from poolscore.engine.pool.draw import draw_pieces
from poolscore.engine.prepare import Prepared
from poolscore.engine.run.directory import RunDirectory
from poolscore.engine.run.journal import ShardReport
from poolscore.engine.selection.parts import Reader, parts_of
from poolscore.engine.shortlist.read import FEATURES, WidePart, matrix, read_part

MOST, SHARE = 1000, 10  # rows of a sample at most, and at most one of so many


def draw_scored(
    run: RunDirectory, prepared: Prepared, reports: Mapping[int, ShardReport]
) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """row_ids, ascending, and keys of a random sample of the scored rows, drawn by the run's seed."""
    scored = {shard: report for shard, report in reports.items() if report.scored}
    seed = prepared.config.passes.seed
    rows = min(MOST, sum(report.scored for report in scored.values()) // SHARE)
    rng, reader = np.random.default_rng(seed), Reader()

    @lru_cache(maxsize=4)
    def identities(shard: int) -> pa.Table:
        (part,) = parts_of([(run.storage, [scored[shard]])], "")
        with reader.opened(part) as file:
            return file.columns(["row_id", "key"])

    row_ids, keys = [np.empty(0, np.int64)], [np.empty(0, np.uint64)]
    for piece, shard, some in draw_pieces(prepared.plan, prepared.pool, scored, rows, seed) if rows else ():
        ids, their_keys = (column.to_numpy() for column in identities(shard).columns)
        inside = np.flatnonzero((ids >= piece.row_id) & (ids < piece.row_id + piece.rows))
        drawn = rng.permutation(inside)[:some]
        row_ids.append(ids[drawn])
        keys.append(their_keys[drawn])
    order = np.argsort(np.concatenate(row_ids))
    return np.concatenate(row_ids)[order], np.concatenate(keys)[order]


def centre_of(run: RunDirectory, parts: Sequence[WidePart]) -> NDArray[np.float64]:
    """The mean of the features in some parts, [F]."""
    sums = [matrix(read_part(run, part.name, [FEATURES])[FEATURES]).sum(axis=0, dtype=np.float64) for part in parts]
    centre_F: NDArray[np.float64] = np.sum(sums, axis=0) / sum(part.rows for part in parts)
    return centre_F
