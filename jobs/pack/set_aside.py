"""The list of what a pack left out: `_set_aside.csv` in the pool, with the columns name and reason.

No reader of a pool takes it for data: its name begins with `_`.
"""

from __future__ import annotations

import csv
import os
from pathlib import Path
from types import TracebackType

LIST = "_set_aside.csv"
UNFINISHED = ".set_aside.csv.tmp"


class SetAside:
    """Writes the list, one line at a time. Use as a context; it appears under its name with `commit`.

    Args:
        pool: the folder.
        at: bytes to keep of what an earlier try listed.
    """

    def __init__(self, pool: Path, at: int = 0) -> None:
        self._final, self._path = pool / LIST, pool / UNFINISHED
        if at and not self._path.exists():  # the earlier try was stopped amid its commit
            self._final.replace(self._path)
        with self._path.open("ab") as file:
            file.truncate(at)
        # Names that are not UTF-8 are written escaped.
        self._file = self._path.open("a", encoding="utf-8", errors="backslashreplace", newline="")
        self._csv = csv.writer(self._file, lineterminator="\n")
        self.empty = not at

    @staticmethod
    def size(pool: Path) -> int:
        """Bytes of the list of an earlier try; 0 where there is none."""
        for path in (pool / UNFINISHED, pool / LIST):
            if path.exists():
                return path.stat().st_size
        return 0

    def __enter__(self) -> SetAside:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def add(self, name: str, reason: str) -> None:
        """Lists one entry of the source."""
        if self.empty:
            self._csv.writerow(("name", "reason"))
            self.empty = False
        self._csv.writerow((name, reason))

    def sync(self) -> int:
        """Its length in bytes, all of it on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def tell(self) -> int:
        """Its length in bytes."""
        self._file.flush()
        return self._file.tell()

    def commit(self) -> Path | None:
        """Gives it its name; None, and no older list either, where nothing was set aside."""
        self.sync()
        if self.empty:
            self._path.unlink()
            self._final.unlink(missing_ok=True)
            return None
        self._path.replace(self._final)
        return self._final
