"""Rows drawn at random, of which little must be read: those near the start of random row groups."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from poolscore.engine.pool.files import PoolFiles
from poolscore.engine.pool.plan import Piece, Plan

PLACES = 32  # row groups that rows are drawn from, at least, where there are so many
REACH = 16 << 20  # bytes from the start of a row group, uncompressed, that rows are drawn from


def draw_pieces(
    plan: Plan, pool: PoolFiles, shards: Iterable[int], rows: int, seed: int
) -> Iterator[tuple[Piece, int, int]]:
    """Pieces of some shards, drawn by the seed and cut at REACH; the shard of each, and how many rows to draw of it so
    that about `rows` are drawn of all."""
    table = plan.pieces
    shard_P, start_P, rows_P, row_id_P = (table[name].to_numpy() for name in ("shard", "start", "rows", "row_id"))
    group_P = np.searchsorted(np.cumsum(pool.group_rows_G), row_id_P, side="right")
    bytes_P = np.maximum(1, pool.group_bytes_G[group_P] // pool.group_rows_G[group_P])  # of a row
    reach_P = np.clip(REACH // bytes_P, 1, rows_P)
    wanted_P = np.isin(shard_P, list(shards))
    near_P = wanted_P & (start_P * bytes_P <= REACH)  # to read a row is to read its row group up to it
    at = np.flatnonzero(near_P if near_P.any() else wanted_P)
    rng = np.random.default_rng(seed)
    order = rng.choice(at, len(at), replace=False, p=rows_P[at] / rows_P[at].sum())
    enough = max(PLACES, 1 + int(np.searchsorted(np.cumsum(reach_P[order]), rows)))
    order = order[:enough]
    each, most = -(-rows // len(order)), int(reach_P[order].sum())
    while np.minimum(reach_P[order], each).sum() < min(rows, most):  # some row groups are shorter
        each *= 2
    for i in order.tolist():
        yield replace(plan.shards.piece_of(int(row_id_P[i])), rows=int(reach_P[i])), int(shard_P[i]), each
