"""Writes a pool: cuts row groups and files, and commits them all at the end.

Where a row group or a file ends depends on the rows and the limits alone, not on how the rows arrive: the same rows
give the same bytes. Parts are written under `.part-NNNNN.parquet.tmp` in the pool, synced, and renamed
only when all of them are whole. A stopped pack therefore leaves temporary names only, which no reader of
`*.parquet` takes up; whole ones are kept for the next try (`journal.py`). One pack at a time may write to a pool. The
renames take milliseconds (in object storage: a copy of each file), not an instant: a power cut just then leaves whole
files, but not all of them.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from poolscore.engine.errors import ConfigError, StoppedError
from poolscore.engine.filesystem import reason
from poolscore.jobs.pack.contract import MIB, Limits
from poolscore.jobs.pack.destination import FAILURES, Destination
from poolscore.jobs.pack.journal import JOURNAL, Journal
from poolscore.jobs.pack.set_aside import LIST, UNFINISHED

_PART = re.compile(r"part-\d{5,}\.parquet")
_TEMPORARY = re.compile(r"\.part-\d{5,}\.parquet\.tmp")
_MARK = {b"poolscore.pack": b"1"}
"""In the metadata of every part: `--overwrite` takes up and removes only parts that carry it."""
_OFFSET_BYTES = 4
# Parquet looks at the page size once per write batch: small batches keep pages near 1 MiB when cells are large.
_WRITE_BATCH_ROWS = 8


def check_pool(pool: Destination, *, overwrite: bool) -> None:
    """Refuses a pool that cannot be written to; changes nothing.

    Raises:
        ConfigError: it is a file, or holds anything but what a stopped pack left. With `overwrite` it may also hold
            hidden entries and a pool that pack wrote.
    """
    try:
        entries = sorted(name for name in pool.entries() if not _TEMPORARY.fullmatch(name))
        if JOURNAL in entries:  # parts and list lie under their names where a pack was stopped amid its commit
            left = {JOURNAL, UNFINISHED, LIST} | Journal(pool).names()
            entries = [name for name in entries if name not in left]
    except NotADirectoryError as error:
        raise ConfigError(f"POOL {pool.path} is a file: name a folder") from error
    except FAILURES as error:
        raise ConfigError(f"cannot read POOL {pool.path}: {reason(error)}; name another folder") from error
    if entries and not overwrite:
        raise ConfigError(
            f"POOL {pool.path} is not empty (it holds {entries[0]!r}): choose another folder, or replace an older pool "
            "of pack with `--overwrite`"
        )
    foreign = next((name for name in entries if name != LIST and name[0] != "." and not is_part(pool, name)), None)
    if foreign is not None:
        raise ConfigError(
            f"POOL {pool.path} holds {foreign!r}, which pack did not write: `--overwrite` replaces only folders that "
            "hold nothing but a pool of pack; choose another folder"
        )


class PoolWriter:
    """Collects rows into row groups and row groups into files. Use as a context; leaving it removes the part that is
    not whole.

    Attributes:
        rows: rows on disk that this writer wrote.

    Args:
        kept: whole parts of an earlier try; the rows that follow them are to come.
        on_part: called with the name of a part that is whole and sealed, and the rows written since this writer began.
        packed: binary columns that are compressed all the same.
    """

    def __init__(
        self,
        pool: Destination,
        schema: pa.Schema,
        limits: Limits,
        kept: Sequence[str] = (),
        on_part: Callable[[str, int], object] | None = None,
        packed: frozenset[str] = frozenset(),
    ) -> None:
        self._packed = packed
        self._pool, self._limits = pool, limits
        self._schema = schema.with_metadata({**(schema.metadata or {}), **_MARK})
        self._pending: list[pa.RecordBatch] = []
        self._pending_rows = self._pending_bytes = 0
        self._parts = list(kept)
        self.rows = 0
        self._on_part = on_part
        self._sink: pa.NativeFile | None = None
        self._writer: pq.ParquetWriter | None = None

    def __enter__(self) -> PoolWriter:
        try:
            for name in {name for name in self._pool.entries() if _TEMPORARY.fullmatch(name)} - set(self._parts):
                self._pool.remove(name)
        except FAILURES as error:
            raise ConfigError(
                f"cannot write to POOL {self._pool.path}: {reason(error)}; name another folder"
            ) from error
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        unfinished = self._parts[-1] if self._sink is not None else None
        with suppress(*FAILURES):  # what is left open is removed just below
            if self._writer is not None:
                self._writer.close()
        with suppress(*FAILURES):
            if self._sink is not None:
                self._sink.close()
        self._sink = self._writer = None
        with suppress(*FAILURES):
            if unfinished is not None:
                self._pool.remove(unfinished)

    def write(self, batch: pa.RecordBatch) -> None:
        """Adds rows; full row groups go to disk. At most one row group is held.

        Raises:
            StoppedError: the disk is full or failed.
        """
        limits = self._limits
        ends = np.cumsum(row_bytes(batch))
        start = 0
        while start < batch.num_rows:
            before = int(ends[start - 1]) if start else 0
            fit = (
                int(np.searchsorted(ends, before + limits.row_group_bytes - self._pending_bytes, side="right")) - start
            )
            fit = min(fit, limits.row_group_rows - self._pending_rows)
            if fit < 1 and self._pending:
                self._flush()
                continue
            stop = start + max(fit, 1)
            self._pending.append(batch.slice(start, stop - start))
            self._pending_rows += stop - start
            self._pending_bytes += int(ends[stop - 1]) - before
            start = stop

    def finish(self) -> None:
        """Completes the last file.

        Raises:
            StoppedError: the disk is full or failed.
        """
        if self._pending:
            self._flush()
        with self._storage():
            self._close_file()

    def commit(self) -> list[str]:
        """Completes the last file and gives all files their final names; older parts of pack are removed.

        Returns:
            Names of the files of the pool, in order.

        Raises:
            StoppedError: the disk is full or failed.
        """
        self.finish()
        with self._storage():
            final = [final_name(part) for part in self._parts]
            for part, name in zip(self._parts, final, strict=True):
                if part != name:
                    self._pool.rename(part, name)
            for name in self._pool.entries() - set(final):
                if is_part(self._pool, name):
                    self._pool.remove(name)
            self._pool.finish()
        return final

    def _flush(self) -> None:
        """Writes the pending rows as one row group, into a new file where this one would grow too large."""
        # In one chunk: pages end where chunks end.
        table = pa.Table.from_batches(self._pending, schema=self._schema).combine_chunks()
        with self._storage():
            if self._sink is not None and self._sink.tell() + self._pending_bytes > self._limits.file_bytes:
                self._close_file()
            if self._writer is None:
                self._open_file()
            assert self._writer is not None
            self._writer.write_table(table, row_group_size=table.num_rows)
        self.rows += table.num_rows
        self._pending = []
        self._pending_rows = self._pending_bytes = 0

    def _open_file(self) -> None:
        part = f".part-{len(self._parts):05d}.parquet.tmp"
        self._parts.append(part)
        self._sink = self._pool.create(part)
        compressed, indexed = _column_treatment(self._schema, self._packed)
        self._writer = pq.ParquetWriter(
            self._sink,
            self._schema,
            compression=dict.fromkeys(compressed, "zstd"),
            use_dictionary=indexed,
            write_statistics=indexed,
            data_page_size=MIB,
            write_batch_size=_WRITE_BATCH_ROWS,
        )

    def _close_file(self) -> None:
        if self._writer is not None and self._sink is not None:
            self._writer.close()
            self._sink.close()
            self._pool.seal(self._parts[-1])
            self._writer = self._sink = None
            if self._on_part:
                self._on_part(self._parts[-1], self.rows)

    @contextmanager
    def _storage(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoppedError(
                f"writing POOL {self._pool.path} failed: {reason(error)}; mend that or name another folder, then "
                "pack again"
            ) from error


def row_bytes(batch: pa.RecordBatch) -> NDArray[np.int64]:
    """Bytes of data of each row, [N]; the same however the rows are cut into batches."""
    sizes = np.zeros(batch.num_rows, np.int64)
    for column in batch.columns:
        sizes += _cell_bytes(column)
    return sizes


def _cell_bytes(cells: pa.Array) -> NDArray[np.int64] | int:
    if isinstance(cells, pa.ExtensionArray):
        return _cell_bytes(cells.storage)
    kind = cells.type
    if pa.types.is_binary_view(kind) or pa.types.is_string_view(kind):
        cells, kind = cells.cast(pa.large_binary()), pa.large_binary()
    if pa.types.is_binary(kind) or pa.types.is_string(kind) or pa.types.is_large_binary(kind) or _is_large_text(kind):
        lengths: NDArray[np.int64] = pc.binary_length(cells).fill_null(0).to_numpy(zero_copy_only=False)
        return lengths.astype(np.int64) + _OFFSET_BYTES
    if pa.types.is_struct(kind):
        return sum((_cell_bytes(part) for part in cells.flatten()), np.zeros(len(cells), np.int64))
    width = _width(kind)
    if width is not None:
        return width
    return np.fromiter((cells.slice(row, 1).nbytes for row in range(len(cells))), np.int64, len(cells))


def _width(kind: pa.DataType) -> int | None:
    """Bytes of a cell of a type of fixed width; None of others."""
    if pa.types.is_fixed_size_list(kind):
        width = _width(kind.value_type)
        return None if width is None else width * kind.list_size
    try:
        return -(-int(kind.bit_width) // 8)
    except ValueError:
        return 0 if pa.types.is_null(kind) else None


def _is_large_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_large_string(kind))


def _column_treatment(schema: pa.Schema, packed: frozenset[str]) -> tuple[list[str], list[str]]:
    """Parquet paths of the columns to compress, and of those that get dictionary and statistics. Binary values (encoded
    pictures) get neither, but for those in `packed`; lists of numbers (tensors) are compressed only."""
    sink = io.BytesIO()
    pq.ParquetWriter(sink, schema).close()
    leaves = pq.read_metadata(sink).schema
    compressed, indexed = [], []
    for number in range(len(leaves)):
        leaf = leaves.column(number)
        is_text_or_binary = leaf.physical_type == "BYTE_ARRAY"
        is_binary = is_text_or_binary and leaf.logical_type.type == "NONE"
        if not is_binary or leaf.path in packed:
            compressed.append(leaf.path)
        if not is_binary and (is_text_or_binary or not leaf.max_repetition_level):
            indexed.append(leaf.path)
    return compressed, indexed


def final_name(part: str) -> str:
    """`part-00000.parquet` of `.part-00000.parquet.tmp`, also of itself."""
    return part.removeprefix(".").removesuffix(".tmp")


def is_part(pool: Destination, name: str) -> bool:
    """Whether an entry of a pool is a part that pack wrote: by its name and the mark in it."""
    if not _PART.fullmatch(name) or pool.size(name) is None:
        return False
    try:
        with pool.open(name) as file:
            metadata = pq.read_metadata(file).metadata or {}
    except FAILURES:
        return False
    return _MARK.items() <= metadata.items()
