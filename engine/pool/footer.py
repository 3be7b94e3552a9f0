"""Step 1b: what the footer of one Parquet file tells. One read of the file's end, as a rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pyarrow import fs

from poolscore.engine.errors import ConfigError
from poolscore.engine.pool.columns import binary_columns
from poolscore.engine.storage.filesystem import reason, repeated

TAIL = 64 << 10  # bytes; most footers are shorter, and a read of so much costs what a shorter one does
END = 8  # bytes: the footer's length, and MAGIC
MAGIC = b"PAR1"
Keep = Callable[[str, pa.Schema], pc.Expression]


class UnreadableFile(ConfigError):
    """A file of the pool that cannot be read, or is no Parquet."""


@dataclass(frozen=True)
class PoolFile:
    """One Parquet file as its footer describes it."""

    path: str  # relative to the pool's root, POSIX; part of the key of rows without an id
    bytes: int
    modified: int  # nanoseconds since 1970
    fingerprint: str  # of the footer: offsets, sizes, statistics
    schema: pa.Schema
    group_rows: tuple[int, ...]  # of each row group
    group_bytes: tuple[int, ...]  # of each row group, before compression
    matches: tuple[bool, ...]  # of each row group: false if its statistics rule the filter out
    compressed_twice: tuple[str, ...] = ()  # columns of pictures on which the codec saves nothing
    codecs: tuple[str, ...] = ()  # of these columns
    dictionary: tuple[str, ...] = ()  # columns of pictures that are dictionary-encoded


def read_footer(
    filesystem: fs.FileSystem, root: str, path: str, modified: int = 0, keep: Keep | None = None
) -> PoolFile:
    """Read the footer of `root`/`path`.

    Args:
        filesystem: that `root` is a path in.
        modified: the file's time, nanoseconds since 1970.
        keep: gives, for path and schema, the expression that rows must fulfil; row groups whose statistics rule it
            out do not match.

    Raises:
        UnreadableFile: names the file that cannot be read, is cut short or no Parquet.
        ConfigError: the expression does not fit the file.
    """
    where = f"{root}/{path}"
    try:
        metadata, footer, size = repeated(lambda: read_metadata(filesystem, where), where)
        schema = metadata.schema.to_arrow_schema()
        groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
        matches = (True,) * len(groups) if keep is None else _matching(footer, len(groups), keep(path, schema))
    except OSError as error:
        raise UnreadableFile(f"{where} cannot be read ({reason(error)})") from error
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise UnreadableFile(f"{where} is no complete Parquet file; write it again or take it out") from error
    columns = binary_columns(metadata, groups)
    return PoolFile(
        path=path,
        bytes=size,
        modified=modified,
        fingerprint=sha256(memoryview(footer)[:-END]).hexdigest()[:16],
        schema=schema,
        group_rows=tuple(group.num_rows for group in groups),
        group_bytes=tuple(group.total_byte_size for group in groups),
        matches=matches,
        compressed_twice=tuple(column.path for column in columns if column.compressed_twice),
        codecs=tuple(column.codec for column in columns if column.compressed_twice),
        dictionary=tuple(column.path for column in columns if column.dictionary_of_large),
    )


def read_metadata(filesystem: fs.FileSystem, where: str) -> tuple[pq.FileMetaData, pa.Buffer, int]:
    """The footer of a file: parsed, as it is, and the size of the file.

    Raises:
        OSError: it cannot be read.
        pa.ArrowException: it is cut short, or no Parquet.
    """
    with filesystem.open_input_file(where) as file:
        size = file.size()
        footer = _footer_of(file, size)
    return pq.read_metadata(pa.BufferReader(footer)), footer, size


def _footer_of(file: pa.NativeFile, size: int) -> pa.Buffer:
    """The footer with the file's last bytes: a Parquet file in itself, as far as metadata go."""
    tail = file.read_at(min(TAIL, size), max(0, size - TAIL))
    needed = END + int.from_bytes(tail[-END : -len(MAGIC)], "little")
    if tail[-len(MAGIC) :] != MAGIC or not END < needed <= size - len(MAGIC):
        raise pa.ArrowInvalid("it does not end with the footer of a Parquet file")
    if needed > len(tail):
        tail = file.read_at(needed, size - needed)
    return pa.py_buffer(tail[-needed:])


def _matching(footer: pa.Buffer, groups: int, keep: pc.Expression) -> tuple[bool, ...]:
    """All, where Arrow cannot hold the expression against statistics, such as a number against a decimal's: whether it
    fits the column is told by `RowChoice.check`."""
    try:
        fragment = ds.ParquetFileFormat().make_fragment(footer).subset(filter=keep)
    except pa.ArrowException:
        return (True,) * groups
    matching = {group.id for group in fragment.row_groups}
    return tuple(i in matching for i in range(groups))
