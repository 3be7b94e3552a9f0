"""The journal: which object counts for which shard. Written by the driver alone, as immutable numbered records.

    _log/<epoch>/<sequence>.json        record 0 of an epoch says who opened it; each further one holds a shard's report

A driver that opens a run claims the next epoch, so two drivers never write the same record. The first report of a shard
wins; later ones are ignored, so scoring a shard twice is harmless. Readers believe the journal, not the listing.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from poolscore.engine.errors import StoppedError
from poolscore.engine.storage import Storage

FOLDER = "_log"


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


class Journal:
    """The driver's side: an open epoch."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._epoch = self._claim()
        self._sequence = 0

    def append(self, report: ShardReport) -> None:
        """Make a shard's result count.

        Raises:
            StoppedError: the record cannot be written, or another driver works on this run.
        """
        self._sequence += 1
        name = f"{FOLDER}/{self._epoch:06d}/{self._sequence:08d}.json"
        if not self._storage.create(name, json.dumps(asdict(report)).encode()):
            raise StoppedError(f"{self._storage.path(name)} exists: another driver works on this run; stop one of them")

    def _claim(self) -> int:
        opened = json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "time": time.time()}).encode()
        epoch = 1 + max((int(name) for name in self._storage.names(FOLDER)), default=0)
        while not self._storage.create(f"{FOLDER}/{epoch:06d}/{0:08d}.json", opened):
            epoch += 1
        return epoch


def read_reports(storage: Storage) -> dict[int, ShardReport]:
    """The report that counts for each finished shard, by shard."""
    reports: dict[int, ShardReport] = {}
    for record in _records(storage):
        report = ShardReport(**json.loads(record))
        reports.setdefault(report.shard, report)
    return dict(sorted(reports.items()))


def _records(storage: Storage) -> Iterator[bytes]:
    for epoch in storage.names(FOLDER):
        for name in storage.names(f"{FOLDER}/{epoch}"):
            if name != f"{0:08d}.json":
                yield storage.read(f"{FOLDER}/{epoch}/{name}")
