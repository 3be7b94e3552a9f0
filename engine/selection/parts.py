"""Reading the committed parts of runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from poolscore.engine.errors import StoppedError
from poolscore.engine.run.journal import ShardReport
from poolscore.engine.selection.plain import Chunk, Pages, plain_chunks
from poolscore.engine.storage.base import Storage
from poolscore.engine.storage.filesystem import locate, reason
from poolscore.engine.storage.open import open_storage
from poolscore.engine.storage.patient import patience_of

A = TypeVar("A")
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
    patience: float = 0.0  # seconds to wait for its storage; see PatientStorage


def parts_of(runs: Sequence[tuple[Storage, Iterable[ShardReport]]], score: str) -> list[Part]:
    """The committed parts of runs, numbered."""
    parts: list[Part] = []
    for run, (storage, reports) in enumerate(runs):
        for report in reports:
            best = report.best.get(score, np.inf) if report.scored else -np.inf
            path = storage.path(report.scores)
            parts.append(Part(len(parts), path, run, report.scored, best, patience_of(storage)))
    return parts


class OpenPart:
    """A part that is being read. Its errors are raised as StoppedError, by `opened`.

    Where reading fails the whole object is read as any other of the run directory, which waits for storage. What it
    holds then is all that there is: if that cannot be read, it is damaged.
    """

    def __init__(self, part: Part, layout: Layout, scratch: Scratch) -> None:
        self._part = part
        self._layout = layout
        self._scratch = scratch
        self._source: pa.NativeFile | None = None
        self._file: pq.ParquetFile | None = None

    def numbers(self, column: str) -> NDArray[Any]:
        """Key, row_id or a score of all rows [N]. It is written over when this thread reads its next part."""
        return self._patiently(lambda: self._numbers(column))

    def keys(self, places: NDArray[np.intp]) -> NDArray[np.uint64]:
        """Keys of some rows, by ascending places."""
        return self._patiently(lambda: self._some("key", places))

    def row_ids(self, places: NDArray[np.intp]) -> NDArray[np.int64]:
        """row_ids of some rows. Read only where rows are missing between the first one and the last: a part has its
        rows in the order of their row_ids, each once."""
        first = self._patiently(lambda: self._layout_of("row_id")[0])
        if first is not None and first.first is not None:
            return first.first + places.astype(np.int64)
        some: NDArray[np.int64] = self.numbers("row_id")[places]
        return some

    def columns(self, names: Sequence[str]) -> pa.Table:
        """Columns of all rows."""
        return self._patiently(lambda: self._columns(names))

    def names(self) -> list[str]:
        """Of all its columns."""
        return self._patiently(lambda: list(self._parquet().schema_arrow.names))

    def close(self) -> None:
        """Nothing is read any more."""
        if self._source is not None:
            self._source.close()

    def _patiently(self, read: Callable[[], A]) -> A:
        try:
            return read()
        except FileNotFoundError:
            raise
        except OSError:
            if not self._part.patience:
                raise
        self.close()
        folder, _, name = self._part.path.rpartition("/")
        self._source, self._file = pa.BufferReader(open_storage(folder, self._part.patience).read(name)), None
        return read()

    def _numbers(self, column: str) -> NDArray[Any]:
        if (plain := self._plain(column)) is not None:
            values = self._scratch.of(column, plain[0].dtype, sum(map(len, plain)))
            return np.concatenate(plain, out=values)
        numbers: NDArray[Any] = self._columns([column])[column].to_numpy()
        return numbers.astype(DTYPES.get(column, SCORE), copy=False)

    def _some(self, column: str, places: NDArray[np.intp]) -> NDArray[Any]:
        plain = self._plain(column)
        if plain is None:
            return self._numbers(column)[places]
        starts = np.cumsum([0, *map(len, plain)])
        cuts = np.searchsorted(places, starts).tolist()
        some = [plain[i][places[cuts[i] : cuts[i + 1]] - starts[i]] for i in range(len(plain))]
        return np.concatenate(some)

    def _plain(self, column: str) -> list[NDArray[Any]] | None:
        """The values of each page of a plain column, as they lie in memory that is soon written over; None: it is not
        plain."""
        dtype = DTYPES.get(column, SCORE)
        chunk, pages = self._layout_of(column)
        if chunk is None or chunk.width != dtype.itemsize:
            return None
        data = self._scratch.of("", np.dtype(np.uint8), chunk.size)
        chunk.read(self._opened(), data)
        pages = pages or chunk.pages(data)
        if pages is None:
            return None
        self._layout[column] = chunk, pages
        return [np.frombuffer(data, dtype, count, at) for at, count in pages]

    def _layout_of(self, column: str) -> tuple[Chunk | None, Pages | None]:
        if column not in self._layout:  # so that the footer is read once
            chunks = plain_chunks(self._parquet().metadata, {column, *DTYPES} - self._layout.keys())
            self._layout.update({name: (chunk, None) for name, chunk in chunks.items()})
        return self._layout[column]

    def _columns(self, names: Sequence[str]) -> pa.Table:
        return self._parquet().read(list(names)).select(list(names))  # which misses none, as `read` does

    def _opened(self) -> pa.NativeFile:
        if self._source is None:
            at = locate(self._part.path)
            self._source = at.filesystem.open_input_file(at.path)
        return self._source

    def _parquet(self) -> pq.ParquetFile:
        if self._file is None:
            self._file = pq.ParquetFile(self._opened())
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
            with closing(OpenPart(part, self._layouts.setdefault(part.path, {}), self._scratch())) as opened:
                yield opened
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
