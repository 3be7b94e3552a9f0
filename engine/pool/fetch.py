"""Step 3a, below Parquet: the bytes of a shard's columns, fetched by threads before they are asked for.

Column chunks are cut into requests of up to REQUEST bytes, in the order in which a reader comes to need them. Requests
are sent as long as what is fetched and not yet read stays within a budget, across row groups and files: storage that
takes 80 ms to its first byte is asked for the next pieces while the present one is decoded.
"""

from __future__ import annotations

import threading
import weakref
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import groupby
from typing import ParamSpec, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from poolscore.engine.pool.chunks import Request, requests_of
from poolscore.engine.pool.plan import Piece
from poolscore.engine.storage.filesystem import once_more
from poolscore.engine.storage.threads import StorageThreads

P = ParamSpec("P")
A = TypeVar("A")
BUFFER = 1 << 20  # bytes that the Parquet reader takes at once, of each column
THREADS = 24  # requests in flight; Arrow's S3 client allows 25 connections
FILES_AHEAD = 16  # opened before they are needed


@dataclass(frozen=True)
class OpenFile:
    """A file of the pool, with its footer read."""

    file: pa.NativeFile
    metadata: pq.FileMetaData


class ReadAhead:
    """Fetches the columns of a shard's pieces, at most `budget` bytes ahead. Close it, also after an error.

    Args:
        open_file: path of a piece → the open file; called on threads.
        pieces: in the order in which they will be read.
        columns: names of columns at the top level.
        budget: bytes fetched or on their way and not yet read. A reader that asks for what the budget has no room for
            gets it all the same (one REQUEST more): it could not go on otherwise.
    """

    def __init__(
        self, open_file: Callable[[str], OpenFile], pieces: Sequence[Piece], columns: Sequence[str], budget: int
    ) -> None:
        pieces = list(pieces)
        self.peak = 0  # bytes held at once
        self._budget = budget
        self._columns = tuple(columns)
        self._open_file = open_file
        self._threads = StorageThreads(THREADS, "fetch")
        self._lock = threading.RLock()
        self._held = 0
        self._closed = threading.Event()
        self._sending = False
        self._paths = [path for path, _ in groupby(piece.path for piece in pieces)]
        self._piece_files = _file_numbers(pieces)
        self._opened: list[Future[OpenFile] | None] = []  # of the first of the paths; None: done with
        self._unplanned = deque(zip(self._piece_files, pieces, strict=True))
        self._unsent: deque[tuple[OpenFile, Request]] = deque()
        self._planned: deque[tuple[OpenFile, list[Request]]] = deque()  # of pieces that were not begun
        self._begun = 0  # pieces
        self._file: OpenFile | None = None
        self._parquet: pq.ParquetFile | None = None
        self._current: list[Request] = []  # of the piece being read, by offset
        self._top_up()

    def begin(self) -> pq.ParquetFile:
        """Begin with the next piece, done with the one before. Returns the file to read it from.

        Raises:
            OSError, pa.ArrowException: the file cannot be opened.
            StoppedError: it was closed meanwhile.
        """
        self._finish_piece()
        i = self._piece_files[self._begun]
        if self._begun and self._piece_files[self._begun - 1] < i:
            self._opened[i - 1] = self._file = self._parquet = None
        opened = self._opening(i).result()
        if self._parquet is None:
            # Arrow holds the window where Python cannot see it: were it to hold this object, that would live for ever.
            window = pa.PythonFile(_Window(weakref.proxy(self), opened.file.size()), mode="r")
            self._parquet = pq.ParquetFile(window, metadata=opened.metadata, pre_buffer=False, buffer_size=BUFFER)
        with self._lock:
            while not self._planned:
                self._plan()
            self._file, requests = self._planned.popleft()
            self._current = sorted(requests, key=lambda request: request.offset)
            self._begun += 1
        return self._parquet

    @property
    def file_bytes(self) -> int:
        """Size of the file whose piece is being read."""
        assert self._file is not None
        return int(self._file.file.size())

    def read(self, offset: int, length: int) -> memoryview:
        """Bytes of the file whose piece is being read."""
        whole: memoryview | None = None  # where they lie in several requests, each is let go once it is copied
        found = 0
        while found < length:
            part = self._part(offset + found, length - found)
            if len(part) == length:
                return part
            if whole is None:
                whole = memoryview(pa.allocate_buffer(length)).cast("B")
            whole[found : found + len(part)] = part
            found += len(part)
        return whole if whole is not None else memoryview(b"")

    def _part(self, offset: int, length: int) -> memoryview:
        """As many of the bytes as one request holds."""
        assert self._file is not None
        at = bisect_right(self._current, offset, key=lambda request: request.offset) - 1
        request = self._current[at] if at >= 0 else None
        if request is None or request.done or offset >= request.offset + request.length:
            return self._ask(_read, self._file.file, offset, length).result()  # not foreseen; seldom
        start = offset - request.offset
        part = self._data(request)[start : start + length]
        request.unread -= len(part)
        if request.unread <= 0:
            self._release(request)
        return part

    def close(self) -> None:
        """Fetch no more, also while another thread reads, which is told by a StoppedError. Requests on their way are
        waited for, but not for long. Files are closed with the last that holds them."""
        with self._lock:
            self._closed.set()
        self._threads.close()

    def __enter__(self) -> ReadAhead:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _opening(self, i: int) -> Future[OpenFile]:
        with self._lock:
            while len(self._opened) <= i:
                future = self._ask(self._open_file, self._paths[len(self._opened)])
                self._opened.append(future)
                future.add_done_callback(lambda _: self._top_up())
            opening = self._opened[i]
            assert opening is not None
            return opening

    def _top_up(self) -> None:
        """Send what the budget has room for."""
        with self._lock:
            if not self._sending:  # a file that is open at once calls back from within
                self._sending = True
                try:
                    while not self._closed.is_set() and self._send_next():
                        pass
                finally:
                    self._sending = False

    def _send_next(self) -> bool:
        """Plan a piece or send a request; False: there is nothing to send now."""
        if not self._unsent:
            if not self._unplanned or not self._can_plan():
                return False
            self._plan()
            return True
        file, request = self._unsent[0]
        if not request.done and request.data is None:
            if self._held and self._held + request.length > self._budget:
                return False
            self._send(file, request)
        self._unsent.popleft()
        return True

    def _can_plan(self) -> bool:
        """Whether the file of the next piece is open; it and those behind it are being opened."""
        i = self._unplanned[0][0]
        self._opening(min(i + FILES_AHEAD, len(self._paths) - 1))
        opened = self._opening(i)
        return opened.done() and opened.exception() is None

    def _plan(self) -> None:
        i, piece = self._unplanned.popleft()
        opened = self._opening(i).result()
        requests = requests_of(opened.metadata, piece.row_group, self._columns)
        self._planned.append((opened, requests))
        if requests:  # what lies behind a part of a row group is not asked for in advance
            until = (piece.start + piece.rows) / max(1, opened.metadata.row_group(piece.row_group).num_rows)
            self._unsent.extend((opened, request) for request in requests if request.place < until)

    def _send(self, file: OpenFile, request: Request) -> None:
        self._held += request.length
        self.peak = max(self.peak, self._held)
        request.data = self._ask(_read, file.file, request.offset, request.length)

    def _data(self, request: Request) -> memoryview:
        with self._lock:
            if request.data is None:
                assert self._file is not None
                self._send(self._file, request)
            data = request.data
        assert data is not None
        return data.result()

    def _ask(self, call: Callable[P, A], *args: P.args, **kwargs: P.kwargs) -> Future[A]:
        """Each request by itself has a moment to succeed: a whole shard's would hardly ever do all together."""
        return self._threads.submit(once_more, lambda: call(*args, **kwargs), self._closed)

    def _release(self, *requests: Request) -> None:
        with self._lock:
            for request in requests:
                if request.data is not None:
                    request.data.cancel()
                    request.data = None
                    self._held -= request.length
                request.done = True
        self._top_up()

    def _finish_piece(self) -> None:
        """What was fetched for it and never read goes; so do requests that were not sent."""
        self._release(*self._current)
        self._current = []


class _Window:
    """What Arrow takes for a file: reads at any place are answered from what was fetched."""

    closed = False

    def __init__(self, source: ReadAhead, size: int) -> None:
        self._source, self._size, self._at = source, size, 0

    def read(self, length: int = -1) -> memoryview:
        length = self._size - self._at if length < 0 else min(length, self._size - self._at)
        data = self._source.read(self._at, max(0, length))
        self._at += len(data)
        return data

    read_buffer = read  # without a copy

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        """The file itself is the source's."""


def _read(file: pa.NativeFile, offset: int, length: int) -> memoryview:
    """Into Arrow's memory: what Python frees on so many threads would stay with the process. In one request: where no
    length is told, a stream is read in pieces of 256 KiB, one after the other."""
    data = file.get_stream(offset, length).read_buffer(length)
    if data.size != length:
        raise OSError(f"it ends before byte {offset + length}, in the middle of a row group")
    return memoryview(data).cast("B")


def _file_numbers(pieces: Sequence[Piece]) -> list[int]:
    """Of each piece: how many times the path changed before it."""
    numbers: list[int] = []
    for before, piece in zip([None, *pieces], pieces, strict=False):
        numbers.append(numbers[-1] + (before.path != piece.path) if before is not None else 0)
    return numbers
