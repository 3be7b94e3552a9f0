"""A job from here: its log as it grows, the end of its check, its end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

from poolscore.engine.errors import StoppedError
from poolscore.jobs.submit.cluster import Cluster
from poolscore.jobs.submit.job import PENDING, Job

CHECKED = "checked on "  # a line of the log begins so once the check on the cluster is done
LOOK = 0.5  # seconds between two looks at a job
PATIENCE = 120.0  # seconds in which a cluster that does not answer may come back


def follow(cluster: Cluster, name: str, write: Callable[[str], None]) -> Job:
    """Pass on what a job says, until it ends. A connection that breaks begins again, however long it has lasted.

    Raises:
        StoppedError: the cluster has been away for too long, or does not know the job any more.
    """
    log, watched = _Log(write), Watched(cluster, name)
    while True:
        whole = True
        try:
            asyncio.run(log.read(cluster, name))
        except StoppedError:
            whole = False
        job = watched.ask()
        if job is not None and not job.at_work:
            if not whole:
                with suppress(StoppedError):
                    log.rest(cluster.log(name))
            return job
        time.sleep(LOOK)


class Watched:
    """A job that was there, of a cluster that may be away for a while."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self._cluster, self._name = cluster, name
        self._away: float | None = None  # since when

    def ask(self) -> Job | None:
        """The job as it is; None: the cluster does not answer now.

        Raises:
            StoppedError: it has been away for too long, or does not know the job any more.
        """
        try:
            job = self._cluster.job(self._name)
        except StoppedError:
            if self._away is None:
                self._away = time.monotonic()
            if time.monotonic() - self._away > PATIENCE:
                raise
            return None
        self._away = None
        if job is None:
            raise StoppedError(
                f"{self._cluster.url} does not know {self._name} any more: the cluster has begun anew; the same "
                "`poolscore submit` goes on with the run"
            )
        return job

    def has_ended(self) -> bool:
        """Whether it is known to have ended; errors as those of `ask`."""
        job = self.ask()
        return job is not None and not job.at_work


def wait_for_check(cluster: Cluster, name: str, seconds: float) -> Job | None:
    """The job, once its check on the cluster is done or it has ended; None: it has still not begun."""
    until, watched = time.monotonic() + seconds, Watched(cluster, name)
    while True:
        job = watched.ask()
        if job is not None and (not job.at_work or _is_checked(cluster, job)):
            return watched.ask() or job
        if time.monotonic() > until:
            return None
        time.sleep(LOOK)


def _is_checked(cluster: Cluster, job: Job) -> bool:
    if job.state == PENDING:
        return False
    try:
        return any(line.startswith(CHECKED) for line in cluster.log(job.name).splitlines())
    except StoppedError:
        return False  # it is asked again


def wait_for_end(cluster: Cluster, name: str, seconds: float) -> Job:
    """The job, ended, or still at work after so many seconds."""
    until = time.monotonic() + seconds
    while (job := cluster.require_job(name)).at_work and time.monotonic() < until:
        time.sleep(LOOK)
    return job


class _Log:
    """A connection that broke begins again with the log's first line; what was passed on is not again."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._passed = 0  # characters

    async def read(self, cluster: Cluster, name: str) -> None:
        """Until the job or the connection ends."""
        at = 0
        async for text in cluster.tail(name):
            self._write(text[max(0, self._passed - at) :])
            at += len(text)
            self._passed = max(self._passed, at)

    def rest(self, text: str) -> None:
        """What broken connections left out of the whole `text`."""
        self._write(text[self._passed :])
