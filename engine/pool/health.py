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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from shlex import quote
from statistics import median_low
from typing import Any

import pyarrow.parquet as pq

from poolscore.engine.pool.columns import ColumnFacts
from poolscore.engine.words import amount

MB = 1_000_000
HUGE_GROUP = 256 * MB
"""Bytes of a row group, unpacked, above which reading it takes memory that nobody planned for."""
TINY_GROUP = MB // 4
TINY_FILE = 4 * MB
MANY = 16
"""Fewer tiny files or row groups than this cost nothing worth a word."""


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
    numbers = range(metadata.num_columns) if groups else ()
    chunks = [[group.column(number) for group in groups] for number in numbers]
    columns = [ColumnFacts(metadata.schema.column(number), of) for number, of in zip(numbers, chunks, strict=True)]
    nulls = {column.path: _nulls(of) for column, of in zip(columns, chunks, strict=True)}
    text = str(metadata.schema.to_arrow_schema().remove_metadata())
    return FileHealth(
        bytes=sum(column.packed for column in columns),
        group_rows=tuple(group.num_rows for group in groups),
        group_bytes=tuple(group.total_byte_size for group in groups),
        schema=sha256(text.encode(errors="replace")).hexdigest()[:16],
        codecs={column.path: column.codec or "UNCOMPRESSED" for column in columns},
        compressed_twice=tuple(column.path for column in columns if column.compressed_twice),
        compressed=tuple(column.path for column in columns if column.binary and column.saved),
        dictionary=tuple(column.path for column in columns if column.dictionary_of_large),
        nulls={path: count for path, count in nulls.items() if count is not None},
        empty=tuple(column.path for column, of in zip(columns, chunks, strict=True) if _has_empty(of)),
    )


def _nulls(chunks: Sequence[pq.ColumnChunkMetaData]) -> int | None:
    """None: not every row group has counted them."""
    every = [_statistics(chunk) for chunk in chunks]
    return (
        sum(one.null_count for one in every) if all(one is not None and one.has_null_count for one in every) else None
    )


def _has_empty(chunks: Sequence[pq.ColumnChunkMetaData]) -> bool:
    of_bytes = [_statistics(chunk) for chunk in chunks if chunk.physical_type == "BYTE_ARRAY"]
    return any(one is not None and one.has_min_max and one.min_raw == b"" for one in of_bytes)


def _statistics(chunk: pq.ColumnChunkMetaData) -> Any:
    return chunk.statistics if chunk.is_stats_set else None


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
