"""From a source to a pool on disk: workers, writer, journal and list put together."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from poolscore.engine.errors import ConfigError, InterruptedRun
from poolscore.engine.storage.filesystem import reason
from poolscore.engine.words import amount
from poolscore.jobs.pack.contract import MIB, Limits, Packed, PackSummary, Progress, Source, Tally
from poolscore.jobs.pack.destination import FAILURES, Destination
from poolscore.jobs.pack.journal import Journal, Part, Place
from poolscore.jobs.pack.parts import final_name
from poolscore.jobs.pack.set_aside import UNFINISHED, SetAside
from poolscore.jobs.pack.workers import in_order, workers
from poolscore.jobs.pack.writer import PoolWriter

ROWS_PER_WORKER = 500
"""A worker takes half a second to start; fewer rows than this are not worth one more."""


def fill(
    source: Source,
    pool: Destination,
    limits: Limits,
    *,
    processes: int,
    options: Mapping[str, Any],
    fresh: bool,
    progress: Progress | None,
    where: str,
) -> PackSummary:
    """Packs the source into the pool; goes on after the whole parts that an earlier try left there.

    Args:
        processes: at most so many; the pool is the same for any number.
        options: all that the pool depends on beside the source.
        fresh: an earlier try counts for nothing.
        where: the source as the user named it.

    Raises:
        ConfigError: no rows; an unfinished pack of another kind is in the way; the source turned out wrong.
        StoppedError: the disk or a worker failed; whole parts remain for the next try.
        InterruptedRun: Ctrl-C or SIGTERM; says what remains.
    """
    if source.light:
        processes = 1
    elif source.rows is not None:
        processes = max(1, min(processes, source.rows // ROWS_PER_WORKER))
    created = False
    journal = Journal(pool)
    try:
        try:
            created = pool.prepare()
            parts = journal.begin(source.fingerprint, options, fresh=fresh)
        except FAILURES as error:
            raise ConfigError(f"cannot write to POOL {pool.path}: {reason(error)}; name another folder") from error
        return _Filling(source, pool, journal, parts, progress).run(limits, processes, where)
    except KeyboardInterrupt as error:
        again = f"goes on after {amount(journal.rows(), 'row')}" if journal.names() else "begins again"
        why = "" if journal.names() else f", for no file of {limits.file_bytes / MIB:,.0f} MiB was whole yet"
        raise InterruptedRun(f"POOL {pool.path}: interrupted; the same command {again}{why}") from error
    finally:
        _tidy(pool, journal, created)


class _Filling:
    """One try: what was done so far, and the places in the source where the row groups being written began."""

    def __init__(
        self,
        source: Source,
        pool: Destination,
        journal: Journal,
        parts: list[tuple[str, Part]],
        progress: Progress | None,
    ) -> None:
        self._source, self._pool, self._journal, self._progress = source, pool, journal, progress
        self._kept = [file for file, _ in parts]
        self._resumed = parts[-1][1].rows if parts else 0
        place = parts[-1][1].place if parts else Place()
        self._items, self._rows, self._tally = place.items, place.rows, _copy(place.tally)
        self._listed = SetAside(pool, place.listed)
        self._places: deque[Place] = deque()

    def run(self, limits: Limits, processes: int, where: str) -> PackSummary:
        source = self._source
        if self._progress:
            self._progress(self._resumed, source.rows)
        with (
            self._listed,
            workers(processes, source.work) as crew,
            PoolWriter(self._pool, source.schema, limits, self._kept, self._on_part, source.packed) as writer,
        ):
            for packed in in_order(source.pieces(self._items), crew):
                self._take(packed, writer)
                if self._progress:
                    self._progress(max(self._rows, self._resumed), source.rows)
            if not self._rows:
                raise ConfigError(f"none of the files in {where} could be read: nothing to pack")
            writer.finish()
            set_aside = self._listed.commit()
            files = writer.commit()
            self._journal.remove()
        return PackSummary(
            rows=self._rows,
            files=len(files),
            bytes=sum(self._pool.size(file) or 0 for file in files),
            skipped=dict(self._tally.skipped),
            unreadable=tuple(self._tally.unreadable),
            columns={field.name: str(field.type) for field in source.schema},
            headerless=self._tally.headerless,
            set_aside=set_aside,
            resumed=self._resumed,
        )

    def _take(self, packed: Packed, writer: PoolWriter) -> None:
        """Counts what a piece gave, and writes its rows, less those that kept parts hold."""
        if self._places and self._places[-1].rows == self._rows:
            self._places.pop()
        self._places.append(Place(self._items, self._rows, self._listed.tell(), _copy(self._tally)))
        self._items += packed.done
        self._tally.headerless += packed.headerless
        for name, cause in packed.set_aside:
            self._tally.skip(name, cause)
            self._listed.add(name, cause)
        if packed.batch is not None:
            there = min(max(0, self._resumed - self._rows), packed.batch.num_rows)
            self._rows += packed.batch.num_rows
            writer.write(packed.batch.slice(there))
            self._forget(writer.rows)

    def _on_part(self, part: str, rows: int) -> None:
        """Journals a whole part, with the last place at or before its end."""
        self._listed.sync()
        self._forget(rows)
        self._journal.add(part, final_name(part), self._resumed + rows, self._places[0])

    def _forget(self, rows: int) -> None:
        """Leaves the last place at or before a row that this try wrote, and what follows."""
        while len(self._places) > 1 and self._places[1].rows <= self._resumed + rows:
            self._places.popleft()


def _copy(tally: Tally) -> Tally:
    return replace(tally, skipped=Counter(tally.skipped), unreadable=list(tally.unreadable))


def _tidy(pool: Destination, journal: Journal, created: bool) -> None:
    """Leaves nothing of a try that failed, unless it left whole parts for the next one."""
    journal.close()
    with suppress(*FAILURES):  # the reason of a failure has been told
        if any(pool.size(f".{name}.tmp") is not None for name in journal.names()):
            return
        journal.remove()
        pool.remove(UNFINISHED)
        if created:
            pool.discard()
