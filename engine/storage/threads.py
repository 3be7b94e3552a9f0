"""Threads for calls to storage, which may be silent for minutes: such a call cannot be ended, but be left behind.

Python's own pools wait for their threads, at the latest when the process ends.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar
from weakref import WeakSet

from poolscore.engine.errors import StoppedError
from poolscore.engine.machine.allocation import share_arenas

A = TypeVar("A")
PATIENCE = 2.0  # seconds that calls on their way have to come back, when nobody wants their answers any more

_Call = tuple[Future[Any], Callable[..., Any], tuple[Any, ...]]
_left_behind: set[threading.Thread] = set()
_made: WeakSet[StorageThreads] = WeakSet()


class StorageThreads:
    """Makes calls, up to `count` at once, in the order in which they were submitted. Close it, also after an error; the
    end of a `with` waits for nothing."""

    def __init__(self, count: int, name: str) -> None:
        share_arenas()
        self._count = count
        self._name = f"poolscore-{name}"
        self._changed = threading.Condition()
        self._waiting: deque[_Call] = deque()
        self._running: set[Future[Any]] = set()
        self._threads: set[threading.Thread] = set()
        self._idle = 0
        self._closed = False
        _made.add(self)

    def submit(self, call: Callable[..., A], *given: Any) -> Future[A]:
        """Begin with `call(*given)` as soon as a thread is free.

        Raises:
            StoppedError: it is closed.
        """
        future: Future[A] = Future()
        with self._changed:
            if self._closed:
                raise _ended()
            self._waiting.append((future, call, given))
            if self._idle < len(self._waiting) and len(self._threads) < self._count:
                thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._threads.add(thread)
                thread.start()
            self._changed.notify()
        return future

    @property
    def busy(self) -> bool:
        """Whether a call is on its way, or will be."""
        return bool(self._running or self._waiting)

    def close(self, patience: float | None = None) -> bool:
        """Begin nothing more, and wait at most `patience` seconds (PATIENCE) for what was begun. Whoever waits for an
        answer that does not come is told by a StoppedError. May be called again, and by several threads.

        Returns:
            False: some calls were left behind.
        """
        with self._changed:
            self._closed = True
            waiting, self._waiting = self._waiting, deque()
            self._changed.notify_all()
        for future, _, _ in waiting:
            if future.set_running_or_notify_cancel():
                future.set_exception(_ended())
        with self._changed:
            ended = self._changed.wait_for(lambda: not self._running, PATIENCE if patience is None else patience)
            running = set(self._running)
            if not ended:
                _left_behind.update(self._threads)
        for future in running:
            with suppress(InvalidStateError):  # it came back just now
                future.set_exception(_ended())
        if ended:
            for thread in self._threads:
                thread.join()
        return ended

    def __enter__(self) -> StorageThreads:
        return self

    def __exit__(self, *_: object) -> None:
        self.close(0)

    def _run(self) -> None:
        while (taken := self._next()) is not None:
            self._make(*taken)
            del taken

    def _next(self) -> _Call | None:
        """Waits for it; None: closed."""
        with self._changed:
            self._idle += 1
            try:
                while True:
                    self._changed.wait_for(lambda: self._waiting or self._closed)
                    if self._closed:
                        return None
                    taken = self._waiting.popleft()
                    if taken[0].set_running_or_notify_cancel():
                        self._running.add(taken[0])
                        return taken
            finally:
                self._idle -= 1

    def _make(self, future: Future[Any], call: Callable[..., Any], given: tuple[Any, ...]) -> None:
        try:
            settle = partial(future.set_result, call(*given))
        except BaseException as error:
            settle = partial(future.set_exception, error)
        with self._changed:
            self._running.discard(future)
            self._changed.notify_all()
        with suppress(InvalidStateError):  # it was left behind
            settle()
        del future, settle  # an error's traceback leads here: nothing is to hold it that it holds


def apart(call: Callable[..., A], *given: Any) -> A:
    """`call(*given)` on a thread of its own, so that Ctrl-C ends it also while storage is silent."""
    with StorageThreads(1, "storage") as threads:
        return threads.submit(call, *given).result()


def calls_left_behind() -> bool:
    """Whether a call is on its way that nobody waits for, of threads that were closed or that an error holds open. The
    end of the process is to be os._exit then: Arrow's client of S3 would wait for it, and a thread that comes back from
    Arrow's code while Python ends aborts the process."""
    return any(thread.is_alive() for thread in _left_behind) or any(threads.busy for threads in list(_made))


def _ended() -> StoppedError:
    return StoppedError("reading was ended before storage answered")
