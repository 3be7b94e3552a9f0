"""What the parts of `pack` hand to each other.

A source gives a `Source`: a schema, a listing of small pieces of work, and the function that turns a piece into rows.
`fill` has workers do the pieces and gives the rows, in the order of the listing, to the writer, which cuts row groups
and files from them. Source and writer do not know each other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from poolscore.engine.errors import ConfigError
from poolscore.engine.words import amount

MIB = 1 << 20
PIECE_BYTES = MIB
"""Bytes of data that a source aims at in one batch."""
PIECE_ROWS = 1024
"""Rows that a source puts in one batch at most (a CSV block may hold more)."""
MAX_ROW_BYTES = 1024 * MIB
"""The largest file or array row that is packed: what one cell of an Arrow column holds comfortably."""
UNREADABLE = "unreadable"
NAMED_UNREADABLE = 20
"""So many unreadable files are named in the summary; all are counted."""


class Progress(Protocol):
    """Called as `progress(done, total)`, in rows: once at the start with 0, then after every piece.

    `total` is None while it is not known. For a folder it counts the files found, of which some may prove unreadable,
    so `done` can end below it.
    """

    def __call__(self, done: int, total: int | None, /) -> object: ...


@dataclass(frozen=True)
class Names:
    """Names of the columns of the pool."""

    id: str = "id"
    image: str = "image"
    tensor: str = "tensor"
    label: str = "label"

    def __post_init__(self) -> None:
        names = (self.id, self.image, self.tensor, self.label)
        if "" in names or len(set(names)) < len(names):
            raise ConfigError(f"column names must be different and not empty, got {', '.join(map(repr, names))}")
        if taken := {"width", "height"} & set(names):
            raise ConfigError(f"{taken.pop()!r} is a column that pack writes itself: choose another column name")


@dataclass(frozen=True)
class Limits:
    """How the pool is cut: bytes of a file, bytes and rows of a row group. A single larger row still gets a row group
    of its own."""

    file_bytes: int = 512 * MIB
    row_group_bytes: int = 32 * MIB
    row_group_rows: int = 16_384

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise ConfigError(f"{name} must be at least 1, got {value}")


@dataclass(frozen=True)
class Packed:
    """What became of a piece.

    Attributes:
        batch: its rows, at most about PIECE_BYTES (a single row may be larger); None where there are none.
        done: items done, from the first on; less than all where the rows would have grown too large.
        set_aside: (name, reason) of what gave no row, in order. What follows a colon in a reason is detail.
        headerless: pictures packed though their header cannot be read.
    """

    batch: pa.RecordBatch | None
    done: int
    set_aside: Sequence[tuple[str, str]] = ()
    headerless: int = 0


Piece = Sequence[Any]
"""Consecutive items of a source's listing, of a kind that only the source knows; they pickle."""


def as_it_is(piece: Sequence[pa.RecordBatch]) -> Packed:
    """The work of a source whose items are its rows."""
    return Packed(piece[0], 1)


@dataclass(frozen=True)
class Source:
    """Rows to pack.

    Attributes:
        schema: of every batch.
        rows: how many rows there are, None when unknown; an upper bound for a folder.
        fingerprint: of what is packed, as far as it can be had without reading all of it: a source that has changed
            is noticed by it when a killed pack goes on.
        pieces: `pieces(start)` lists the work from item `start` on. The same every time.
        work: turns a piece into rows; pickles where it is not light. A row never depends on where pieces end.
        packed: binary columns to compress, by their Parquet paths; encoded pictures are none.
        light: the work is less than handing it to a worker.
    """

    schema: pa.Schema
    rows: int | None
    fingerprint: str
    pieces: Callable[[int], Iterator[Piece]]
    work: Callable[[Any], Packed]
    packed: frozenset[str] = frozenset()
    light: bool = False


@dataclass
class Tally:
    """What a source left out, and pictures packed without a readable header, counted while it runs."""

    skipped: Counter[str] = field(default_factory=Counter)
    unreadable: list[str] = field(default_factory=list)
    headerless: int = 0

    def skip(self, name: str, reason: str) -> None:
        """Counts one entry under its reason, and names it if it is among the first that could not be read."""
        kind = reason.partition(":")[0]
        self.skipped[kind] += 1
        if kind == UNREADABLE and len(self.unreadable) < NAMED_UNREADABLE:
            self.unreadable.append(name)


@dataclass(frozen=True)
class PackSummary:
    """What `pack` wrote.

    Attributes:
        rows: rows in the pool.
        files: Parquet files.
        bytes: their size on disk.
        skipped: entries of the source that were left out, by reason ("unreadable" among them).
        unreadable: the first 20 names that could not be read.
        columns: column name → Arrow type, in the order of the pool.
        headerless: pictures of a folder that were packed though their header cannot be read (null width and height).
        set_aside: the file that names what was left out, with the reasons; None where nothing was.
        resumed: rows that an earlier, stopped pack had written.
    """

    rows: int
    files: int
    bytes: int
    skipped: Mapping[str, int]
    unreadable: tuple[str, ...]
    columns: Mapping[str, str]
    headerless: int = 0
    set_aside: str | None = None
    resumed: int = 0

    def __str__(self) -> str:
        columns = ", ".join(f"{printable(name)} ({kind})" for name, kind in self.columns.items())
        text = f"Packed {amount(self.rows, 'row')} in {amount(self.files, 'file')}, {self.bytes / 1e6:,.1f} MB. "
        text += f"Columns: {columns}."
        if self.resumed:
            text += f" Of these, {self.resumed:,} were there from an earlier try."
        if self.headerless:
            pictures = "picture has" if self.headerless == 1 else "pictures have"
            text += f" {self.headerless:,} {pictures} no readable header and will be set aside when scored."
        if self.skipped:
            text += f" Left out: {counted(self.skipped)}" + (f"; named in {self.set_aside}." if self.set_aside else ".")
        if self.unreadable:
            more = self.skipped.get(UNREADABLE, 0) - len(self.unreadable)
            text += f" Could not be read: {', '.join(map(printable, self.unreadable))}"
            text += f" and {more:,} more." if more > 0 else "."
        return text


def counted(skipped: Mapping[str, int]) -> str:
    """Reasons with their counts, most frequent first: `12 hidden, 3 not an image`."""
    ordered = sorted(skipped.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count:,} {reason}" for reason, count in ordered)


def printable(name: str) -> str:
    """A name as it may stand in one line of a message: escaped where it holds line breaks or control characters."""
    return name if name and name.isprintable() else ascii(name)


def file_fingerprint(*files: Path) -> str:
    """Names, sizes and times of files; nothing is read. A file that is gone counts as empty."""
    seen = sha256()
    for file in files:
        try:
            status = file.stat()
            seen.update(f"{file.name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode(errors="surrogateescape"))
        except OSError:
            seen.update(f"{file.name}\n".encode(errors="surrogateescape"))
    return seen.hexdigest()[:16]
