"""`.npy` (memory-mapped) and `.npz` (streamed out of the archive). Pickles are refused, nothing is extracted."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from functools import partial
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from poolscore.engine.errors import ConfigError
from poolscore.jobs.pack.arrays import Array, ArrayRows, read_blocks

IMAGE_KEYS = ("images", "x", "x_train")
LABEL_KEYS = ("labels", "y", "y_train")
_HEADER_BYTES = 1 << 16
_BROKEN = (ValueError, OverflowError, OSError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError)


def open_npy(path: Path) -> ArrayRows:
    """A `.npy` array, memory-mapped, in C or Fortran order.

    Raises:
        ConfigError: unreadable, not a NumPy file, shorter than its header states, or Python objects (pickle).
    """
    try:
        with path.open("rb") as stream:
            start, shape, _, dtype = _header(stream)
            expected = start + prod(shape) * dtype.itemsize
        if path.stat().st_size != expected:
            raise ValueError(f"its header states {expected} bytes in all, it has {path.stat().st_size}")
        if not prod(shape):
            return ArrayRows(path, str(path), shape, dtype, lambda _: iter(()))
        mapped: Array = npy.open_memmap(path, mode="r")
    except _BROKEN as error:
        raise ConfigError(_unreadable(str(path), error)) from error
    return ArrayRows(path, str(path), mapped.shape, mapped.dtype, partial(_slices, mapped))


def open_npz(path: Path, array_key: str | None, label_key: str | None) -> tuple[ArrayRows, ArrayRows | None]:
    """The rows and, where there are any, the labels of a `.npz`.

    Args:
        array_key: None takes `images`, `x` or `x_train` (in any case), else the only array that is no label.
        label_key: None takes `labels`, `y` or `y_train` where there is one.

    Raises:
        ConfigError: unreadable, no such key, more than one possible array, Python objects (pickle).
    """
    keys = _keys(path)
    label = _named(path, keys, label_key, LABEL_KEYS)
    array = _named(path, keys, array_key, IMAGE_KEYS) or _only(path, [key for key in keys if key != label])
    return _member(path, array), None if label is None else _member(path, label)


def open_npz_labels(path: Path, label_key: str | None) -> ArrayRows:
    """The labels of a `.npz` that was given as a file of labels: `labels`, `y`, `y_train`, else its only array.

    Raises:
        ConfigError: as `open_npz`.
    """
    keys = _keys(path)
    return _member(path, _named(path, keys, label_key, LABEL_KEYS) or _only(path, keys))


def _slices(mapped: Array, rows: int) -> Iterator[Array]:
    for start in range(0, len(mapped), rows):
        yield np.ascontiguousarray(mapped[start : start + rows])


def _keys(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
    except _BROKEN as error:
        raise ConfigError(_unreadable(str(path), error)) from error


def _named(path: Path, keys: Sequence[str], wanted: str | None, usual: Sequence[str]) -> str | None:
    if wanted is not None:
        if wanted not in keys:
            raise ConfigError(f"{path} has no array {wanted!r}: choose one of {', '.join(map(repr, keys))}")
        return wanted
    folded = {key.lower(): key for key in keys}
    return next((folded[name] for name in usual if name in folded), None)


def _only(path: Path, keys: Sequence[str]) -> str:
    if len(keys) == 1:
        return keys[0]
    found = f"it holds {', '.join(map(repr, keys))}" if keys else "it holds no other array"
    raise ConfigError(f"{path}: which array are the rows? {found}; name one by its key")


def _header(file: IO[bytes]) -> tuple[int, tuple[int, ...], bool, np.dtype[Any]]:
    """Its length in bytes, shape, Fortran order and dtype, by NumPy's own safe parser, from a bounded start."""
    stream = io.BytesIO(file.read(_HEADER_BYTES))
    version = npy.read_magic(stream)
    read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"NumPy format version {version} is for structured arrays")
    shape, fortran, dtype = read(stream)
    if dtype.hasobject:
        raise ValueError("it holds pickled Python objects, which are never loaded; save plain numbers")
    if min(shape, default=0) < 0:
        raise ValueError(f"its header states the shape {shape}")
    return stream.tell(), shape, fortran, dtype


def _member(path: Path, key: str) -> ArrayRows:
    where = f"{path}[{key!r}]"
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{key}.npy") as stream:
            start, shape, fortran, dtype = _header(stream)
            found, expected = archive.getinfo(f"{key}.npy").file_size, start + prod(shape) * dtype.itemsize
    except _BROKEN as error:
        raise ConfigError(_unreadable(where, error)) from error
    if found != expected:
        raise ConfigError(f"{where} is not whole: its header states {expected} bytes in all, it has {found}")
    if fortran and len(shape) > 1:
        raise ConfigError(f"{where} is in Fortran order: save it as .npy, or after numpy.ascontiguousarray")
    return ArrayRows(path, where, shape, dtype, partial(_member_blocks, path, key, start, shape, dtype))


def _member_blocks(
    path: Path, key: str, start: int, shape: tuple[int, ...], dtype: np.dtype[Any], rows: int
) -> Iterator[Array]:
    where = f"{path}[{key!r}]"
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{key}.npy") as stream:
            stream.read(start)
            yield from read_blocks(stream, shape, dtype, rows, where)
    except _BROKEN as error:
        raise ConfigError(_unreadable(where, error)) from error


def _unreadable(where: str, error: BaseException) -> str:
    return f"{where} cannot be read: {' '.join(str(error).split()) or type(error).__name__}"
