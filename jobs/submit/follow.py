"""A job from here: its log as it grows, the end of its check, its end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from poolscore.engine.errors import StoppedError
from poolscore.jobs.submit.cluster import Cluster
from poolscore.jobs.submit.job import PENDING, Job

CHECKED = "checked on "  # a line of the log begins so once the check on the cluster is done
LOOK = 0.5  # seconds between two looks at a job
PATIENCE = 120.0  # seconds in which a cluster that does not answer may come back


def follow(cluster: Cluster, name: str, write: Callable[[str], None]) -> Job:
    """Pass on what a job says, until it ends.

    Raises:
        StoppedError: the cluster has been away for too long.
    """
    log = _Log(write)
    answered = time.monotonic()
    while True:
        try:
            asyncio.run(log.read(cluster, name))
            job = cluster.require_job(name)
            answered = time.monotonic()
            if not job.at_work:
                return job
        except StoppedError:
            if time.monotonic() - answered > PATIENCE:
                raise
        time.sleep(LOOK)


def wait_for_check(cluster: Cluster, name: str, seconds: float) -> Job | None:
    """The job, once its check on the cluster is done or it has ended; None: it has still not begun."""
    until = time.monotonic() + seconds
    while True:
        job = cluster.require_job(name)
        begun = job.state != PENDING and any(line.startswith(CHECKED) for line in cluster.log(name).splitlines())
        if begun or not job.at_work:
            return cluster.require_job(name)
        if time.monotonic() > until:
            return None
        time.sleep(LOOK)


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
