"""A folder of image files → `id` (relative path), `image` (the original bytes), [`label`], `width`, `height`."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from poolscore.engine.errors import ConfigError
from poolscore.jobs.pack.contract import MAX_ROW_BYTES, PIECE_BYTES, PIECE_ROWS, Names, Source, Tally, counted
from poolscore.jobs.pack.picture import header_size

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})

_Row = tuple[str, bytes, tuple[int, int] | None]


def folder_source(folder: Path, names: Names, *, label_from_folder: bool, tally: Tally) -> Source:
    """Image files below a folder, sorted by their relative POSIX path.

    Hidden entries, other extensions, links that lead outside, links to folders and names that are not UTF-8 are skipped
    and counted in `tally`; files that cannot be read are counted and named. Empty files are packed as they are.

    Args:
        label_from_folder: adds the label column: the first-level subfolder (string; null for files at the top).

    Raises:
        ConfigError: no image file below the folder.
    """
    root = Path(os.path.realpath(folder))
    seen = Tally()
    rows = sum(1 for _ in walk(root, seen))
    if not rows:
        reasons = counted(seen.skipped) or "the folder is empty"
        raise ConfigError(
            f"{folder} holds no image to pack ({reasons}): images are found by extension, "
            f"{', '.join(sorted(EXTENSIONS))}; to pack arrays or a CSV, name the file"
        )
    fields: list[pa.Field[Any]] = [pa.field(names.id, pa.string()), pa.field(names.image, pa.binary())]
    if label_from_folder:
        fields.append(pa.field(names.label, pa.string()))
    schema = pa.schema([*fields, pa.field("width", pa.int32()), pa.field("height", pa.int32())])
    return Source(schema, rows, _batches(_rows(root, tally), schema, label_from_folder))


def walk(root: Path, tally: Tally) -> Iterator[str]:
    """Relative POSIX paths of the images below `root`, sorted. Holds one listing for each level, never the whole tree.

    A folder sorts as `name/`, so the depth-first order is the order of the whole relative paths.
    """
    levels = [("", iter(_listing(root, "", tally)))]
    while levels:
        prefix, entries = levels[-1]
        entry = next(entries, None)
        if entry is None:
            levels.pop()
        elif reason := _why_not(entry, root):
            tally.skip(reason)
        elif entry.is_dir(follow_symlinks=False):
            below = f"{prefix}{entry.name}/"
            levels.append((below, iter(_listing(Path(entry.path), below, tally))))
        else:
            yield prefix + entry.name


def _listing(folder: Path, prefix: str, tally: Tally) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda e: e.name + "/" * e.is_dir(follow_symlinks=False))
    except OSError:
        tally.cannot_read(prefix or ".")
        return []


def _why_not(entry: os.DirEntry[str], root: Path) -> str | None:
    """The reason to skip an entry; None for a folder to enter and for an image."""
    if entry.name.startswith("."):
        return "hidden"
    if entry.name != entry.name.encode(errors="replace").decode():
        return "with a name that is not UTF-8"
    if entry.is_symlink():
        target = Path(os.path.realpath(entry.path))
        if not target.is_relative_to(root):
            return "links that lead outside"
        if target.is_dir():
            return "links to folders"
    elif entry.is_dir(follow_symlinks=False):
        return None
    return None if Path(entry.name).suffix.lower() in EXTENSIONS else "not an image by extension"


def _rows(root: Path, tally: Tally) -> Iterator[_Row]:
    for name in walk(root, tally):
        path = root / name
        try:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):
                tally.skip("not a regular file")
                continue
            if status.st_size > MAX_ROW_BYTES:
                tally.skip("larger than 1 GiB")
                continue
            data = path.read_bytes()
        except OSError:
            tally.cannot_read(name)
            continue
        size = header_size(data)
        tally.headerless += size is None
        yield name, data, size


def _batches(rows: Iterable[_Row], schema: pa.Schema, with_label: bool) -> Iterator[pa.RecordBatch]:
    piece: list[_Row] = []
    size = 0
    for row in rows:
        piece.append(row)
        size += len(row[1])
        if size >= PIECE_BYTES or len(piece) >= PIECE_ROWS:
            yield _batch(piece, schema, with_label)
            piece, size = [], 0
    if piece:
        yield _batch(piece, schema, with_label)


def _batch(piece: list[_Row], schema: pa.Schema, with_label: bool) -> pa.RecordBatch:
    columns: list[list[object]] = [[name for name, _, _ in piece], [data for _, data, _ in piece]]
    if with_label:
        columns.append([name.split("/", 1)[0] if "/" in name else None for name, _, _ in piece])
    columns.append([size[0] if size else None for _, _, size in piece])
    columns.append([size[1] if size else None for _, _, size in piece])
    arrays = [pa.array(values, type=field.type) for values, field in zip(columns, schema, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
