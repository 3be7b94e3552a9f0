"""Reading the committed parts of runs."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from poolscore.engine.errors import StoppedError
from poolscore.engine.filesystem import locate, reason
from poolscore.engine.run.journal import ShardReport
from poolscore.engine.selection.plain import Chunk, Pages, plain_chunk, values_of
from poolscore.engine.storage import Storage

DTYPES = {"key": np.dtype(np.uint64), "row_id": np.dtype(np.int64)}  # all others here are scores
SCORE = np.dtype(np.float32)


@dataclass(frozen=True)
class Part:
    """The scored rows of a shard; small, because it travels."""

    number: int  # its place among all parts that are selected from
    path: str
    run: int  # which of the runs
    rows: int
    best: float  # largest score; inf where nobody wrote it down


def parts_of(runs: Sequence[tuple[Storage, Iterable[ShardReport]]], score: str) -> list[Part]:
    """The committed parts of runs, numbered."""
    parts: list[Part] = []
    for run, (storage, reports) in enumerate(runs):
        for report in reports:
            best = report.best.get(score, np.inf) if report.scored else -np.inf
            parts.append(Part(len(parts), storage.path(report.scores), run, report.scored, best))
    return parts


class OpenPart:
    """A part that is being read. Its errors are raised as StoppedError, by `opened`."""

    def __init__(self, source: pa.NativeFile, layout: Layout, scratch: Scratch) -> None:
        self._source = source
        self._layout = layout
        self._scratch = scratch
        self._file: pq.ParquetFile | None = None

    def numbers(self, column: str) -> NDArray[Any]:
        """Key, row_id or a score of all rows [N]. It is written over when this thread reads its next part."""
        dtype = DTYPES.get(column, SCORE)
        if column not in self._layout:
            footer = self._parquet().metadata
            for name in {column, *DTYPES} - self._layout.keys():  # so that the footer is read once
                self._layout[name] = plain_chunk(footer, name), None
        chunk, pages = self._layout[column]
        if chunk is not None and chunk.width == dtype.itemsize:
            data = self._scratch.of("", np.dtype(np.uint8), chunk.size)
            chunk.read(self._source, data)
            pages = pages or chunk.pages(data)
            if pages is not None:
                self._layout[column] = chunk, pages
                values = self._scratch.of(column, dtype, chunk.rows)
                values_of(data, pages, values)
                return values
        numbers: NDArray[Any] = self.columns([column])[column].to_numpy().astype(dtype, copy=False)
        return numbers

    def columns(self, names: Sequence[str]) -> pa.Table:
        """Columns of all rows."""
        return self._parquet().read(list(names)).select(list(names))  # which misses none, as `read` does

    def _parquet(self) -> pq.ParquetFile:
        if self._file is None:
            self._file = pq.ParquetFile(self._source)
        return self._file


class Scratch:
    """Arrays of a thread that are used again. New ones for each part would cost more than reading does: the system has
    to find and blank their pages."""

    def __init__(self) -> None:
        self._arrays: dict[str, NDArray[np.uint8]] = {}

    def of(self, name: str, dtype: np.dtype[Any], rows: int) -> NDArray[Any]:
        """An array [rows] of any content; the one of this name before is gone."""
        size = rows * dtype.itemsize
        if name not in self._arrays or self._arrays[name].nbytes < size:
            self._arrays[name] = np.empty(size, np.uint8)
        return self._arrays[name][:size].view(dtype)


Layout = dict[str, tuple[Chunk | None, Pages | None]]  # where a part's columns lie


class Reader:
    """Opens parts, and remembers where the numbers of each lie: a footer is read once. About 2 kB a part."""

    def __init__(self) -> None:
        self._layouts: dict[str, Layout] = {}
        self._of_thread = threading.local()

    @contextmanager
    def opened(self, part: Part) -> Iterator[OpenPart]:
        """A part, to be read within the block.

        Raises:
            StoppedError: it cannot be read, though the journal names it.
        """
        try:
            at = locate(part.path)
            with at.filesystem.open_input_file(at.path) as source:
                yield OpenPart(source, self._layouts.setdefault(part.path, {}), self._scratch())
        except (OSError, pa.ArrowException, KeyError) as error:
            why = reason(error)
            raise StoppedError(
                f"{part.path}, which the journal names, cannot be read ({why}); bring it back"
            ) from error

    def _scratch(self) -> Scratch:
        if not hasattr(self._of_thread, "scratch"):
            self._of_thread.scratch = Scratch()
        scratch: Scratch = self._of_thread.scratch
        return scratch
