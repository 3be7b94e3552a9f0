"""Step 1b: give every row its row_id and cut the pool into shards."""

from __future__ import annotations

import builtins
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from itertools import groupby

import pyarrow as pa
import pyarrow.parquet as pq

from poolscore.engine.pool.files import PoolFile, PoolFiles

HUGE = 2  # a row group of more than HUGE shards is cut into row ranges


@dataclass(frozen=True)
class Piece:
    """Consecutive rows of one row group."""

    path: str  # relative to the pool's root
    row_group: int
    start: int  # first row, counted in the row group
    file_row: int  # the same row, counted in the file
    rows: int


@dataclass(frozen=True)
class Shard:
    """What one worker scores at a time: consecutive rows of the pool."""

    index: int
    row_id: int  # of its first row
    rows: int
    pieces: tuple[Piece, ...]


@dataclass(frozen=True)
class Plan:
    """The whole pool, cut. Two pools with the same digest give every row the same place."""

    root: str
    digest: str
    bytes: int
    files: int
    shards: tuple[Shard, ...]

    @cached_property
    def rows(self) -> int:
        """Rows of the pool."""
        return sum(shard.rows for shard in self.shards)

    def to_parquet(self) -> builtins.bytes:
        """The plan as a Parquet table, one row a piece, in the order of the pool."""
        pieces = [(shard, piece) for shard in self.shards for piece in shard.pieces]
        table = pa.table(
            {
                "shard": pa.array([shard.index for shard, _ in pieces], pa.int32()),
                "path": pa.array([piece.path for _, piece in pieces], pa.string()),
                "row_group": pa.array([piece.row_group for _, piece in pieces], pa.int32()),
                "start": pa.array([piece.start for _, piece in pieces], pa.int64()),
                "file_row": pa.array([piece.file_row for _, piece in pieces], pa.int64()),
                "rows": pa.array([piece.rows for _, piece in pieces], pa.int64()),
            },
            metadata={"root": self.root, "digest": self.digest, "bytes": str(self.bytes), "files": str(self.files)},
        )
        buffer = io.BytesIO()
        pq.write_table(table, buffer)
        return buffer.getvalue()

    @classmethod
    def from_parquet(cls, data: builtins.bytes) -> Plan:
        """The inverse of `to_parquet`."""
        table = pq.read_table(io.BytesIO(data))
        about = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
        shards: list[Shard] = []
        row_id = 0
        for index, rows in groupby(table.to_pylist(), key=lambda row: row["shard"]):
            pieces = tuple(
                Piece(row["path"], row["row_group"], row["start"], row["file_row"], row["rows"]) for row in rows
            )
            shards.append(Shard(index, row_id, sum(piece.rows for piece in pieces), pieces))
            row_id += shards[-1].rows
        return cls(about["root"], about["digest"], int(about["bytes"]), int(about["files"]), tuple(shards))


def make_plan(pool: PoolFiles, shard_rows: int) -> Plan:
    """Cut the pool into shards of about `shard_rows` consecutive rows, along row groups.

    Small files share a shard. A file with at least `shard_rows` rows starts a shard of its own, so that a file that
    comes or goes moves the cuts only up to the next large one.
    """
    shards: list[Shard] = []
    row_id = 0
    for pieces in _cut(pool.files, shard_rows):
        rows = sum(piece.rows for piece in pieces)
        shards.append(Shard(len(shards), row_id, rows, tuple(pieces)))
        row_id += rows
    digest = sha256(str(shard_rows).encode())
    for file in pool.files:
        digest.update(f"{file.path}\0{file.bytes}\0{file.row_groups}\0{file.fingerprint}\0".encode())
    total = sum(file.bytes for file in pool.files)
    return Plan(pool.root, digest.hexdigest()[:32], total, len(pool.files), tuple(shards))


def _cut(files: Iterable[PoolFile], shard_rows: int) -> Iterator[list[Piece]]:
    open_shard: list[Piece] = []
    rows = 0  # of the open shard
    for file in files:
        if open_shard and file.rows >= shard_rows:
            yield open_shard
            open_shard, rows = [], 0
        for piece in _pieces(file, shard_rows):
            if open_shard and rows + piece.rows > shard_rows:
                yield open_shard
                open_shard, rows = [], 0
            open_shard.append(piece)
            rows += piece.rows
    if open_shard:
        yield open_shard


def _pieces(file: PoolFile, shard_rows: int) -> Iterator[Piece]:
    file_row = 0
    for row_group, rows in enumerate(file.row_groups):
        step = shard_rows if rows > HUGE * shard_rows else rows
        for start in range(0, rows, max(step, 1)):
            yield Piece(file.path, row_group, start, file_row + start, min(step, rows - start))
        file_row += rows
