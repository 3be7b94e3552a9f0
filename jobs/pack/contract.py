"""What the parts of `pack` hand to each other.

A source gives a `Source`: a schema and an iterator of small record batches ("pieces" of about 1 MiB). The writer cuts
row groups and files from them. Neither knows the other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import pyarrow as pa

from poolscore.engine.errors import ConfigError

MIB = 1 << 20
PIECE_BYTES = MIB
"""Bytes of data that a source aims at in one piece."""
PIECE_ROWS = 1024
"""Rows that a source puts in one piece at most (a CSV block may hold more)."""
MAX_ROW_BYTES = 1024 * MIB
"""The largest file or array row that is packed: what one cell of an Arrow column holds comfortably."""
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
class Source:
    """Rows to pack.

    Attributes:
        schema: of every batch.
        rows: how many rows `batches` gives, None when unknown; an upper bound for a folder.
        batches: pieces in the order of the pool, to be read once.
    """

    schema: pa.Schema
    rows: int | None
    batches: Iterator[pa.RecordBatch]


@dataclass
class Tally:
    """What a source left out, and pictures packed without a readable header, counted while it runs."""

    skipped: Counter[str] = field(default_factory=Counter)
    unreadable: list[str] = field(default_factory=list)
    headerless: int = 0

    def skip(self, reason: str) -> None:
        """Counts one entry under its reason."""
        self.skipped[reason] += 1

    def cannot_read(self, name: str) -> None:
        """Counts one file that could not be read, and names it if it is among the first."""
        self.skip("unreadable")
        if len(self.unreadable) < NAMED_UNREADABLE:
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
    """

    rows: int
    files: int
    bytes: int
    skipped: Mapping[str, int]
    unreadable: tuple[str, ...]
    columns: Mapping[str, str]
    headerless: int = 0

    def __str__(self) -> str:
        rows = f"{self.rows:,} row{'' if self.rows == 1 else 's'}"
        files = f"{self.files} file{'' if self.files == 1 else 's'}"
        columns = ", ".join(f"{printable(name)} ({kind})" for name, kind in self.columns.items())
        text = f"Packed {rows} in {files}, {self.bytes / 1e6:,.1f} MB. Columns: {columns}."
        if self.headerless:
            pictures = "picture has" if self.headerless == 1 else "pictures have"
            text += f" {self.headerless:,} {pictures} no readable header and will be set aside when scored."
        if self.skipped:
            text += f" Left out: {counted(self.skipped)}."
        if self.unreadable:
            more = self.skipped.get("unreadable", 0) - len(self.unreadable)
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
