"""Step 1: find the pool's files and read their footers, here on threads or on many machines."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from poolscore.engine.errors import ConfigError
from poolscore.engine.pool.choice import RowChoice
from poolscore.engine.pool.files import FILES, PoolFiles, table_of
from poolscore.engine.pool.footer import Keep, PoolFile, UnreadableFile, read_footer
from poolscore.engine.pool.listing import Listing, list_files
from poolscore.engine.storage.clients import CONNECTIONS
from poolscore.engine.storage.filesystem import locate
from poolscore.engine.storage.threads import StorageThreads
from poolscore.engine.words import amount

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
LOCAL_THREADS, REMOTE_THREADS = 8, CONNECTIONS  # that read footers; object storage answers late, but many at a time
SLICE = 256  # files that a thread reads at a time
FOR_WORKERS = 20_000  # files: on one machine that took 16 s from storage that answers after 80 ms
OF_WORKER = 4_096  # files of a task: seconds of work


class FooterCache(Protocol):
    """What is known of the files from an earlier look (`run/footers.py`)."""

    def load(self, keep: str | None) -> pa.Table:
        """Rows of FILES; `matches` must be for this filter."""

    def save(self, table: pa.Table, keep: str | None) -> None:
        """Keep rows of FILES for the next look."""


class Workers(Protocol):
    """Where tasks run, on this machine or others (`selection/on_ray.py`)."""

    def map(self, call: Callable[[Any, A, B], C], common: A, tasks: Iterable[B]) -> Iterator[C]:
        """What `call` gives for what all tasks have in common and each task, in the order of the tasks."""


StartWorkers = Callable[[], AbstractContextManager[Workers]]


def find_files(
    uri: str,
    key: str = "pool.uri",
    *,
    keep: str | None = None,
    bad_files: Literal["stop", "skip"] = "stop",
    cache: FooterCache | None = None,
    workers: StartWorkers | None = None,
) -> PoolFiles:
    """List the pool's Parquet files in sorted order and read their footers in parallel.

    Args:
        uri: see `list_files`.
        key: the configuration key that it was given under, for errors.
        keep: the filter; partitions that it rules out are not looked at.
        bad_files: whether a file that cannot be read stops the search or is left out.
        cache: footers of files that have not changed since are not read again.
        workers: start those that read footers where there are FOR_WORKERS or more to read; else threads here do.

    Raises:
        ConfigError: nothing there, a file that is cut short or no Parquet, or a pool without rows.
    """
    try:
        listing = list_files(uri)
    except ConfigError as error:
        raise ConfigError(f"{key}: {error}") from error
    choice = RowChoice.of(keep, listing.paths)
    wanted = choice.can_match(listing.paths)
    if not wanted.any():
        keys = ", ".join(f"{field.name} ({field.type})" for field in choice.with_keys(pa.schema([])))
        raise ConfigError(
            f"pool.filter: it rules out every partition of {uri} ({amount(len(wanted), 'file')}); "
            f"its folders say: {keys}"
        )
    look = _Look(listing.pick(wanted), choice, bad_files == "stop", workers)
    try:
        table, read = look.all_files(cache)
    except UnreadableFile as error:
        hint = "" if key != "pool.uri" else "; or leave such files out: pool.bad_files: skip"
        raise ConfigError(f"{key}: {error}{hint}") from error
    pool = PoolFiles(listing.root, table, choice, look.unreadable, len(wanted) - int(wanted.sum()), read)
    if not pool.rows:
        raise ConfigError(f"{key}: the pool at {uri} has no rows ({amount(len(pool), 'file')})")
    return pool


_Found = tuple[pa.Table, dict[str, str]]  # rows of FILES; path → reason of files that cannot be read


@dataclass(frozen=True)
class _Reading:
    """What reading footers needs beside the files' names. Travels to workers."""

    root: str
    choice: RowChoice
    stop: bool  # at the first file that cannot be read

    def each(self, listing: Listing) -> Iterator[_Found]:
        """What is found in the files, slice by slice in their order; read on threads."""
        count = REMOTE_THREADS if "://" in self.root else LOCAL_THREADS
        files, enough = len(listing.paths), threading.Event()
        size = min(SLICE, max(1, files // (4 * count)))
        slices = (listing.part(start, start + size) for start in range(0, files, size))
        try:
            with StorageThreads(count, "footers") as threads:
                reading = deque(threads.submit(self._slice, some, enough) for some in slices)
                while reading:
                    yield reading.popleft().result()
        finally:
            enough.set()

    def _slice(self, some: Listing, enough: threading.Event) -> _Found:
        place = locate(self.root)
        keep: Keep | None = self.choice.expression if self.choice.filter is not None else None
        files: list[PoolFile] = []
        unreadable: dict[str, str] = {}
        for path, modified in zip(some.paths, some.modified.tolist(), strict=True):
            try:
                files.append(read_footer(place.filesystem, place.path, path, modified, keep))
            except UnreadableFile as error:
                unreadable[path] = str(error)
            if enough.is_set() or (unreadable and self.stop):
                break
        return table_of(files), unreadable


def _on_worker(_: object, reading: _Reading, some: Listing) -> _Found:
    tables: list[pa.Table] = []
    unreadable: dict[str, str] = {}
    for table, bad in reading.each(some):
        tables.append(table)
        unreadable |= bad
        if unreadable and reading.stop:
            break
    return _joined(tables), unreadable


def _joined(tables: Sequence[pa.Table]) -> pa.Table:
    return pa.concat_tables(tables).unify_dictionaries().combine_chunks()


class _Look:
    """Finds out about listed files what is not known."""

    def __init__(self, listing: Listing, choice: RowChoice, stop: bool, workers: StartWorkers | None) -> None:
        self._listing = listing
        self._reading = _Reading(listing.root, choice, stop)
        self._filter = choice.filter
        self._workers = workers
        self.unreadable: dict[str, str] = {}  # path → reason

    def all_files(self, cache: FooterCache | None) -> tuple[pa.Table, int]:
        """The files' rows of FILES in their order, and how many footers were read for them."""
        known = cache.load(self._filter) if cache is not None else FILES.empty_table()
        at = self._known(known)
        missing = self._listing.pick(at < 0)
        parts = [known.take(pa.array(at[at >= 0]))]
        for found, unreadable in self._each(missing):
            if unreadable and self._reading.stop:
                raise UnreadableFile(next(iter(unreadable.values())))
            self.unreadable |= unreadable
            parts.append(found)
        table = _joined(parts)
        if not table.num_rows:
            raise UnreadableFile(next(iter(self.unreadable.values())))
        if cache is not None and missing.paths:
            cache.save(table, self._filter)
        return table.sort_by("path"), len(missing.paths)

    def _each(self, missing: Listing) -> Iterator[_Found]:
        files = len(missing.paths)
        if self._workers is None or files < FOR_WORKERS:
            yield from self._reading.each(missing)
            return
        with self._workers() as workers:
            tasks = (missing.part(start, start + OF_WORKER) for start in range(0, files, OF_WORKER))
            yield from workers.map(_on_worker, self._reading, tasks)

    def _known(self, known: pa.Table) -> NDArray[np.int64]:
        """int64 [files]: the row of `known` that still holds for each listed file; -1: none."""
        listed = pa.array(self._listing.paths, pa.string())
        at: NDArray[np.int64] = pc.fill_null(pc.index_in(listed, known["path"]), -1).to_numpy().astype(np.int64)
        same = at >= 0
        for name, values in (("bytes", self._listing.bytes), ("modified", self._listing.modified)):
            same[same] &= known[name].to_numpy()[at[same]] == values[same]
        return np.where(same, at, -1)
