"""The seam between the hand-out of shards and the workers, and the fleet of one worker in this process."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Protocol

from poolscore.engine.config_text import one_line
from poolscore.engine.errors import OutOfMemory, PoolscoreError, UnreadableShard
from poolscore.engine.machine.cores import usable_cores
from poolscore.engine.run.mixed import Profile
from poolscore.engine.run.task import Task
from poolscore.engine.worker.job import Job
from poolscore.engine.worker.profile import choose_device
from poolscore.engine.worker.shard import AT_ONCE
from poolscore.engine.worker.worker import ShardWorker

IN_FLIGHT = AT_ONCE  # tasks given to a worker


@dataclass(frozen=True)
class Joined:
    """A worker is ready."""

    worker: int
    profile: Profile


@dataclass(frozen=True)
class Done:
    """A task was done."""

    task: Task
    result: Any  # what `task.do` returned


@dataclass(frozen=True)
class Failed:
    """A worker could not do a task, and lives."""

    task: Task
    reason: str
    hopeless: bool = False  # another shard would fare no better: the job is to stop if it goes on like this
    of_row: bool = False  # the model or a decoder raised, which one row may be to blame for


@dataclass(frozen=True)
class Lost:
    """A worker died."""

    worker: int
    running: Task | None  # what it was at, if anything
    waiting: tuple[Task, ...]  # what it had been given besides
    reason: str


@dataclass(frozen=True)
class Leaving:
    """A machine is about to be taken away. Its worker goes on with what it is at, and is given nothing more."""

    worker: int
    reason: str


Event = Joined | Done | Failed | Lost | Leaving


def what_failed(error: BaseException) -> str:
    """An exception in one line."""
    return one_line(f"{type(error).__name__}: {error}")


def what_became(task: Task, error: BaseException) -> Failed:
    """A task that a worker could not do, by what was raised there.

    Raises:
        PoolscoreError: it concerns the job, not the task.
    """
    if isinstance(error, UnreadableShard | OutOfMemory):
        return Failed(task, str(error), hopeless=isinstance(error, OutOfMemory))
    if isinstance(error, PoolscoreError) or not isinstance(error, Exception):
        raise error
    return Failed(task, what_failed(error), of_row=True)  # one row that makes the model raise must not end the night


class Fleet(Protocol):
    """Workers that take tasks. They may come and go. Errors of the job itself (PoolscoreError) are raised by `wait`.

    Events bring back the very task that was submitted: identity tells apart two copies of one that were handed out.
    """

    expected: int  # workers that are likely to be ready soon, where the first ones join

    def free(self) -> Sequence[int]:
        """Workers that can take a task now, least loaded first."""

    def submit(self, worker: int, task: Task) -> None:
        """Give a task to a worker."""

    def wait(self, seconds: float) -> list[Event]:
        """What happened since the last call; waits at most `seconds` for something to happen."""

    def kill(self, worker: int, why: str) -> None:
        """Give up a worker that hangs: `wait` will say that it was lost. Another takes its place."""

    def refuse(self, worker: int) -> bool:
        """Let a worker go that must not be used, and start none on its machine again. No event follows.

        Returns:
            Whether other workers may still come.
        """

    def last(self) -> Sequence[Done]:
        """The job is interrupted: what was done by now and not told yet. Nothing but `close` is called after it."""

    def close(self) -> None:
        """Let the workers go."""


class LocalFleet:
    """One worker in this process, on threads."""

    expected = 1

    def __init__(self, job: Job) -> None:
        on_gpu = choose_device(job.config).type == "cuda"
        self._worker = ShardWorker(job.with_cores(usable_cores(), on_gpu))
        self._threads = ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="poolscore-shard")
        self._given: dict[Future[Any], Task] = {}
        self._joined = False
        self._refused = False

    def free(self) -> Sequence[int]:
        """See Fleet."""
        return [0] if self._joined and not self._refused and len(self._given) < IN_FLIGHT else []

    def submit(self, worker: int, task: Task) -> None:
        """See Fleet."""
        self._given[self._threads.submit(task.do, self._worker)] = task

    def wait(self, seconds: float) -> list[Event]:
        """See Fleet."""
        if not self._joined:
            self._joined = True
            return [Joined(0, self._worker.profile)]
        done, _ = wait(self._given, timeout=seconds, return_when=FIRST_COMPLETED)
        return [self._event(future, self._given.pop(future)) for future in list(self._given) if future in done]

    def kill(self, worker: int, why: str) -> None:
        """A thread cannot be killed: the run waits for it."""

    def refuse(self, worker: int) -> bool:
        """There is no other."""
        self._refused = True
        return False

    def last(self) -> Sequence[Done]:
        """See Fleet. A shard that is being written is done; one that is in the model is given up."""
        self.close()
        done = {future: task for future, task in self._given.items() if not future.cancelled()}
        return [Done(task, future.result()) for future, task in done.items() if future.exception() is None]

    def close(self) -> None:
        """See Fleet."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._worker.close()
        self._threads.shutdown(wait=True)

    def _event(self, future: Future[Any], task: Task) -> Event:
        error = future.exception()
        return Done(task, future.result()) if error is None else what_became(task, error)
