"""The seam between the hand-out of shards and the workers, and the fleet of one worker in this process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from poolscore.engine.config_text import one_line
from poolscore.engine.errors import PoolscoreError, UnreadableShard
from poolscore.engine.pool.plan import Shard
from poolscore.engine.profile import Profile
from poolscore.engine.run.journal import ShardReport
from poolscore.engine.worker import Job, ShardWorker


@dataclass(frozen=True)
class Joined:
    """A worker is ready."""

    worker: int
    profile: Profile


@dataclass(frozen=True)
class Scored:
    """A shard was scored and its part written."""

    report: ShardReport


@dataclass(frozen=True)
class Failed:
    """A worker could not score a shard, and lives."""

    shard: Shard
    reason: str


@dataclass(frozen=True)
class Lost:
    """A worker died."""

    worker: int
    running: Shard | None  # what it was at, if anything
    waiting: tuple[Shard, ...]  # what it had been given besides
    reason: str


Event = Joined | Scored | Failed | Lost


def what_failed(error: BaseException) -> str:
    """An exception in one line."""
    return one_line(f"{type(error).__name__}: {error}")


class Fleet(Protocol):
    """Workers that take shards. Errors of the job itself (PoolscoreError) are raised by `wait`."""

    def free(self) -> Sequence[int]:
        """Workers that can take a shard now, least loaded first."""

    def submit(self, worker: int, shard: Shard) -> None:
        """Give a shard to a worker."""

    def wait(self, seconds: float) -> list[Event]:
        """What happened since the last call; waits at most `seconds` for something to happen."""

    def close(self) -> None:
        """Let the workers go."""


class LocalFleet:
    """One worker in this process; it works while it is waited for."""

    def __init__(self, job: Job) -> None:
        self._worker = ShardWorker(job)
        self._given: Shard | None = None
        self._joined = False

    def free(self) -> Sequence[int]:
        """See Fleet."""
        return [0] if self._joined and self._given is None else []

    def submit(self, worker: int, shard: Shard) -> None:
        """See Fleet."""
        self._given = shard

    def wait(self, seconds: float) -> list[Event]:
        """See Fleet."""
        if not self._joined:
            self._joined = True
            return [Joined(0, self._worker.profile)]
        shard, self._given = self._given, None
        if shard is None:
            return []
        try:
            return [Scored(self._worker.score(shard))]
        except UnreadableShard as error:
            return [Failed(shard, str(error))]
        except PoolscoreError:
            raise
        except Exception as error:  # one row that makes the model raise must not end the night
            return [Failed(shard, what_failed(error))]

    def close(self) -> None:
        """See Fleet."""
