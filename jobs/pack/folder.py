"""A folder of image files → `id` (relative path), `image` (the original bytes), [`label`], `width`, `height`."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from itertools import islice
from pathlib import Path

import pyarrow as pa

from poolscore.engine.errors import ConfigError
from poolscore.jobs.pack.contract import MAX_ROW_BYTES, UNREADABLE, Names, Packed, Source, Tally, counted
from poolscore.jobs.pack.pictures import Change, NotPacked, Pictures, picture_schema

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})

PIECE_FILES = 32
"""Files that a worker is given at a time; it leaves what grows beyond PIECE_BYTES."""

Entry = tuple[str, str]
"""A relative POSIX path, and why it is left out; '' for an image."""


def folder_source(
    folder: Path, names: Names, *, label_from_folder: bool, resize: Change | None = None, without: Path | None = None
) -> Source:
    """Image files below a folder, sorted by their relative POSIX path.

    Hidden entries, other extensions, links that lead outside, links to folders, names that are not UTF-8 and files that
    cannot be read are set aside. Empty files are packed as they are. The folder is listed twice: to count and to pack.
    Its fingerprint is made of the listing; that a file has other bytes than before is not noticed.

    Args:
        label_from_folder: adds the label column: the first-level subfolder (string; null for files at the top).
        resize: what is done to every picture; those that it refuses are set aside.
        without: a folder that is passed over: the pool, where it lies below.

    Raises:
        ConfigError: no image file below the folder.
    """
    root = Path(os.path.realpath(folder))
    rows, seen, listing = 0, Tally(), sha256()
    for name, reason in walk(root, without):
        listing.update(f"{name}\0{reason}\n".encode(errors="surrogateescape"))
        if reason:
            seen.skip(name, reason)
        else:
            rows += 1
    if not rows:
        reasons = counted(seen.skipped) or "the folder is empty"
        raise ConfigError(
            f"{folder} holds no image to pack ({reasons}): images are found by extension, "
            f"{', '.join(sorted(EXTENSIONS))}; to pack arrays or a CSV, name the file"
        )
    schema = picture_schema(names, with_label=label_from_folder)
    return Source(schema, rows, listing.hexdigest()[:16], partial(_pieces, root, without), _Read(root, schema, resize))


def walk(root: Path, without: Path | None = None) -> Iterator[Entry]:
    """What lies below `root`, but not in the folder `without`, sorted by relative path.

    Holds one listing for each level, never the whole tree. A folder sorts as `name/`, so the depth-first order is the
    order of the whole relative paths.
    """
    left_out = "" if without is None else os.path.realpath(without)
    levels = [("", iter(_listing(root)))]
    while levels:
        prefix, entries = levels[-1]
        entry = next(entries, None)
        if entry is None:
            levels.pop()
        elif isinstance(entry, OSError):
            yield prefix or ".", f"{UNREADABLE}: {entry.strerror}"
        elif reason := _why_not(entry, root):
            yield prefix + entry.name, reason
        elif entry.is_dir(follow_symlinks=False):
            if entry.path == left_out:
                continue
            levels.append((f"{prefix}{entry.name}/", iter(_listing(Path(entry.path)))))
        else:
            yield prefix + entry.name, ""


def _listing(folder: Path) -> Sequence[os.DirEntry[str] | OSError]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda e: e.name + "/" * e.is_dir(follow_symlinks=False))
    except OSError as error:
        return [error]


def _why_not(entry: os.DirEntry[str], root: Path) -> str:
    """The reason to leave an entry out; '' for a folder to enter and for an image."""
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
        return ""
    return "" if Path(entry.name).suffix.lower() in EXTENSIONS else "not an image by extension"


def _pieces(root: Path, without: Path | None, start: int) -> Iterator[list[Entry]]:
    entries = islice(walk(root, without), start, None)
    while piece := list(islice(entries, PIECE_FILES)):
        yield piece


@dataclass(frozen=True)
class _Read:
    """The work: reads the files of a piece."""

    root: Path
    schema: pa.Schema
    resize: Change | None

    def __call__(self, piece: Sequence[Entry]) -> Packed:
        pictures = Pictures(self.schema, self.resize)
        for name, reason in piece:
            if reason:
                pictures.set_aside(name, reason)
                continue
            try:
                pictures.add(name, read_regular(self.root / name), _label(name))
            except OSError as error:
                pictures.set_aside(name, f"{UNREADABLE}: {error.strerror}")
            except NotPacked as error:
                pictures.set_aside(name, str(error))
            if pictures.full:
                break
        return pictures.packed()


def read_regular(path: Path) -> bytes:
    """A file's bytes.

    Raises:
        OSError: it cannot be read.
        NotPacked: no regular file, or too large.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise NotPacked("not a regular file")
    if status.st_size > MAX_ROW_BYTES:
        raise NotPacked("larger than 1 GiB")
    return path.read_bytes()


def _label(name: str) -> str | None:
    return name.split("/", 1)[0] if "/" in name else None
