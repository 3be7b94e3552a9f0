"""Selecting, and reading the footers of a large pool, on a Ray cluster: the same tasks as on threads, the same bytes.

What travels is counts (512 KiB a task) and the rows that are chosen (32 bytes each); never a column of scores. A task
whose worker dies is run again by Ray: it only reads.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

from poolscore.engine.config_text import one_line
from poolscore.engine.errors import ConfigError, PoolscoreError, StoppedError
from poolscore.engine.run.signals import signals_after
from poolscore.engine.selection.parts import Reader

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
from ray.exceptions import RayError, RayTaskError

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
def ray_workers(address: str | None) -> Iterator[RayWorkers]:
    """Workers of the cluster at this address ('local': an embedded one; None: RAY_ADDRESS's, or an embedded one).

    Raises:
        ConfigError: there is no such cluster.
    """
    owned = not ray.is_initialized()
    if owned:
        try:
            with signals_after():
                where = address or os.environ.get("RAY_ADDRESS") or "local"
                embedded: dict[str, Any] = {"include_dashboard": False} if where == "local" else {}
                ray.init(where, log_to_driver=False, logging_level=logging.WARNING, configure_logging=True, **embedded)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ConfigError(f"--address: cannot use the Ray cluster at {address}: {one_line(error)}") from error
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
