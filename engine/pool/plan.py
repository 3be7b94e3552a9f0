"""What the pool is cut into: pieces of row groups, shards of pieces, and the plan of all shards."""

from __future__ import annotations

import builtins
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import overload

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

UNKNOWN = -1

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
