"""Step 1c: give every row its row_id and cut the pool into shards. Memory: about 50 bytes a piece, none a row."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from poolscore.engine.pool.files import PoolFiles
from poolscore.engine.pool.plan import PIECES, Plan

HUGE = 2  # a row group of more than HUGE shards is cut into row ranges
# Each range is read from the start of the group: with 8 of them the group is read 4.5 times in all. Files may hold an
# index of their pages, by which a reader could begin in the middle; pyarrow (26) tells that there is one and has no
# call to use it, and parsing pages by hand would be a Parquet reader of our own. `doctor` advises smaller row groups.
RANGES = 8
SAMPLED_GROUPS = 64  # a sample of few rows is drawn from so many row groups at least: rows of one are often alike


def make_plan(pool: PoolFiles, shard_rows: int, *, sample: float | None = None, seed: int = 0) -> Plan:
    """Cut the pool into shards of about `shard_rows` rows, along row groups.

    Small files share a shard. A file with at least `shard_rows` rows starts a shard of its own, so that a file that
    comes or goes moves the cuts only up to the next large one. A row's row_id is its place among all rows of the pool,
    whatever filter and sample leave out.

    Args:
        pool: its row groups that the filter rules out are in no shard.
        sample: a fraction (below 1) or a number of rows. Row groups are drawn until they hold as many, at least
            SAMPLED_GROUPS; where they hold more, the plan's `share` says which part of their rows is to be kept.
        seed: of the sample.
    """
    rows_G = pool.group_rows_G
    kept_G = pool.matches_G & (rows_G > 0)
    share = 1.0
    if sample is not None:
        kept_G, share = _sampled(rows_G, kept_G, sample, seed)
    pieces, shard = _pieces(pool, kept_G, shard_rows)
    digest = sha256(str(shard_rows).encode())
    for text in _described(pool):
        digest.update(text)
    total = int(rows_G.sum())
    table = pa.table([pa.array(shard, pa.int32()), *pieces], PIECES)
    passed_over = total - int(rows_G[kept_G].sum())
    return Plan(
        pool.root, digest.hexdigest()[:32], pool.bytes, len(pool), table, passed_over, share, dict(pool.unreadable)
    )


def _sampled(
    rows_G: NDArray[np.int64], kept_G: NDArray[np.bool_], sample: float, seed: int
) -> tuple[NDArray[np.bool_], float]:
    groups = np.flatnonzero(kept_G)
    order = np.random.default_rng(seed).permutation(groups)
    held = np.cumsum(rows_G[order])
    wanted = sample * held[-1] if sample < 1 else min(sample, held[-1])
    enough = max(SAMPLED_GROUPS, 1 + int(np.searchsorted(held, wanted)))
    drawn = np.zeros_like(kept_G)
    drawn[order[:enough]] = True
    return drawn, float(min(1.0, wanted / held[min(enough, len(held)) - 1]))


def _pieces(pool: PoolFiles, kept_G: NDArray[np.bool_], shard_rows: int) -> tuple[list[pa.Array], NDArray[np.int64]]:
    """The columns of PIECES, the shard apart, and the shard of each piece."""
    rows_G = pool.group_rows_G
    file_G = np.repeat(np.arange(len(pool), dtype=np.int32), np.diff(pool.group_starts))
    row_id_G = np.cumsum(rows_G) - rows_G
    range_G = np.maximum(shard_rows, -(-rows_G // RANGES))
    step_G = np.where(rows_G > HUGE * shard_rows, range_G, np.maximum(rows_G, 1))
    count_G = np.where(kept_G, -(-rows_G // step_G), 0)
    group = np.repeat(np.arange(len(rows_G)), count_G)
    start = np.arange(len(group)) - np.repeat(np.cumsum(count_G) - count_G, count_G)  # pieces before it in its group
    start *= step_G[group]
    rows = np.minimum(step_G[group], rows_G[group] - start)
    row_id = row_id_G[group] + start
    file = file_G[group]
    in_file = group - pool.group_starts[file]
    first_row = np.append(row_id_G, 0)[pool.group_starts[:-1]]  # of each file; one without row groups has no piece
    of_new_file = np.diff(file, prepend=-1) > 0
    paths = pool.table["path"].combine_chunks().take(pa.array(file[of_new_file]))
    path = np.cumsum(of_new_file, dtype=np.int32) - np.int32(1)
    columns = [
        pa.DictionaryArray.from_arrays(pa.array(path), paths),
        pa.array(in_file, pa.int32()),
        pa.array(start),
        pa.array(row_id - first_row[file]),
        pa.array(rows),
        pa.array(row_id),
        pa.array(pool.table["bytes"].to_numpy()[file]),
    ]
    return columns, _cut(rows, file, shard_rows)


def _cut(rows: NDArray[np.int64], file: NDArray[np.int32], shard_rows: int) -> NDArray[np.int64]:
    """The shard of each piece: filled up to `shard_rows`, and begun anew at each file that fills one."""
    ends = np.append(0, np.cumsum(rows))
    starts_file = np.flatnonzero(np.diff(file, prepend=-1))
    of_file = np.diff(ends[np.append(starts_file, len(rows))])
    large = np.append(starts_file[of_file >= shard_rows], len(rows))
    shard = np.zeros(len(rows), dtype=np.int64)
    at = 0
    while at < len(rows):
        full = int(np.searchsorted(ends, ends[at] + shard_rows, side="right")) - 1
        at = min(max(full, at + 1), int(large[np.searchsorted(large, at, side="right")]))
        if at < len(rows):
            shard[at] = 1
    return np.cumsum(shard)


def _described(pool: PoolFiles) -> Iterator[bytes]:
    """What the digest is made of, file by file."""
    for batch in pool.table.select(["path", "bytes", "group_rows", "fingerprint"]).to_batches(max_chunksize=4096):
        for path, size, groups, fingerprint in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            yield f"{path}\0{size}\0{tuple(groups)}\0{fingerprint}\0".encode()
