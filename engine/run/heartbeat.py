"""Whether the driver that opened an epoch still lives.

On its own machine the process is looked for, by machine start, pid namespace (a container has its own), pid and start
time, because pids are given again. From elsewhere its heartbeat is watched, an object that it counts up every few
seconds. Only whether it changes matters, never a time of day: clocks of two machines differ and jump.
"""

from __future__ import annotations

import json
import logging
import math
import os
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from threading import Event, Thread
from typing import Any

from poolscore.engine.errors import PoolscoreError, StoppedError
from poolscore.engine.run.records import FOLDER, Opening, name_of, newest
from poolscore.engine.storage.base import Storage
from poolscore.engine.storage.patient import impatient

LOG = logging.getLogger("poolscore")
BEAT = 5.0  # seconds between two heartbeats
MISSED = 4  # beats in a row that do not come: the driver is taken for dead
HEARTBEAT, CLOSED = "heartbeat.json", "closed.json"


@dataclass(frozen=True)
class Driver:
    """A process, told apart from all others of its machine since that was started."""

    host: str
    pid: int
    boot: str | None  # of the machine; None where the system does not tell
    pids: str | None  # namespace in which the pid counts
    started: str | None  # in the machine's ticks since its start


def this_process() -> Driver:
    """Who we are."""
    boot = pids = None
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        pids = str(Path("/proc/self/ns/pid").readlink())
    return Driver(socket.gethostname(), os.getpid(), boot, pids, _started(os.getpid()))


def lives(driver: Driver) -> bool | None:
    """Whether a process of this machine lives; None: it is another machine's, or another container's."""
    here = this_process()
    if None in (driver.boot, driver.pids, driver.started) or (driver.boot, driver.pids) != (here.boot, here.pids):
        return None
    return _started(driver.pid) == driver.started


def is_at_work(storage: Storage, opening: Opening, watch: bool = True) -> bool | None:
    """Whether the driver of an epoch still works on the run. None: it is of an older version, which gives no sign of
    life.

    Args:
        watch: wait some seconds where only its heartbeat can tell; else such a driver passes for gone.
    """
    if "boot" not in opening.driver:
        return None
    alive = _seen_from_here(storage, opening)
    if alive is None:
        return watch and _beats(storage, opening, opening.driver["host"], float(opening.driver["beat"]))
    return alive


class Pulse:
    """Whether a driver is at work, asked again and again without waiting. One that only its heartbeat can tell of
    passes for alive until it has missed some beats."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: tuple[str, int | None] | None = None  # whose beat, and which
        self._since = 0.0

    def is_at_work(self, storage: Storage, opening: Opening) -> bool | None:
        """See `is_at_work`."""
        if "boot" not in opening.driver:
            return None
        alive = _seen_from_here(storage, opening)
        if alive is not None:
            return alive
        seen = opening.token, _count(storage, opening)
        if seen != self._seen:
            self._seen, self._since = seen, self._clock()
        return self._clock() - self._since < MISSED * float(opening.driver["beat"])


def require_gone(storage: Storage, opening: Opening, watch: bool = True) -> None:
    """Refuse to work beside a living driver. Nothing is written.

    Args:
        watch: see `is_at_work`.

    Raises:
        StoppedError: it lives.
    """
    if is_at_work(storage, opening, watch):
        told = opening.driver
        raise StoppedError(
            f"{storage.path(FOLDER)}: another driver works on this run, process {told['pid']} on {told['host']}; "
            "wait for its end, or stop it, then run the same command again"
        )


class Heart:
    """Beats on a thread of its own, whatever the storage does, until it is stopped or the epoch is no longer ours."""

    def __init__(self, storage: Storage, epoch: int, driver: Mapping[str, Any]) -> None:
        self.confirmed = time.monotonic()  # when the run was last seen to be ours
        self._storage = impatient(storage)  # a beat that comes late is none
        self._epoch, self._driver = epoch, driver
        self._stopped = Event()
        self._thread = Thread(target=self._beat, name="poolscore-heartbeat", daemon=True)
        self._thread.start()

    def is_ours(self, storage: Storage) -> bool:
        """Whether nobody has opened the run since, and it is still the one that was opened."""
        opening = newest(storage, self._epoch)
        ours = opening is not None and opening.token == self._driver["token"]
        self.confirmed = time.monotonic() if ours else -math.inf
        return ours

    def stop(self) -> None:
        """Stop beating, and say so: nobody need watch this driver."""
        self._stopped.set()
        with suppress(PoolscoreError):  # then it is watched
            told = json.dumps({"token": self._driver["token"]}).encode()
            self._storage.create(name_of(self._epoch, CLOSED), told)

    def _beat(self) -> None:
        count = 0
        while not self._stopped.wait(self._driver["beat"]):
            count += 1
            with suppress(Exception):  # the next beat tries again
                if not self.is_ours(self._storage):
                    return
                self._publish(json.dumps({**self._driver, "count": count}).encode())

    def _publish(self, data: bytes) -> None:
        self._storage.publish(name_of(self._epoch, HEARTBEAT), lambda file: file.write(data))


def _seen_from_here(storage: Storage, opening: Opening) -> bool | None:
    """Whether the driver of an epoch works; None: only its heartbeat can tell."""
    if _is_closed(storage, opening):
        return False
    return lives(Driver(**{field.name: opening.driver[field.name] for field in fields(Driver)}))


def _beats(storage: Storage, opening: Opening, host: str, beat: float) -> bool:
    """Watch a heartbeat; True as soon as it moves."""
    LOG.warning("this run was begun on %s: watching for %.0f s whether its driver still works", host, MISSED * beat)
    first = _count(storage, opening)
    end = time.monotonic() + MISSED * beat
    while time.monotonic() < end:
        time.sleep(beat / 5)
        if _count(storage, opening) != first:
            return not _is_closed(storage, opening)
        if _is_closed(storage, opening):
            return False
    return False


def _count(storage: Storage, opening: Opening) -> int | None:
    told = _told(storage, opening, HEARTBEAT)
    return None if told is None else told.get("count")


def _is_closed(storage: Storage, opening: Opening) -> bool:
    return _told(storage, opening, CLOSED) is not None


def _told(storage: Storage, opening: Opening, entry: str) -> dict[str, Any] | None:
    """What the epoch's own driver left there."""
    try:
        told = json.loads(storage.read(name_of(opening.epoch, entry)))
        return dict(told) if told["token"] == opening.token else None
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _started(pid: int) -> str | None:
    """When a process was started, in ticks since the machine's start; None if there is none."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else rest[18]
