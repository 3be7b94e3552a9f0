"""Step 1a: which Parquet files there are, in the order that gives rows their row_id."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pyarrow import fs

from poolscore.engine.errors import ConfigError
from poolscore.engine.storage.filesystem import locate, reason, repeated, require_bucket, require_reachable
from poolscore.engine.storage.threads import apart

SUFFIXES = (".parquet", ".parq", ".pq")
UNKNOWN = -1  # size of a link that leads nowhere: it is listed, so that it is told of


@dataclass(frozen=True)
class Listing:
    """The files of a pool as their storage lists them, in sorted order."""

    root: str  # path or URI of the folder that `paths` are relative to
    paths: tuple[str, ...]  # POSIX
    bytes: NDArray[np.int64]
    modified: NDArray[np.int64]  # nanoseconds since 1970

    def pick(self, keep: NDArray[np.bool_]) -> Listing:
        """The files where `keep`, bool [files], is true."""
        paths = tuple(path for path, kept in zip(self.paths, keep.tolist(), strict=True) if kept)
        return Listing(self.root, paths, self.bytes[keep], self.modified[keep])

    def part(self, start: int, stop: int) -> Listing:
        """Files start..stop."""
        return Listing(self.root, self.paths[start:stop], self.bytes[start:stop], self.modified[start:stop])


_Entry = tuple[str, int, int]  # path relative to the root, bytes, modified


def list_files(uri: str) -> Listing:
    """List Parquet files.

    Args:
        uri: a file, a folder (searched in depth) or a glob (`*`, `?`, `[…]`, and `**` for folders in any depth); a
            path, or a URI of a file system that `locate` knows. Names that start with '.' or '_' are not data.

    Raises:
        ConfigError: nothing there, or it cannot be listed.
    """
    try:
        root, entries = _local(uri) if "://" not in uri else apart(_remote, uri)
        files = sorted(entries)
    except OSError as error:
        raise ConfigError(f"{uri} cannot be listed ({reason(error)})") from error
    if not files:
        raise ConfigError(f"no Parquet file at {uri}")
    return Listing(
        root,
        tuple(path for path, _, _ in files),
        np.array([size for _, size, _ in files], dtype=np.int64),
        np.array([modified for _, _, modified in files], dtype=np.int64),
    )


def _local(uri: str) -> tuple[str, Iterable[_Entry]]:
    """Not through Arrow, which follows links to folders and passes over links that lead nowhere."""
    path = Path(uri)
    if path.is_file():
        return str(path.parent), [_entry(path.parent, path)]
    if path.is_dir():
        return str(path), (_entry(path, found) for found in _walk(path) if found.suffix.lower() in SUFFIXES)
    if not glob.has_magic(uri):
        raise ConfigError(f"there is nothing at {uri}")
    fixed, pattern = _fixed_part(path.parts)
    root = Path(*fixed)
    try:
        found = [p for p in root.glob("/".join(pattern)) if not p.is_dir() and _is_data(p.relative_to(root).parts)]
    except ValueError as error:
        raise ConfigError(f"{uri} is no glob ({error})") from error
    return str(root), (_entry(root, p) for p in found)


def _walk(root: Path) -> Iterator[Path]:
    def stop(error: OSError) -> None:
        raise error  # a folder that cannot be read must not pass for an empty one

    for folder, folders, names in os.walk(root, onerror=stop):
        folders[:] = [name for name in folders if _is_data([name])]
        yield from (Path(folder, name) for name in names if _is_data([name]))


def _entry(root: Path, path: Path) -> _Entry:
    relative = path.relative_to(root).as_posix()
    try:
        relative.encode()  # it goes into keys and into the plan
        about = path.stat()
    except UnicodeEncodeError as error:
        raise ConfigError(f"{str(path)!r}: a name that is not UTF-8; rename it") from error
    except OSError:
        return relative, UNKNOWN, 0
    return relative, about.st_size, about.st_mtime_ns


def _remote(uri: str) -> tuple[str, Iterable[_Entry]]:
    scheme, _, rest = uri.partition("://")
    parts = rest.rstrip("/").split("/")
    fixed, pattern = _fixed_part(parts) if glob.has_magic(rest) else (parts, [])

    def address(of: Iterable[str]) -> str:
        return f"{scheme}://{'/'.join(of)}"

    place = locate(address(fixed))
    if isinstance(place.filesystem, fs.LocalFileSystem):
        return _local("/".join([place.path, *pattern]))
    require_reachable(uri)
    about = repeated(lambda: place.filesystem.get_file_info(place.path), uri)
    if about.type == fs.FileType.File:
        return address(fixed[:-1]), [(about.base_name, about.size, about.mtime_ns or 0)]
    if about.type == fs.FileType.NotFound:
        require_bucket(uri)
        raise ConfigError(f"there is nothing at {uri}")
    below = fs.FileSelector(place.path, recursive=len(pattern) != 1)
    matches = _regex(uri, pattern) if pattern else re.compile(f".*({'|'.join(map(re.escape, SUFFIXES))})", re.I | re.S)

    def list_all() -> Sequence[fs.FileInfo]:
        entries: Sequence[fs.FileInfo] = place.filesystem.get_file_info(below)
        return entries

    found = ((info.path[len(place.path) :].lstrip("/"), info) for info in repeated(list_all, uri))
    return address(fixed), (
        (path, info.size, info.mtime_ns or 0)
        for path, info in found
        if info.type == fs.FileType.File and _is_data(path.split("/")) and matches.fullmatch(path)
    )


def _fixed_part(parts: Iterable[str]) -> tuple[list[str], list[str]]:
    """The folders in front of the first wildcard, and the pattern from there."""
    every = list(parts)
    first = next(i for i, part in enumerate(every) if glob.has_magic(part))
    return every[:first], every[first:]


def _regex(uri: str, pattern: Iterable[str]) -> re.Pattern[str]:
    """A glob as a regular expression over relative paths."""
    translated = []
    for part in pattern:
        if "**" in part and part != "**":
            raise ConfigError(f"{uri} is no glob ('**' stands for whole folders)")
        pieces = re.split(r"(\*|\?|\[!?\]?[^\]]*\])", part)
        text = "".join(_WILD.get(p) or (f"[{_set(p)}]" if glob.has_magic(p) else re.escape(p)) for p in pieces)
        translated.append("(?:[^/]+/)*" if part == "**" else f"{text}/")
    return re.compile("".join(translated).removesuffix("/"), re.S)


_WILD = {"*": "[^/]*", "?": "[^/]"}


def _set(brackets: str) -> str:
    inner = brackets[1:-1].replace("\\", "\\\\")
    return f"^/{inner[1:]}" if inner.startswith("!") else inner


def _is_data(parts: Iterable[str]) -> bool:
    """Hidden names are not data, nor is what lies below them."""
    return not any(part.startswith((".", "_")) for part in parts)
