"""Selecting, and reading the footers of a large pool, on a Ray cluster: the same tasks as on threads, the same bytes.

What travels is counts (512 KiB a task) and the rows that are chosen (32 bytes each); never a column of scores. A task
whose worker dies is run again by Ray: it only reads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError

from poolscore.engine.config_text import one_line
from poolscore.engine.errors import PoolscoreError, StoppedError
from poolscore.engine.run.ray_cluster import connect
from poolscore.engine.selection.parts import Reader

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
WAITING = 2  # tasks for each CPU of the cluster: one at work, one ready


class RayWorkers:
    """See Workers: tasks of one CPU each."""

    def __init__(self) -> None:
        self._at_once = WAITING * max(1, int(ray.cluster_resources().get("CPU", 1)))

    def map(self, call: Callable[[Reader, A, B], C], common: A, tasks: Iterable[B]) -> Iterator[C]:
        """See Workers.

        Raises:
            StoppedError: the cluster failed.
        """
        run: Any = ray.remote(num_cpus=1)(_run)
        shared = ray.put(common)
        waiting: deque[Any] = deque()
        for task in tasks:
            waiting.append(run.remote(call, shared, task))
            if len(waiting) == self._at_once:
                yield _result(waiting.popleft())
        while waiting:
            yield _result(waiting.popleft())


@contextmanager
def ray_workers(address: str | None, option: str = "--address") -> Iterator[RayWorkers]:
    """Workers of the cluster at this address, which `option` gave: see `connect`.

    Raises:
        ConfigError: there is no such cluster.
    """
    owned = not ray.is_initialized()
    if owned:
        connect(address, option=option)
    try:
        yield RayWorkers()
    finally:
        if owned:
            ray.shutdown()


def _run(call: Callable[[Reader, A, B], C], common: A, task: B) -> C:
    return call(_reader(), common, task)


@cache
def _reader() -> Reader:
    return Reader()


def _result(reference: Any) -> Any:
    try:
        return ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, PoolscoreError):
            raise error.cause from error
        raise
    except RayError as error:
        raise StoppedError(f"the Ray cluster failed ({one_line(error)}); run the same command again") from error
