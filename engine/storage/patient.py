"""Storage that fails for a while: full, away, throttled, no longer permitted. A job waits for it, and then stops."""

from __future__ import annotations

import errno
import logging
import random
import time
from collections.abc import Callable, Sequence
from threading import Event
from typing import BinaryIO, TypeVar

from poolscore.engine.errors import PoolscoreError, StoppedError
from poolscore.engine.storage.base import Storage
from poolscore.engine.storage.filesystem import in_order

LOG = logging.getLogger("poolscore")
A = TypeVar("A")
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 15.0  # seconds
# What time does not mend: the name is wrong.
_HOPELESS = {errno.ENAMETOOLONG, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EINVAL}


class _OfFill(Exception):
    def __init__(self, error: PoolscoreError) -> None:
        super().__init__(error)
        self.error = error


class PatientStorage:
    """See Storage. A call that fails is repeated with growing pauses.

    Args:
        inner: what does the work.
        seconds: so long; then its error is raised.
        stopped: once it is set nobody waits any more.
        on_waited: told of each wait once it is over: seconds, and the error. By the thread that waited.
    """

    def __init__(
        self,
        inner: Storage,
        seconds: float,
        stopped: Event | None = None,
        on_waited: Callable[[float, str], None] = lambda seconds, why: None,
    ) -> None:
        self.inner = inner
        self.root = inner.root
        self.at_once = inner.at_once
        self.seconds = seconds
        self.stopped = stopped or Event()
        self._on_waited = on_waited
        self._told = False

    def publish(self, name: str, fill: Callable[[BinaryIO], object]) -> None:
        """See Storage. `fill` is called again with each attempt, but not after an error of its own: what it reads or
        asks has waited enough."""

        def guarded(file: BinaryIO) -> None:
            try:
                fill(file)
            except PoolscoreError as error:
                raise _OfFill(error) from error

        try:
            self.patiently(lambda: self.inner.publish(name, guarded))
        except _OfFill as error:
            raise error.error from error.error.__cause__

    def create(self, name: str, data: bytes) -> bool:
        """See Storage. What an attempt wrote that then failed counts as ours."""
        attempts = 0

        def attempt() -> bool:
            nonlocal attempts
            attempts += 1
            return self.inner.create(name, data) or (attempts > 1 and self._holds(name, data))

        return self.patiently(attempt)

    def read(self, name: str) -> bytes:
        """See Storage."""
        return self.patiently(lambda: self.inner.read(name))

    def read_all(self, names: Sequence[str]) -> list[bytes]:
        """See Storage."""
        return list(in_order(self.read, names, self.at_once))  # each is waited for by itself

    def names(self, folder: str) -> list[str]:
        """See Storage."""
        return self.patiently(lambda: self.inner.names(folder))

    def leftovers(self, folder: str) -> list[str]:
        """See Storage."""
        return self.patiently(lambda: self.inner.leftovers(folder))

    def delete(self, name: str) -> None:
        """See Storage."""
        self.patiently(lambda: self.inner.delete(name))

    def path(self, name: str) -> str:
        """See Storage."""
        return self.inner.path(name)

    def require_writable(self) -> None:
        """See Storage. Does not wait: what fails before any work is the user's to mend."""
        self.inner.require_writable()

    def _holds(self, name: str, data: bytes) -> bool:
        try:
            return self.inner.read(name) == data
        except FileNotFoundError:
            return False

    def patiently(self, call: Callable[[], A], kind: type[StoppedError] = StoppedError) -> A:
        """Repeat a call as long as it raises this kind of error, and it is not too long."""
        began, pause, why = None, FIRST_PAUSE, ""
        while True:
            try:
                result = call()
            except kind as error:
                began, why = began or time.monotonic(), str(error).partition(";")[0]
                waited = time.monotonic() - began
                left = self.seconds - waited
                if getattr(error.__cause__, "errno", None) in _HOPELESS:
                    raise
                if left <= 0:
                    raise StoppedError(f"{error} (tried for {waited:.0f} s: run.storage_patience)") from error
                self._tell(why)
                if self.stopped.wait(min(pause * random.uniform(0.5, 1.0), left)):
                    raise
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                self._told = False
                if began is not None:
                    self._on_waited(time.monotonic() - began, why)
                return result

    def _tell(self, why: str) -> None:
        if not self._told:
            self._told = True
            LOG.warning("%s; waiting for up to %.0f s", why, self.seconds)


def hurry(storage: Storage) -> None:
    """Wait no longer, now and later: the job ends."""
    if isinstance(storage, PatientStorage):
        storage.stopped.set()


def patience_of(storage: Storage) -> float:
    """Seconds that it waits."""
    return storage.seconds if isinstance(storage, PatientStorage) else 0.0


def impatient(storage: Storage) -> Storage:
    """The same storage without the waiting."""
    return storage.inner if isinstance(storage, PatientStorage) else storage
