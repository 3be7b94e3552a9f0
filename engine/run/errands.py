"""Hands out read-only tasks: no journal, no bisection. What fails too often is left undone, and told."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from poolscore.engine.errors import ConfigError, StoppedError
from poolscore.engine.run.blame import ATTEMPTS
from poolscore.engine.run.coordinator import TICK
from poolscore.engine.run.events import RunEvent
from poolscore.engine.run.fleet import Done, Event, Failed, Fleet, Joined, Leaving, Lost
from poolscore.engine.run.leases import Leases
from poolscore.engine.run.mixed import Profile
from poolscore.engine.run.task import Task

PATIENCE = 600.0  # seconds that tasks wait for a worker while none has any


@dataclass(frozen=True)
class ErrandState:
    """How far they are."""

    done: int  # tasks, also those that failed for good
    of: int
    workers: int  # that are held for them


@dataclass
class Errands:
    """What became of the tasks, by their shards' indices, which are all different and no shard's of the run."""

    done: dict[int, Any] = field(default_factory=dict)  # results
    failed: dict[int, str] = field(default_factory=dict)  # reasons


def run_errands(
    fleet: Fleet,
    tasks: Sequence[Task],
    why_not: Callable[[Profile], str | None],
    on_event: Callable[[RunEvent], None] = lambda event: None,
    timeout: float | None = None,
    clock: Callable[[], float] = time.monotonic,
    on_progress: Callable[[ErrandState], None] = lambda state: None,
) -> Errands:
    """Have each task done once; one that fails, or whose worker dies of it, is tried three times. The fleet may have
    done other work before, and may still be at some.

    Args:
        why_not: why a worker with this profile is not to be used; None: it is.
        timeout: seconds after which a worker is given up; None: many times what is usual (leases.py).
        on_progress: called about once a second, and at the end.

    Raises:
        ConfigError: no worker may be used.
        StoppedError: none has been free for PATIENCE; or what the fleet raises.
    """
    errands = _Errands(fleet, tasks, why_not, on_event, Leases(timeout, clock), clock, on_progress)
    errands.run()
    return errands.became


class _Errands:
    def __init__(
        self,
        fleet: Fleet,
        tasks: Sequence[Task],
        why_not: Callable[[Profile], str | None],
        on_event: Callable[[RunEvent], None],
        leases: Leases,
        clock: Callable[[], float],
        on_progress: Callable[[ErrandState], None],
    ) -> None:
        self._fleet, self._queue, self._why_not, self._on_event = fleet, deque(tasks), why_not, on_event
        self._leases, self._clock, self._on_progress = leases, clock, on_progress
        self._of = len(tasks)
        self._workers: set[int] = set()  # that were free once: a fleet does not tell again who joined before
        self._failures: dict[int, int] = {}
        self.became = Errands()

    def run(self) -> None:
        busy = self._clock()  # when somebody had a task
        while self._queue or self._leases.count:
            self._workers |= set(self._fleet.free())
            while self._queue and (free := self._fleet.free()):
                self._leases.give(free[0], self._queue[0])
                self._fleet.submit(free[0], self._queue.popleft())
            self._tell()
            if self._leases.count:
                busy = self._clock()
            elif self._clock() - busy > PATIENCE:
                raise StoppedError(f"no worker was free for {PATIENCE:.0f} s")
            for event in self._fleet.wait(TICK):
                self._hear(event)
            for worker, why in self._leases.hung():
                self._on_event(RunEvent("killed", worker, why=why))
                self._fleet.kill(worker, why)
        self._tell()

    def _tell(self) -> None:
        done = len(self.became.done) + len(self.became.failed)
        self._on_progress(ErrandState(done, self._of, len(self._workers)))

    def _hear(self, event: Event) -> None:
        match event:
            case Joined(worker, profile):
                if (why := self._why_not(profile)) is None:
                    return
                self._on_event(RunEvent("refused", worker, why=why))
                if not self._fleet.refuse(worker):
                    raise ConfigError(why)
            case Leaving(worker, reason):
                self._leases.leave(worker)
                self._on_event(RunEvent("leaving", worker, why=reason))
            case Done(task, result):
                if self._leases.take_back(task, finished=True) is not None:
                    self.became.done[task.shard.index] = result
            case Failed(task, reason):
                if self._leases.take_back(task, finished=False) is not None:
                    self._again(task, reason)
            case Lost(worker, running, waiting, reason):
                self._on_event(RunEvent("lost", worker, why=reason))
                mine = [task for task in waiting if self._leases.take_back(task, finished=False) is not None]
                self._queue.extendleft(reversed(mine))
                if running is not None and self._leases.take_back(running, finished=False) is not None:
                    self._again(running, f"its worker died: {reason}")
                self._leases.lose(worker)
                self._workers.discard(worker)

    def _again(self, task: Task, reason: str) -> None:
        """A task that came to nothing, blamed or not, is tried again."""
        index = task.shard.index
        self._failures[index] = self._failures.get(index, 0) + 1
        if self._failures[index] < ATTEMPTS:
            self._queue.append(task)
        else:
            self.became.failed[index] = reason
