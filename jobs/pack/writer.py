"""Writes a pool: cuts row groups and files, and commits them all at the end.

Parts are written under `.part-NNNNN.parquet.tmp` in the pool folder, synced, and renamed atomically only when
all of them are whole. A killed pack therefore leaves temporary names only, which no reader of `*.parquet` takes up and
which the next pack into that folder removes. One pack at a time may write to a pool. The renames take
milliseconds, not an instant: a power cut just then leaves whole files, but not all of them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

import pyarrow as pa
import pyarrow.parquet as pq

from poolscore.engine.errors import ConfigError, StoppedError
from poolscore.jobs.pack.contract import MIB, Limits

_PART = re.compile(r"part-\d{5,}\.parquet")
_TEMPORARY = re.compile(r"\.part-\d{5,}\.parquet\.tmp")
_MARK = {b"poolscore.pack": b"1"}
"""In the metadata of every part: `--overwrite` takes up and removes only parts that carry it."""
# Parquet looks at the page size once per write batch: small batches keep pages near 1 MiB when cells are large.
_WRITE_BATCH_ROWS = 8


def check_pool(pool: Path, *, overwrite: bool) -> None:
    """Refuses a pool folder that cannot be written to; changes nothing.

    Raises:
        ConfigError: `pool` is a file, or holds anything but temporary files of a killed pack. With `overwrite` it may
            also hold hidden entries and parts that pack wrote.
    """
    if not pool.exists():
        return
    if not pool.is_dir():
        raise ConfigError(f"POOL {pool} is a file: name a folder")
    try:
        entries = sorted(entry for entry in pool.iterdir() if not _TEMPORARY.fullmatch(entry.name))
    except OSError as error:
        raise ConfigError(f"cannot read POOL {pool}: {error.strerror}; name another folder") from error
    if entries and not overwrite:
        raise ConfigError(
            f"POOL {pool} is not empty (it holds {entries[0].name!r}): choose another folder, or replace an older pool "
            "of pack with `--overwrite`"
        )
    foreign = next((entry for entry in entries if not entry.name.startswith(".") and not _is_ours(entry)), None)
    if foreign is not None:
        raise ConfigError(
            f"POOL {pool} holds {foreign.name!r}, which pack did not write: `--overwrite` replaces only folders that "
            "hold nothing but a pool of pack; choose another folder"
        )


class PoolWriter:
    """Collects pieces into row groups and row groups into files. Use as a context; leaving it without `commit` (an
    error, Ctrl-C) removes what was written."""

    def __init__(self, pool: Path, schema: pa.Schema, limits: Limits) -> None:
        self._pool, self._limits = pool, limits
        self._schema = schema.with_metadata({**(schema.metadata or {}), **_MARK})
        self._pending: list[pa.RecordBatch] = []
        self._pending_rows = self._pending_bytes = 0
        self._parts: list[Path] = []
        self._sink: pa.OSFile | None = None
        self._writer: pq.ParquetWriter | None = None
        self._created = False

    def __enter__(self) -> PoolWriter:
        try:
            self._created = not self._pool.exists()
            self._pool.mkdir(parents=True, exist_ok=True)
            _remove(entry for entry in self._pool.iterdir() if _TEMPORARY.fullmatch(entry.name))
        except OSError as error:
            raise ConfigError(f"cannot write to POOL {self._pool}: {error.strerror}; name another folder") from error
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with suppress(OSError, pa.ArrowException):  # what is left open is removed just below
            if self._writer is not None:
                self._writer.close()
        with suppress(OSError, pa.ArrowException):
            if self._sink is not None:
                self._sink.close()
        self._sink = self._writer = None
        _remove(self._parts)
        if self._created and not any(self._pool.iterdir()):
            self._pool.rmdir()

    def write(self, batch: pa.RecordBatch) -> None:
        """Adds rows; full row groups go to disk. At most one row group is held.

        Raises:
            StoppedError: the disk is full or failed.
        """
        limits = self._limits
        for piece in _within(batch, limits.row_group_rows, limits.row_group_bytes):
            rows, size = piece.num_rows, piece.nbytes
            too_large = self._pending_bytes + size > limits.row_group_bytes
            if self._pending and (too_large or self._pending_rows == limits.row_group_rows):
                self._flush()
            if self._pending_rows + rows > limits.row_group_rows:
                room = limits.row_group_rows - self._pending_rows
                self._add(piece.slice(0, room))
                self._flush()
                piece = piece.slice(room)
            self._add(piece)

    def commit(self) -> list[Path]:
        """Completes the last file and gives all files their final names; older parts of pack are removed.

        Returns:
            The files of the pool, in order.

        Raises:
            StoppedError: the disk is full or failed.
        """
        if self._pending:
            self._flush()
        with self._storage():
            self._close_file()
            final = [self._pool / part.name[1:].removesuffix(".tmp") for part in self._parts]
            for part, name in zip(self._parts, final, strict=True):
                part.replace(name)
            _remove(entry for entry in set(self._pool.iterdir()) - set(final) if _is_ours(entry))
            _sync(self._pool)
        self._parts = []
        return final

    def _add(self, piece: pa.RecordBatch) -> None:
        self._pending.append(piece)
        self._pending_rows += piece.num_rows
        self._pending_bytes += piece.nbytes

    def _flush(self) -> None:
        """Writes the pending rows as one row group, into a new file where this one would grow too large."""
        table = pa.Table.from_batches(self._pending, schema=self._schema)
        with self._storage():
            if self._sink is not None and self._sink.tell() + self._pending_bytes > self._limits.file_bytes:
                self._close_file()
            if self._writer is None:
                self._open_file()
            assert self._writer is not None
            self._writer.write_table(table, row_group_size=table.num_rows)
        self._pending = []
        self._pending_rows = self._pending_bytes = 0

    def _open_file(self) -> None:
        part = self._pool / f".part-{len(self._parts):05d}.parquet.tmp"
        self._parts.append(part)
        self._sink = pa.OSFile(str(part), "wb")
        compressed, indexed = _column_treatment(self._schema)
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
            _sync(self._parts[-1])
        self._writer = self._sink = None

    @contextmanager
    def _storage(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or " ".join(str(error).split())
            raise StoppedError(
                f"writing POOL {self._pool} failed: {reason}; free space or name another folder, then pack again"
            ) from error


def _within(batch: pa.RecordBatch, rows: int, size: int) -> Iterator[pa.RecordBatch]:
    """Halves a batch until each part keeps both limits; a single row is never cut."""
    if batch.num_rows <= 1 or (batch.num_rows <= rows and batch.nbytes <= size):
        if batch.num_rows:
            yield batch
        return
    half = batch.num_rows // 2
    yield from _within(batch.slice(0, half), rows, size)
    yield from _within(batch.slice(half), rows, size)


def _column_treatment(schema: pa.Schema) -> tuple[list[str], list[str]]:
    """Parquet paths of the columns to compress, and of those that get dictionary and statistics. Encoded images get
    neither; tensors are compressed only."""
    compressed, indexed = [], []
    for field in schema:
        if isinstance(field.type, pa.FixedShapeTensorType):
            compressed.append(f"{field.name}.list.element")
        elif not pa.types.is_binary(field.type):
            compressed.append(field.name)
            indexed.append(field.name)
    return compressed, indexed


def _is_ours(entry: Path) -> bool:
    """Whether an entry of a pool folder is a part that pack wrote: by its name and the mark in it."""
    if not _PART.fullmatch(entry.name) or entry.is_symlink() or not entry.is_file():
        return False
    try:
        metadata = pq.read_metadata(entry).metadata or {}
    except (OSError, pa.ArrowException):
        return False
    return _MARK.items() <= metadata.items()


def _remove(files: Iterable[Path]) -> None:
    for file in list(files):
        file.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """fsync of a file or (except on Windows) a folder."""
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
