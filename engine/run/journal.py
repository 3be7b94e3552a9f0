"""The journal: which object counts for which shard. Written by the driver alone, as immutable numbered records.

    _log/<epoch>/<sequence>.json        record 0 of an epoch says who opened it; each further one holds a shard's report

A driver that opens a run claims the next epoch, so two drivers never write the same record. The first report of a shard
wins; later ones are ignored, so scoring a shard twice is harmless. Readers believe the journal, not the listing.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

from poolscore.engine.errors import StoppedError
from poolscore.engine.storage import Storage

FOLDER = "_log"
_EPOCH = re.compile("[0-9]{6}")
_RECORD = re.compile("[0-9]{8}[.]json")


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


class Journal:
    """The driver's side: an open epoch."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        mine = {"host": socket.gethostname(), "pid": os.getpid(), "time": time.time(), "token": secrets.token_hex(8)}
        self._opened = json.dumps(mine).encode()
        self._epoch = self._claim()
        self._sequence = 0

    def append(self, report: ShardReport) -> None:
        """Make a shard's result count.

        Raises:
            StoppedError: the record cannot be written, or another driver works on this run.
        """
        self._sequence += 1
        name = f"{FOLDER}/{self._epoch:06d}/{self._sequence:08d}.json"
        if not self._is_mine() or not self._storage.create(name, json.dumps(asdict(report)).encode()):
            where = self._storage.path(FOLDER)
            raise StoppedError(f"{where}: another driver works on this run, or it was moved; stop one of them")

    def _is_mine(self) -> bool:
        """Whether this is still the run that was opened, and nobody has opened it since."""
        try:
            opened = self._storage.read(f"{FOLDER}/{self._epoch:06d}/{0:08d}.json")
        except OSError:
            return False
        later = [name for name in _numbered(self._storage, FOLDER, _EPOCH) if int(name) > self._epoch]
        return opened == self._opened and not later

    def _claim(self) -> int:
        epoch = 1 + max((int(name) for name in _numbered(self._storage, FOLDER, _EPOCH)), default=0)
        while not self._storage.create(f"{FOLDER}/{epoch:06d}/{0:08d}.json", self._opened):
            epoch += 1
        return epoch


def read_reports(storage: Storage) -> dict[int, ShardReport]:
    """The report that counts for each finished shard, by shard.

    Raises:
        StoppedError: a record is damaged. It is not passed over: a run must not lose a shard and still look whole.
    """
    reports: dict[int, ShardReport] = {}
    names = list(_records(storage))
    for name, data in zip(names, storage.read_all(names), strict=True):
        try:
            report = ShardReport(**json.loads(data))
        except (ValueError, TypeError) as error:
            raise StoppedError(
                f"{storage.path(name)} is damaged ({' '.join(str(error).split())}); delete it, and _SUCCESS if it is "
                "there, then run the same command again: its shard is scored anew"
            ) from error
        reports.setdefault(report.shard, report)
    return dict(sorted(reports.items()))


def _records(storage: Storage) -> Iterator[str]:
    for epoch in _numbered(storage, FOLDER, _EPOCH):
        for name in _numbered(storage, f"{FOLDER}/{epoch}", _RECORD):
            if name != f"{0:08d}.json":
                yield f"{FOLDER}/{epoch}/{name}"


def _numbered(storage: Storage, folder: str, form: re.Pattern[str]) -> list[str]:
    """Names of the journal's own form; what others leave in its folders says nothing."""
    return [name for name in storage.names(folder) if form.fullmatch(name)]
