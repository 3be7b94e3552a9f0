"""The list of what a pack left out: `_set_aside.csv` in the pool, with the columns name and reason.

No reader of a pool takes it for data: its name begins with `_`.
"""

from __future__ import annotations

import csv
from types import TracebackType

from poolscore.jobs.pack.destination import Destination, place

LIST = "_set_aside.csv"
UNFINISHED = ".set_aside.csv.tmp"


class SetAside:
    """Writes the list, one line at a time. Use as a context; it appears under its name with `commit`.

    Args:
        pool: the folder.
        at: bytes to keep of what an earlier try listed.
    """

    def __init__(self, pool: Destination, at: int = 0) -> None:
        self._pool = pool
        if at and pool.size(UNFINISHED) is None:  # the earlier try was stopped amid its commit
            pool.rename(LIST, UNFINISHED)
        self._log = pool.log(UNFINISHED, at)
        self._csv = csv.writer(self._log, lineterminator="\n")
        self.empty = not at

    @staticmethod
    def size(pool: Destination) -> int:
        """Bytes of the list of an earlier try; 0 where there is none."""
        return pool.size(UNFINISHED) or pool.size(LIST) or 0

    def __enter__(self) -> SetAside:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._log.close()

    def add(self, name: str, reason: str) -> None:
        """Lists one entry of the source."""
        if self.empty:
            self._csv.writerow(("name", "reason"))
            self.empty = False
        self._csv.writerow((name, reason))

    def sync(self) -> int:
        """Its length in bytes, all of it in the pool."""
        return self._log.sync()

    def tell(self) -> int:
        """Its length in bytes."""
        return self._log.tell()

    def commit(self) -> str | None:
        """Gives it its name; None, and no older list either, where nothing was set aside."""
        if self.empty:
            self._pool.remove(UNFINISHED)
            self._pool.remove(LIST)
            return None
        self.sync()
        self._pool.rename(UNFINISHED, LIST)
        return place(self._pool, LIST)
