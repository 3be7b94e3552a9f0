"""IDX files (MNIST and its kin), plain or gzip: a magic number, big-endian counts, then the numbers.

Magic: two zero bytes, a byte for the type, a byte for the number of dimensions; then one uint32 a dimension.
http://yann.lecun.com/exdb/mnist, "the IDX file format".
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Iterator
from functools import partial
from math import prod
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from poolscore.engine.errors import ConfigError
from poolscore.jobs.pack.arrays import Array, ArrayRows, read_blocks
from poolscore.jobs.pack.contract import MIB

_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_GZIP = b"\x1f\x8b"
_BROKEN = (EOFError, zlib.error, OSError)


def open_idx_images(path: Path) -> ArrayRows:
    """uint8 images [N, H, W] or [N, H, W, 3].

    Raises:
        ConfigError: unreadable, not IDX, not such images, or a length that is not what the header states.
    """
    rows = open_idx(path)
    if rows.dtype != np.uint8 or not (len(rows.shape) == 3 or (len(rows.shape) == 4 and rows.shape[3] == 3)):
        raise ConfigError(
            f"{path} holds {rows.dtype.name} {list(rows.shape)}: images are uint8 [N, H, W] or [N, H, W, 3]; "
            "labels go into the option for labels"
        )
    return rows


def open_idx(path: Path) -> ArrayRows:
    """An IDX array of any type. Its length is checked before anything is allocated from its header; a gzip file is
    read through once for that, in pieces of 1 MiB and never further than the header states.

    Raises:
        ConfigError: unreadable, not IDX, or a length that is not what the header states.
    """
    try:
        with _open(path) as stream:
            dtype, shape = _header(stream, path)
            expected = prod(shape) * dtype.itemsize
            found = _length(stream, expected)
    except _BROKEN as error:
        raise ConfigError(_unreadable(path, error)) from error
    if found != expected:
        than = "more" if found > expected else f"{found}"
        raise ConfigError(
            f"{path} is not whole: its header states {list(shape)} ({expected} bytes), {than} follow; fetch it again"
        )
    return ArrayRows(path, str(path), shape, dtype, partial(_blocks, path, shape, dtype))


def _open(path: Path) -> IO[bytes]:
    with path.open("rb") as start:
        packed = start.read(2) == _GZIP
    return cast(IO[bytes], gzip.open(path, "rb")) if packed else path.open("rb")


def _header(stream: IO[bytes], path: Path) -> tuple[np.dtype[Any], tuple[int, ...]]:
    magic = stream.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _DTYPES or magic[3] == 0:
        raise ConfigError(
            f"{path} is not an IDX file: it starts with 0x{magic.hex()}, images start with 0x00000803, "
            "labels with 0x00000801; give the file as it was published"
        )
    counts = stream.read(4 * magic[3])
    if len(counts) < 4 * magic[3]:
        raise ConfigError(f"{path} ends within its header: fetch it again")
    return np.dtype(_DTYPES[magic[2]]), struct.unpack(f">{magic[3]}I", counts)


def _length(stream: IO[bytes], enough: int) -> int:
    """Bytes left in a stream, counted up to just above `enough`."""
    total = 0
    while total <= enough and (piece := stream.read(min(MIB, enough + 1 - total))):
        total += len(piece)
    return total


def _blocks(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], rows: int) -> Iterator[Array]:
    try:
        with _open(path) as stream:
            _header(stream, path)
            yield from read_blocks(stream, shape, dtype, rows, str(path))
    except _BROKEN as error:
        raise ConfigError(_unreadable(path, error)) from error


def _unreadable(path: Path, error: BaseException) -> str:
    return f"{path} cannot be read: {' '.join(str(error).split()) or type(error).__name__}; fetch it again"
