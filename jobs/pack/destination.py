"""Where the files of a pool are written: the seam, a local folder, and which of them a POOL is.

Names are those of files directly in the pool. `bucket.py` is the other implementation.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from poolscore.engine.storage.uri import join, local_path

FAILURES = (OSError, pa.ArrowException)
"""What a destination raises where its storage fails."""


class Log(Protocol):
    """A file of text that grows; what `sync` returned is kept whatever happens."""

    def write(self, text: str) -> None: ...

    def tell(self) -> int:
        """Its length in bytes."""

    def sync(self) -> int:
        """Makes sure of all that was written; its length in bytes."""

    def close(self) -> None: ...


class Destination(Protocol):
    """The files of a pool. All methods raise one of FAILURES where the storage fails."""

    path: str
    """Path or URI, for messages."""

    def prepare(self) -> bool:
        """Makes the folder; whether it is new."""

    def discard(self) -> None:
        """Takes away a folder that `prepare` made, if it is empty."""

    def entries(self) -> set[str]:
        """Names of all that is there, folders too; empty where there is no such folder."""

    def size(self, name: str) -> int | None:
        """Bytes of a file; None where there is none, or something else, such as a link."""

    def open(self, name: str) -> pa.NativeFile:
        """A file to read from, at any place."""

    def create(self, name: str) -> pa.NativeFile:
        """A new file to write; it counts once it is closed and `seal` was called."""

    def seal(self, name: str) -> None:
        """Makes sure of a file that was closed."""

    def log(self, name: str, keep: int = 0) -> Log:
        """A file of text to append to, of which the first `keep` bytes are kept."""

    def rename(self, old: str, new: str) -> None:
        """In place of what may be there."""

    def remove(self, name: str) -> None:
        """Nothing happens where there is none."""

    def finish(self) -> None:
        """Makes sure of all names."""


class Folder:
    """A local folder. Every change is synced to the disk."""

    def __init__(self, folder: Path) -> None:
        self._folder, self.path = folder, str(folder)

    def prepare(self) -> bool:
        """See Destination."""
        created = not self._folder.exists()
        self._folder.mkdir(parents=True, exist_ok=True)
        return created

    def discard(self) -> None:
        """See Destination."""
        if self._folder.is_dir() and not any(self._folder.iterdir()):
            self._folder.rmdir()

    def entries(self) -> set[str]:
        """See Destination."""
        return {entry.name for entry in self._folder.iterdir()} if self._folder.exists() else set()

    def size(self, name: str) -> int | None:
        """See Destination."""
        at = self._folder / name
        return at.stat().st_size if at.is_file() and not at.is_symlink() else None

    def open(self, name: str) -> pa.NativeFile:
        """See Destination."""
        return pa.OSFile(str(self._folder / name))

    def create(self, name: str) -> pa.NativeFile:
        """See Destination."""
        return pa.OSFile(str(self._folder / name), "wb")

    def seal(self, name: str) -> None:
        """See Destination."""
        _sync(self._folder / name)

    def log(self, name: str, keep: int = 0) -> Log:
        """See Destination."""
        return _FileLog(self._folder / name, keep)

    def rename(self, old: str, new: str) -> None:
        """See Destination."""
        (self._folder / old).replace(self._folder / new)

    def remove(self, name: str) -> None:
        """See Destination."""
        (self._folder / name).unlink(missing_ok=True)

    def finish(self) -> None:
        """See Destination."""
        _sync(self._folder)


class _FileLog:
    def __init__(self, path: Path, keep: int) -> None:
        with path.open("ab") as file:
            file.truncate(keep)
        # Names that are not UTF-8 are written escaped.
        self._file = path.open("a", encoding="utf-8", errors="backslashreplace", newline="")

    def write(self, text: str) -> None:
        self._file.write(text)

    def tell(self) -> int:
        self._file.flush()
        return self._file.tell()

    def sync(self) -> int:
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        self._file.close()


def destination_of(pool: str) -> Destination:
    """Of a local path or a URI.

    Raises:
        ConfigError: a kind of storage that is not supported.
    """
    path = local_path(pool)
    if path is not None:
        return Folder(path)
    from poolscore.jobs.pack.bucket import Bucket

    return Bucket(pool)


def place(pool: Destination, name: str) -> str:
    """Path or URI of a file."""
    return join(pool.path, name)


def read_text(pool: Destination, name: str) -> str:
    """A whole file of text; '' where there is none."""
    if pool.size(name) is None:
        return ""
    with pool.open(name) as file:
        return bytes(file.read()).decode("utf-8", errors="replace")


def _sync(path: Path) -> None:
    """fsync of a file or (except on Windows) a folder."""
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
