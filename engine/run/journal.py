"""The journal: which object counts for which shard. Written by the driver alone, as immutable numbered records.

The first report of a shard wins; later ones are ignored, so scoring a shard twice is harmless. Readers believe the
journal, not the listing. How it lies in storage: records.py.

A record holds one report, or several that came while the one before was written: {"token", "reports": [...]}. Storage
that takes long for a record thus makes records larger, and workers wait for one of them, not for one after another. Its
reports count together or not at all.

Why two drivers cannot both be believed. A driver opens a run in four steps: it asks whether the newest epoch's driver
lives (heartbeat.py), lists what counts there, reads it, and creates record 0 of the next epoch, which says how far it
read: that much it adopts. Whoever finds record 0 there already begins again. From the moment that it is there, every
reader takes the newest epoch, its records, and of the earlier ones what it adopted. So whenever an old driver (cut off,
halted, taken for dead) appends a record,

  before the list                 the record is adopted, and counts for ever;
  between the list and record 0   it counts until record 0 is there, and never again: the new driver does not know of
                                  it, and has the shard scored once more, to the same bits;
  after record 0                  nobody believes it.

The old driver looks after each append (and before, if it has not looked for two heartbeats) whether the newest epoch is
its own. If not it stops, and does not count on that record, adopted or not. If it is, the record counts at that moment.
A reader that looks for the newest epoch before record 0 is there, and for records after, could see a late one. So it
looks for the newest epoch once more when it is done, and if that changed it begins again.
A run that is moved away under its driver, or replaced by another: records carry their driver's token, and count only in
the epoch that was opened with it.
"""

from __future__ import annotations

import json
import secrets
import time
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from types import TracebackType

from poolscore.engine.errors import StoppedError
from poolscore.engine.run.compaction import pack, range_at
from poolscore.engine.run.heartbeat import BEAT, Driver, Heart, require_gone, this_process
from poolscore.engine.run.records import ADOPTED, FOLDER, Record, View, damaged, name_of, newest, read_view
from poolscore.engine.storage.base import Storage
from poolscore.engine.storage.patient import hurry

MANY = 32  # objects that a new epoch had to read, from which on it spares its readers the trouble


@dataclass(frozen=True)
class ShardReport:
    """What became of a shard; the only thing that travels from a worker to the driver."""

    shard: int
    scores: str  # object with the scored rows, relative to the run directory
    errors: str | None  # object with the rejected rows, if there are any
    scored: int  # rows
    rejected: int  # rows
    excluded: int  # rows
    best: dict[str, float]  # the largest value of each score
    reasons: dict[str, int]  # commonest reasons of rejection
    seconds: float
    worker: str
    peak_memory: int  # bytes, of the worker so far
    filtered: int = 0  # rows that filter or sample leave out
    stages: dict[str, float] = field(default_factory=dict)  # seconds of each; none in the records of older versions
    profile: str = ""  # name of the numeric profile; none in the records of older versions
    rejected_by: dict[str, int] = field(default_factory=dict)  # stage of errors/ → rows; none in older records
    at: float = 0.0  # when it was scored, by the worker's clock: seconds since 1970; 0 in older records


class Journal:
    """The driver's side: an open epoch. To be closed, so that the next driver need not ask whether this one lives.

    Args:
        driver: who opens it; default: this process.
        beat: seconds between two heartbeats.

    Raises:
        StoppedError: another driver works on this run, a record is damaged, or storage fails. Nothing was written.
    """

    def __init__(self, storage: Storage, driver: Driver | None = None, beat: float = BEAT) -> None:
        self._storage = storage
        self._token = secrets.token_hex(8)
        self._driver = {**asdict(driver or this_process()), "token": self._token, "beat": beat}
        self._sequence = 0
        self._written: list[tuple[int, bytes]] = []  # records of this epoch with their numbers
        self.adopted: dict[int, ShardReport] = {}  # what counts already, by shard
        view, self.epoch = self._claim()
        self._heart = Heart(storage, self.epoch, self._driver)
        self._end = weakref.finalize(self, self._heart.stop)  # a journal that was forgotten beats no more
        self._end.atexit = False
        try:
            if view.objects > MANY:
                self._storage.create(name_of(self.epoch, ADOPTED), pack(self._token, map(_json, self.adopted.values())))
        except BaseException:
            self.close()
            raise

    def append(self, *reports: ShardReport) -> None:
        """Make the results of shards count, by one record.

        Raises:
            StoppedError: the record cannot be written, or another driver works on this run.
        """
        if time.monotonic() - self._heart.confirmed > 2 * self._driver["beat"]:
            self.require_ours()
        data = _record(self._token, reports)
        self._sequence += 1
        while not self._storage.create(name_of(self.epoch, self._sequence), data):
            self.require_ours()
            self._sequence += 1  # a stranger's, to whom this folder belonged
        self.require_ours()
        self._written.append((self._sequence, data))
        if (compacted := range_at(self._sequence)) is not None:
            records = [data for number, data in self._written if compacted[0] <= number]
            self._storage.create(name_of(self.epoch, compacted), pack(self._token, records))

    def require_ours(self) -> None:
        """Prove that all that this epoch appended so far counts.

        Raises:
            StoppedError: the run has been opened since, or was moved.
        """
        if not self._heart.is_ours(self._storage):
            where = self._storage.path(FOLDER)
            raise StoppedError(f"{where}: another driver works on this run, or it was moved; stop one of them")

    def hurry(self) -> None:
        """Wait for storage that fails no longer: the job ends."""
        hurry(self._storage)

    def close(self) -> None:
        """Stop, and tell the next driver that it may begin at once."""
        self._end()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _claim(self) -> tuple[View, int]:
        epoch = 0
        while True:
            before = newest(self._storage, epoch)
            if before is not None:
                require_gone(self._storage, before)
            view = read_view(self._storage, epoch)
            if view.opening != before:
                continue
            self.adopted = _reports(self._storage, view.records)
            epoch = 1 + max(view.last, default=0)
            opening = {**self._driver, "time": time.time(), "adopted": view.last}
            if self._storage.create(name_of(epoch, 0), json.dumps(opening).encode()):
                return view, epoch


def require_no_driver(storage: Storage, watch: bool = True) -> None:
    """Refuse where a driver works on the run.

    Args:
        watch: wait some seconds where only its heartbeat can tell; else such a driver passes for gone.

    Raises:
        StoppedError: it lives.
    """
    opening = newest(storage)
    if opening is not None:
        require_gone(storage, opening, watch)


def read_reports(storage: Storage) -> dict[int, ShardReport]:
    """The report that counts for each finished shard, by shard.

    Raises:
        StoppedError: a record is damaged. It is not passed over: a run must not lose a shard and still look whole.
    """
    return _reports(storage, read_view(storage).records)


def _reports(storage: Storage, records: Iterable[Record]) -> dict[int, ShardReport]:
    reports: dict[int, ShardReport] = {}
    for name, values in records:
        try:
            several = [ShardReport(**one) for one in (values["reports"] if values.keys() == {"reports"} else [values])]
        except TypeError as error:
            raise damaged(storage, name, error) from error
        for report in several:
            reports.setdefault(report.shard, report)
    return dict(sorted(reports.items()))


def _record(token: str, reports: Sequence[ShardReport]) -> bytes:
    """One report as older versions wrote it, which they can read."""
    told = asdict(reports[0]) if len(reports) == 1 else {"reports": [asdict(report) for report in reports]}
    return json.dumps({"token": token, **told}).encode()


def _json(report: ShardReport) -> bytes:
    return json.dumps(asdict(report)).encode()
