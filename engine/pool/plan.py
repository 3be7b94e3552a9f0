"""Step 1c: give every row its row_id and cut the pool into shards. Memory: about 50 bytes a piece, none a row."""

from __future__ import annotations

import builtins
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from typing import overload

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from poolscore.engine.pool.files import PoolFiles

UNKNOWN = -1
HUGE = 2  # a row group of more than HUGE shards is cut into row ranges
# Each range is read from the start of the group: with 8 of them the group is read 4.5 times in all. Files may hold an
# index of their pages, by which a reader could begin in the middle; pyarrow (26) tells that there is one and has no
# call to use it, and parsing pages by hand would be a Parquet reader of our own. `doctor` advises smaller row groups.
RANGES = 8
SAMPLED_GROUPS = 64  # a sample of few rows is drawn from so many row groups at least: rows of one are often alike

PIECES = pa.schema(  # one row a piece, in the order of the pool
    [
        ("shard", pa.int32()),
        ("path", pa.dictionary(pa.int32(), pa.string())),
        ("row_group", pa.int32()),
        ("start", pa.int64()),
        ("file_row", pa.int64()),
        ("rows", pa.int64()),
        ("row_id", pa.int64()),
        ("file_bytes", pa.int64()),
    ]
)


@dataclass(frozen=True)
class Piece:
    """Consecutive rows of one row group."""

    path: str  # relative to the pool's root
    row_group: int
    start: int  # first row, counted in the row group
    file_row: int  # the same row, counted in the file
    rows: int
    row_id: int  # the same row, counted in the pool
    file_bytes: int = UNKNOWN  # of the whole file, by which a change is noticed

    def part(self, start: int, stop: int) -> Piece:
        """Rows start..stop of the piece."""
        return replace(
            self,
            rows=stop - start,
            start=self.start + start,
            file_row=self.file_row + start,
            row_id=self.row_id + start,
        )


@dataclass(frozen=True)
class Shard:
    """What one worker scores at a time: rows of the pool in their order."""

    index: int
    row_id: int  # of its first row
    rows: int
    pieces: Sequence[Piece]

    def part(self, start: int, stop: int) -> Shard:
        """Rows start..stop of the shard, start < stop, counted over its pieces; under the same index."""
        pieces = []
        before = 0
        for piece in self.pieces:
            first, last = max(0, start - before), min(piece.rows, stop - before)
            if first < last:
                pieces.append(piece.part(first, last))
            before += piece.rows
        return Shard(self.index, pieces[0].row_id, stop - start, tuple(pieces))


@dataclass(frozen=True)
class Plan:
    """The pool, cut. Two pools with the same digest give every row the same place."""

    root: str
    digest: str
    bytes: int
    files: int
    pieces: pa.Table  # PIECES
    passed_over: int = 0  # rows of row groups that filter or sample leave out, and that no shard holds
    share: float = 1.0  # of the shards' rows that the sample keeps
    unreadable: Mapping[str, str] = field(default_factory=dict)  # path → reason, of files that are left out

    @property
    def rows(self) -> int:
        """Rows of the shards."""
        return int(self.shards.rows.sum())

    @property
    def expected_rows(self) -> int:
        """Rows that are to be scored, about, before filter and exclude list."""
        return round(self.rows * self.share)

    @cached_property
    def shards(self) -> Shards:
        """The shards, made as they are asked for."""
        return Shards(self.pieces)

    def to_parquet(self) -> builtins.bytes:
        """The plan as a Parquet table, one row a piece, in the order of the pool."""
        about = {
            "root": self.root,
            "digest": self.digest,
            "bytes": str(self.bytes),
            "files": str(self.files),
            "passed_over": str(self.passed_over),
            "share": repr(self.share),
            "unreadable": json.dumps(dict(self.unreadable)),
        }
        buffer = io.BytesIO()
        table = self.pieces.replace_schema_metadata(about)
        pq.write_table(table, buffer, row_group_size=max(1, table.num_rows), compression="zstd")
        return buffer.getvalue()

    @classmethod
    def from_parquet(cls, data: builtins.bytes) -> Plan:
        """The inverse of `to_parquet`; reads also the plans of version 0.1, in which every row is in a shard."""
        table = pq.read_table(pa.BufferReader(data), pre_buffer=False)
        about = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
        if "row_id" not in table.schema.names:
            rows = table["rows"].to_numpy()
            table = table.append_column("row_id", pa.array(np.cumsum(rows) - rows))
        if "file_bytes" not in table.schema.names:
            table = table.append_column("file_bytes", pa.array(np.full(table.num_rows, UNKNOWN, dtype=np.int64)))
        pieces = table.replace_schema_metadata().select(PIECES.names)
        if pieces.schema != PIECES or pieces["path"].num_chunks > 1:
            pieces = pieces.cast(PIECES).unify_dictionaries().combine_chunks()
        return cls(
            about["root"],
            about["digest"],
            int(about["bytes"]),
            int(about["files"]),
            pieces,
            int(about.get("passed_over", 0)),
            float(about.get("share", 1)),
            json.loads(about.get("unreadable", "{}")),
        )


class Pieces(Sequence[Piece]):
    """Pieces start..stop of a plan, each made when it is asked for. Travels as the pieces alone."""

    def __init__(self, plan: _Columns, start: int, stop: int) -> None:
        self._plan, self._range = plan, range(start, stop)

    def __len__(self) -> int:
        return len(self._range)

    @overload
    def __getitem__(self, at: int) -> Piece: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[Piece, ...]: ...
    def __getitem__(self, at: int | slice) -> Piece | tuple[Piece, ...]:
        if isinstance(at, slice):
            return tuple(map(self._plan.piece, self._range[at]))
        return self._plan.piece(self._range[at])

    def __reduce__(self) -> tuple[type, tuple[list[Piece]]]:
        return tuple, (list(self),)


class Shards(Sequence[Shard]):
    """The shards of a plan, each made when it is asked for."""

    def __init__(self, pieces: pa.Table) -> None:
        self._columns = _Columns(pieces)
        of_piece = pieces["shard"].to_numpy()
        first = np.flatnonzero(np.diff(of_piece, prepend=-1))
        self._ends = np.append(first, len(of_piece))
        self.row_ids: NDArray[np.int64] = self._columns.row_id[first]  # of the first row of each
        self.rows: NDArray[np.int64] = np.diff(np.append(0, np.cumsum(self._columns.rows))[self._ends])

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, at: int) -> Shard: ...
    @overload
    def __getitem__(self, at: slice) -> list[Shard]: ...
    def __getitem__(self, at: int | slice) -> Shard | list[Shard]:
        if isinstance(at, slice):
            return [self[i] for i in range(len(self))[at]]
        i = range(len(self))[at]
        pieces = Pieces(self._columns, int(self._ends[i]), int(self._ends[i + 1]))
        return Shard(i, int(self.row_ids[i]), int(self.rows[i]), pieces)

    def piece_of(self, row_id: int) -> Piece:
        """The piece that holds a row.

        Raises:
            IndexError: no shard has this row.
        """
        at = int(np.searchsorted(self._columns.row_id, row_id, side="right")) - 1
        if at < 0 or row_id >= self._columns.row_id[at] + self._columns.rows[at]:
            raise IndexError(f"row {row_id} is in no shard")
        return self._columns.piece(at)


class _Columns:
    """The columns of PIECES as arrays."""

    def __init__(self, pieces: pa.Table) -> None:
        paths = pieces["path"].combine_chunks()
        self._paths, self._path = paths.dictionary, paths.indices.to_numpy()
        self._row_group, self._start, self._file_row = (
            pieces[n].to_numpy() for n in ("row_group", "start", "file_row")
        )
        self.rows, self.row_id, self._file_bytes = (pieces[n].to_numpy() for n in ("rows", "row_id", "file_bytes"))

    def piece(self, i: int) -> Piece:
        return Piece(
            path=self._paths[int(self._path[i])].as_py(),
            row_group=int(self._row_group[i]),
            start=int(self._start[i]),
            file_row=int(self._file_row[i]),
            rows=int(self.rows[i]),
            row_id=int(self.row_id[i]),
            file_bytes=int(self._file_bytes[i]),
        )


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


def _described(pool: PoolFiles) -> Iterator[builtins.bytes]:
    """What the digest is made of, file by file."""
    for batch in pool.table.select(["path", "bytes", "group_rows", "fingerprint"]).to_batches(max_chunksize=4096):
        for path, size, groups, fingerprint in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            yield f"{path}\0{size}\0{tuple(groups)}\0{fingerprint}\0".encode()
