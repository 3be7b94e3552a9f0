"""The best k of many rows in the total order, in bounded memory: sorted runs on the local disk, merged as a stream."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np

from poolscore.engine.selection.order import ROW, Rows, concatenated, in_total_order, precedes

FEW = 1 << 17  # rows: up to here the best k are kept at hand, and rows below them are not taken
SPARE = 1 << 12  # rows, beside as many as k, that may wait before they are sorted in
RUN_ROWS = 1 << 21  # held in memory until they are sorted and written: 64 MiB, and as much again while they are sorted
READ_ROWS = 1 << 18  # of all runs together, while they are merged


class Held:
    """Rows in memory. Of FEW or less, only the best k are kept for long."""

    def __init__(self, k: int) -> None:
        self._k = k
        self._rows: list[Rows] = []
        self.count = 0  # rows
        self.last: np.void | None = None  # one that k rows are no worse than; None: not known, or k is too large

    def add(self, rows: Rows) -> None:
        """Take rows, in any order."""
        if len(rows):
            self._rows.append(rows)
            self.count += len(rows)
        if self._k <= FEW and self.count > 2 * self._k + SPARE:
            self.sorted()

    def rows(self) -> Rows:
        """All that are held, in any order."""
        return concatenated(self._rows)

    def sorted(self) -> Rows:
        """The best k of them, in the total order; others are forgotten."""
        rows, self._rows = self.rows(), []  # in memory once while they are sorted
        best = in_total_order(rows, self._k)
        self._rows, self.count = [best], len(best)
        if 0 < self._k == len(best) <= FEW:
            self.last = best[-1]
        return best


class SortedRuns:
    """A sink for rows and the source of the best k of them. Up to RUN_ROWS rows never leave memory; further ones take
    32 bytes each in a temporary folder (TMPDIR) until the block ends."""

    def __init__(self, k: int) -> None:
        self._k = k
        self._held = Held(k)
        self._files: list[Path] = []
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> SortedRuns:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._folder is not None:
            self._folder.cleanup()

    @property
    def last(self) -> np.void | None:
        """A row that k rows are no worse than; None: not known, or k is larger than FEW."""
        return self._held.last

    def add(self, rows: Rows) -> None:
        """Take rows, in any order."""
        self._held.add(rows)
        if self._held.count > RUN_ROWS and len(best := self._held.sorted()) > RUN_ROWS // 2:
            self._spill(best)

    def clear(self) -> None:
        """Forget all rows."""
        for path in self._files:
            path.unlink()
        self._held, self._files = Held(self._k), []

    def merged(self) -> Iterator[Rows]:
        """The best k in the total order, in blocks."""
        best, left = self._held.sorted(), self._k
        if self._files and len(best):
            self._spill(best)
        for block in self._merged() if self._files else iter([best]):
            if left and len(block):
                yield block[:left]
            left -= min(left, len(block))

    def _spill(self, best: Rows) -> None:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="poolscore-select-", ignore_cleanup_errors=True)
        path = Path(self._folder.name) / str(len(self._files))
        best.tofile(path)
        self._files.append(path)
        self._held = Held(self._k)

    def _merged(self) -> Iterator[Rows]:
        rows = max(1, READ_ROWS // len(self._files))
        heads = [_Head(path, rows) for path in self._files]
        while heads := [head for head in heads if head.fill()]:
            # What comes after the last row of a block may have rows of the next block before it.
            last = heads[0].rows[-1]
            for head in heads[1:]:
                if precedes(head.rows[-1], last):
                    last = head.rows[-1]
            yield in_total_order(concatenated([head.take(last) for head in heads]))


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
