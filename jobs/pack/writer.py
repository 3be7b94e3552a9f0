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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from poolscore.engine.errors import ConfigError, StoppedError
from poolscore.engine.storage.filesystem import reason
from poolscore.jobs.pack.contract import MIB, Limits
from poolscore.jobs.pack.destination import FAILURES, Destination
from poolscore.jobs.pack.parts import MARK, TEMPORARY, final_name, is_part
from poolscore.jobs.pack.row_bytes import row_bytes

# Parquet looks at the page size once per write batch: small batches keep pages near 1 MiB when cells are large.
_WRITE_BATCH_ROWS = 8


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
        self._schema = schema.with_metadata({**(schema.metadata or {}), **MARK})
        self._pending: list[pa.RecordBatch] = []
        self._pending_rows = self._pending_bytes = 0
        self._parts = list(kept)
        self.rows = 0
        self._on_part = on_part
        self._sink: pa.NativeFile | None = None
        self._writer: pq.ParquetWriter | None = None

    def __enter__(self) -> PoolWriter:
        try:
            for name in {name for name in self._pool.entries() if TEMPORARY.fullmatch(name)} - set(self._parts):
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
