"""What the footers of a pool tell about its shape, and what to do about it. Nothing but footers is read.

    health = PoolHealth()
    for path, metadata in footers:
        health.add(path, look(metadata))   # `look` may run anywhere: its result is small and pickles
    for finding in health.findings("photos/"):
        print(finding)

`plan` warns with it, `doctor` prints it.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from shlex import quote
from statistics import median_low

import pyarrow.parquet as pq

from poolscore.engine.words import amount

MB = 1_000_000
HUGE_GROUP = 256 * MB
"""Bytes of a row group, unpacked, above which reading it takes memory that nobody planned for."""
TINY_GROUP = MB // 4
TINY_FILE = 4 * MB
MANY = 16
"""Fewer tiny files or row groups than this cost nothing worth a word."""
LARGE_VALUE = 512
"""Mean bytes of a value from which a binary column is taken for encoded pictures."""
SAVES_NOTHING = 0.9
"""Packed bytes to unpacked bytes: a codec that does no better works on what is compressed already."""


@dataclass(frozen=True)
class FileHealth:
    """One file as its footer tells it.

    Attributes:
        bytes: of the file's row groups as stored, about those of the file.
        group_rows, group_bytes: of each row group; bytes of data before compression.
        schema: a fingerprint of the columns' names and types.
        codecs: column (its path in the schema) → codec.
        compressed_twice: binary columns of large values whose codec saves nothing.
        compressed: other binary columns with a codec: it saves something.
        dictionary: binary columns of large values that are dictionary-encoded.
        nulls: column → nulls, of the columns with statistics in every row group.
        empty: columns whose statistics show an empty value.
    """

    bytes: int
    group_rows: tuple[int, ...]
    group_bytes: tuple[int, ...]
    schema: str
    codecs: Mapping[str, str] = field(default_factory=dict)
    compressed_twice: tuple[str, ...] = ()
    compressed: tuple[str, ...] = ()
    dictionary: tuple[str, ...] = ()
    nulls: Mapping[str, int] = field(default_factory=dict)
    empty: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        """Rows of the file."""
        return sum(self.group_rows)


@dataclass(frozen=True)
class Finding:
    """One thing about a pool that costs time or memory.

    Attributes:
        kind: a name for scripts, such as `huge_row_groups`.
        what: what was found, with numbers.
        where: the first file, or the first rows, it was found in; '' where it is of neither.
        advice: what to do.
    """

    kind: str
    what: str
    where: str
    advice: str

    def __str__(self) -> str:
        return f"{self.what}{f' (first: {self.where})' if self.where else ''}: {self.advice}"


def look(metadata: pq.FileMetaData) -> FileHealth:
    """Takes from a footer what `PoolHealth` needs."""
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    leaves = [_Leaf(metadata, number) for number in range(metadata.num_columns)] if groups else []
    for leaf in leaves:
        for group in groups:
            leaf.add(group.column(leaf.number))
    return FileHealth(
        bytes=sum(leaf.packed for leaf in leaves),
        group_rows=tuple(group.num_rows for group in groups),
        group_bytes=tuple(group.total_byte_size for group in groups),
        schema=sha256(str(metadata.schema.to_arrow_schema().remove_metadata()).encode(errors="replace")).hexdigest()[
            :16
        ],
        codecs={leaf.path: leaf.codec for leaf in leaves},
        compressed_twice=tuple(
            leaf.path for leaf in leaves if leaf.is_large and leaf.is_packed and not leaf.saves_something
        ),
        compressed=tuple(leaf.path for leaf in leaves if leaf.binary and leaf.saves_something),
        dictionary=tuple(leaf.path for leaf in leaves if leaf.is_large and leaf.dictionary),
        nulls={leaf.path: leaf.nulls for leaf in leaves if leaf.nulls is not None},
        empty=tuple(leaf.path for leaf in leaves if leaf.has_empty),
    )


class _Leaf:
    """One column of plain values, added up over the row groups of a file."""

    def __init__(self, metadata: pq.FileMetaData, number: int) -> None:
        column = metadata.schema.column(number)
        self.number, self.path = number, column.path
        self.bytes = column.physical_type == "BYTE_ARRAY"
        self.binary = self.bytes and column.logical_type.type == "NONE"
        self.codec = ""
        self.values = self.packed = self.unpacked = 0
        self.nulls: int | None = 0
        self.dictionary = self.has_empty = False

    def add(self, chunk: pq.ColumnChunkMetaData) -> None:
        self.codec = self.codec or chunk.compression
        self.values += chunk.num_values
        self.packed += chunk.total_compressed_size
        self.unpacked += chunk.total_uncompressed_size
        self.dictionary |= chunk.has_dictionary_page
        statistics = chunk.statistics if chunk.is_stats_set else None
        if statistics is None or not statistics.has_null_count:
            self.nulls = None
        elif self.nulls is not None:
            self.nulls += statistics.null_count
        if statistics is not None and statistics.has_min_max and self.bytes:
            self.has_empty |= statistics.min_raw == b""

    @property
    def is_large(self) -> bool:
        return self.binary and self.unpacked >= LARGE_VALUE * max(1, self.values)

    @property
    def is_packed(self) -> bool:
        return self.codec != "UNCOMPRESSED"

    @property
    def saves_something(self) -> bool:
        return self.is_packed and self.packed <= SAVES_NOTHING * self.unpacked


@dataclass
class _Seen:
    """How often something was seen, and where first."""

    count: int = 0
    where: str = ""

    def add(self, where: str, count: int = 1) -> None:
        if count:
            self.where = self.where or where
            self.count += count


class PoolHealth:
    """Adds up the files of a pool. Memory: 8 bytes a file and 16 bytes a row group."""

    def __init__(self) -> None:
        self.file_bytes = array("q")
        self.group_rows = array("q")
        self.group_bytes = array("q")
        self.schemas: dict[str, _Seen] = {}
        self.codecs: dict[str, set[str]] = {}
        self.nulls: dict[str, int] = {}
        self.empty: dict[str, _Seen] = {}
        self._huge, self._tiny_groups, self._tiny_files, self._no_rows = _Seen(), _Seen(), _Seen(), _Seen()
        self._twice: dict[str, _Seen] = {}
        self._dictionary: dict[str, _Seen] = {}

    @property
    def rows(self) -> int:
        """Rows of all files."""
        return sum(self.group_rows)

    def add(self, path: str, file: FileHealth) -> None:
        """Adds one file; `path` is how findings name it."""
        self.file_bytes.append(file.bytes)
        self.group_rows.extend(file.group_rows)
        self.group_bytes.extend(file.group_bytes)
        if not file.rows:  # a writer without rows cannot tell types; nothing is read from it
            self._no_rows.add(path)
            return
        self.schemas.setdefault(file.schema, _Seen()).add(path)
        self._huge.add(path, sum(size > HUGE_GROUP for size in file.group_bytes))
        self._tiny_groups.add(path, sum(size < TINY_GROUP for size in file.group_bytes))
        self._tiny_files.add(path, int(file.bytes < TINY_FILE))
        for column, codec in file.codecs.items():
            self.codecs.setdefault(column, set()).add(codec)
        for column, count in file.nulls.items():
            self.nulls[column] = self.nulls.get(column, 0) + count
        for columns, seen in (
            (file.compressed_twice, self._twice),
            (file.dictionary, self._dictionary),
            (file.empty, self.empty),
        ):
            for column in columns:
                seen.setdefault(column, _Seen()).add(path)

    def findings(self, pool: str = "POOL") -> list[Finding]:
        """What is worth mending, the dearest first.

        Args:
            pool: how the advice names the pool.
        """
        repack = f"repack it: `poolscore pack {quote(pool)} NEW`"
        if len(self.schemas) > 1:
            repack = f"give all files the same columns and types, then {repack}"
        return list(self._findings(repack))

    def _findings(self, repack: str) -> Iterator[Finding]:
        files, groups = len(self.file_bytes), len(self.group_bytes)
        of_all = amount(files, "file")
        if huge := self._huge.count:
            largest = max(self.group_bytes) // MB
            what = f"{huge:,} of {amount(groups, 'row group')} over {HUGE_GROUP // MB} MB, up to {largest:,} MB"
            yield Finding("huge_row_groups", what, self._huge.where, repack)
        for column, seen in self._twice.items():
            codecs = "/".join(sorted(self.codecs[column] - {"UNCOMPRESSED"}))
            what = f"column '{column}' is compressed twice in {seen.count:,} of {of_all}: {codecs} saves nothing"
            yield Finding("compressed_twice", what, seen.where, repack)
        for column, seen in self._dictionary.items():
            what = f"column '{column}' of large values is dictionary-encoded in {seen.count:,} of {of_all}"
            yield Finding("dictionary_encoded", what, seen.where, repack)
        if (tiny := self._tiny_files.count) >= MANY and 2 * tiny > files:
            middle = median_low(self.file_bytes) / MB
            what = f"{tiny:,} of {of_all} are under {TINY_FILE // MB} MB, half of all under {middle:.2g} MB"
            yield Finding("tiny_files", what, self._tiny_files.where, repack)
        elif (tiny := self._tiny_groups.count) >= MANY and 2 * tiny > groups:
            what = f"{tiny:,} of {amount(groups, 'row group')} are under {TINY_GROUP // 1000} kB"
            yield Finding("tiny_row_groups", what, self._tiny_groups.where, repack)
        if len(self.schemas) > 1:
            rare = min(self.schemas.values(), key=lambda seen: seen.count)
            what = f"{len(self.schemas)} different schemas, the rarest in {rare.count:,} of {of_all}"
            yield Finding("differing_schemas", what, rare.where, "write all files with the same columns and types")
        if self._no_rows.count:
            what = f"{self._no_rows.count:,} of {of_all} without rows"
            yield Finding("files_without_rows", what, self._no_rows.where, "take them out")
