"""The best k of many rows in the total order, in bounded memory: sorted runs on the local disk, merged as a stream."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np

from poolscore.engine.selection.order import ROW, Rows, in_total_order, precedes

RUN_ROWS = 1 << 21  # held in memory until they are sorted and written: 64 MiB, and as much again while they are sorted
READ_ROWS = 1 << 18  # of all runs together, while they are merged


class SortedRuns:
    """A sink for rows and the source of the best k of them. Up to RUN_ROWS rows never leave memory; further ones take
    32 bytes each in a temporary folder (TMPDIR) until the block ends."""

    def __init__(self, k: int) -> None:
        self._k = k
        self._held: list[Rows] = []
        self._count = 0  # rows held
        self._files: list[Path] = []
        self._folder = tempfile.TemporaryDirectory(prefix="poolscore-select-", ignore_cleanup_errors=True)

    def __enter__(self) -> SortedRuns:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._folder.cleanup()

    def add(self, rows: Rows) -> None:
        """Take rows, in any order."""
        if len(rows):
            self._held.append(rows)
            self._count += len(rows)
        if self._count > RUN_ROWS:
            self._sort()
            if self._count > RUN_ROWS // 2:
                self._spill()

    def clear(self) -> None:
        """Forget all rows."""
        for path in self._files:
            path.unlink()
        self._held, self._count, self._files = [], 0, []

    def merged(self) -> Iterator[Rows]:
        """The best k in the total order, in blocks."""
        left = self._k
        self._sort()
        for block in self._merged() if self._files else iter(self._held):
            if left and len(block):
                yield block[:left]
            left = max(left - len(block), 0)
            if not left:
                return

    def _sort(self) -> None:
        if self._held:
            self._held = [in_total_order(np.concatenate(self._held))[: self._k]]
            self._count = len(self._held[0])

    def _spill(self) -> None:
        path = Path(self._folder.name) / str(len(self._files))
        self._held[0].tofile(path)
        self._files.append(path)
        self._held, self._count = [], 0

    def _merged(self) -> Iterator[Rows]:
        if self._held:
            self._spill()
        rows = max(1, READ_ROWS // len(self._files))
        heads = [_Head(path, rows) for path in self._files]
        while heads := [head for head in heads if head.fill()]:
            # What comes after the last row of a block may have rows of the next block before it.
            last = heads[0].rows[-1]
            for head in heads[1:]:
                if precedes(head.rows[-1], last):
                    last = head.rows[-1]
            yield in_total_order(np.concatenate([head.take(last) for head in heads]))


class _Head:
    """A run that is being read, block by block."""

    def __init__(self, path: Path, block: int) -> None:
        self._path = path
        self._block = block
        self._read = 0  # rows
        self.rows: Rows = np.empty(0, ROW)

    def fill(self) -> bool:
        """Have rows; false at the end."""
        if not len(self.rows):
            self.rows = np.fromfile(self._path, ROW, self._block, offset=self._read * ROW.itemsize)
            self._read += len(self.rows)
        return len(self.rows) > 0

    def take(self, last: np.void) -> Rows:
        """Take away the rows that do not come after `last`."""
        low, high = 0, len(self.rows)
        while low < high:
            middle = (low + high) // 2
            if precedes(last, self.rows[middle]):
                high = middle
            else:
                low = middle + 1
        taken, self.rows = self.rows[:low], self.rows[low:]
        return taken
