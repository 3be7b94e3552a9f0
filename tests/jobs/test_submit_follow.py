"""Watching a job of a cluster that is away now and then; stand-ins for cluster and clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from poolscore.engine.errors import StoppedError
from poolscore.jobs.submit import cluster as seam
from poolscore.jobs.submit import follow as following
from poolscore.jobs.submit.cluster import Cluster
from poolscore.jobs.submit.follow import PATIENCE, follow, wait_for_check
from poolscore.jobs.submit.job import Job

AT_WORK = Job("night", "running", "s3://b/night", None, None, None, None, "http://there")
DONE = Job("night", "succeeded", "s3://b/night", 0, None, None, None, "http://there")
LOG = "a line\nanother\nchecked on there\n"


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Away(Cluster):
    """Its tails break after `lasts` seconds and the log's first line; `answers` are those to what the job does."""

    def __init__(self, clock: Clock, lasts: float, answers: Iterator[Job | StoppedError | None]) -> None:
        self.url, self.clock, self.lasts, self.answers = "http://there", clock, lasts, answers

    async def tail(self, name: str) -> AsyncIterator[str]:
        if self.lasts:
            yield LOG[:7]
        self.clock.now += self.lasts
        raise StoppedError("lost")

    def job(self, name: str) -> Job | None:
        answer = next(self.answers)
        if isinstance(answer, StoppedError):
            raise answer
        return answer

    def log(self, name: str) -> str:
        return LOG


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(following, "time", clock)
    return clock


def repeated(answer: Job | StoppedError, count: int, *then: Job | None) -> Iterator[Job | StoppedError | None]:
    yield from [answer] * count
    yield from then


@pytest.mark.parametrize("lasts", [0.0, 3600.0])
def test_a_log_that_breaks_is_no_end_of_the_job(clock: Clock, lasts: float) -> None:
    """However long it had lasted; and where it never came the whole log is there at the end."""
    said: list[str] = []
    looks = 3 * int(PATIENCE / following.LOOK)
    assert follow(Away(clock, lasts, repeated(AT_WORK, looks, DONE)), "night", said.append) == DONE
    assert "".join(said) == LOG


def test_a_cluster_may_be_away_for_a_while(clock: Clock) -> None:
    looks = int(PATIENCE / following.LOOK) - 2
    for watch in (lambda there: follow(there, "night", str), lambda there: wait_for_check(there, "night", 600)):
        gone = [StoppedError("away")] * looks
        assert watch(Away(clock, 0.0, iter([AT_WORK, *gone, DONE, DONE]))) in (DONE, AT_WORK)
        clock.now = 0.0


def test_and_not_for_ever(clock: Clock) -> None:
    with pytest.raises(StoppedError, match="away"):
        follow(Away(clock, 0.0, repeated(StoppedError("away"), 1000)), "night", str)
    assert PATIENCE < clock.now < PATIENCE + 5


def test_a_job_that_its_cluster_has_forgotten_was_stopped(clock: Clock) -> None:
    with pytest.raises(StoppedError, match="does not know night any more"):
        follow(Away(clock, 1.0, iter([AT_WORK, None])), "night", str)


class Silent:
    """Stands for Ray's client, whose connection is half open."""

    async def tail_job_logs(self, name: str) -> AsyncIterator[str]:
        yield LOG
        await asyncio.Event().wait()


def test_a_connection_that_is_silent_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seam, "SILENT", 0.05)
    there: Any = Cluster.__new__(Cluster)
    there.url, there._client = "http://there", Silent()
    said: list[str] = []

    async def read() -> None:
        async for text in there.tail("night"):
            said.append(text)

    with pytest.raises(StoppedError, match="the log of night is silent"):
        asyncio.run(asyncio.wait_for(read(), 5.0))
    assert said == [LOG]
