"""A fleet in memory that does what a test tells it to, and checks what it is asked for."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from poolscore.engine.pool.plan import Shard
from poolscore.engine.run.fleet import Done, Event, Failed, Joined, Lost
from poolscore.engine.run.journal import ShardReport
from poolscore.engine.run.mixed import Profile
from poolscore.engine.run.task import ScoreShard, Task

PROFILE: Profile = {"device": "fake", "threads": 1}
Answer = Callable[[int, Task], Event | None]  # worker and task → what becomes of it; None: nothing for now


def make_shards(count: int, rows: int = 10) -> list[Shard]:
    """Shards of so many rows each; nobody reads their pieces."""
    return [Shard(i, i * rows, rows, ()) for i in range(count)]


def report(shard: int, scored: int = 10, rejected: int = 0, attempt: int = 0, reason: str = "null") -> ShardReport:
    """A shard's report; `attempt` tells two of them apart."""
    reasons = {reason: rejected} if rejected else {}
    name = f"scores/part-{shard:05d}-{attempt}.parquet"
    return ShardReport(shard, name, None, scored, rejected, 0, {"bald": 1.0}, reasons, 1.0, "fake", 1)


def scored(report: ShardReport) -> Done:
    """The event that brings a report."""
    return Done(ScoreShard(make_shards(report.shard + 1)[-1]), report)


class FakeClock:
    """A clock that a test turns; `watch` is called every few seconds, as a driver looks about."""

    def __init__(self, watch: Callable[[], object] = lambda: None) -> None:
        self.now = 0.0
        self.watch = watch

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        """Time goes by."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + 5.0)
            self.watch()


class FakeFleet:
    """Workers 0, 1, … that hold up to `depth` tasks each. `answer` decides what becomes of the one in front.

    With a seed, workers also die at random, answer late or twice, and come back under a new number.
    """

    def __init__(
        self,
        workers: int,
        answer: Answer,
        *,
        depth: int = 1,
        seed: int | None = None,
        profile: Callable[[int], Profile] = lambda worker: PROFILE,
    ) -> None:
        self.held: dict[int, list[Task]] = {}
        self.submitted: list[int] = []  # shards, in the order in which they were handed out
        self.waits = 0
        self.expected = workers
        self._answer, self._depth, self._profile = answer, depth, profile
        self._random = random.Random(seed) if seed is not None else None
        self._coming = workers
        self._next_worker = 0
        self._late: list[Event] = []

    def free(self) -> Sequence[int]:
        """See Fleet."""
        return sorted((w for w, held in self.held.items() if len(held) < self._depth), key=lambda w: len(self.held[w]))

    def submit(self, worker: int, task: Task) -> None:
        """See Fleet."""
        assert worker in self.free(), "handed to a worker that is not free"
        self.submitted.append(task.shard.index)
        self.held[worker].append(task)

    def wait(self, seconds: float) -> list[Event]:
        """See Fleet."""
        self.waits += 1
        assert self.waits < 10_000, "the coordinator does not come to an end"
        events: list[Event] = [self._join() for _ in range(self._coming)]
        self._coming = 0
        for worker in list(self.held):
            events += self._step(worker)
        if self._random is None:
            late, self._late = self._late, []
            return events + late
        self._random.shuffle(self._late)
        now = self._random.randrange(len(self._late) + 1)
        late, self._late = self._late[:now], self._late[now:]
        return events + late

    def kill(self, worker: int, why: str) -> None:
        """See Fleet."""
        self._late.append(self.die(worker, why))

    def refuse(self, worker: int) -> bool:
        """See Fleet."""
        del self.held[worker]
        return bool(self.held)

    def last(self) -> list[Done]:
        """See Fleet."""
        return []

    def close(self) -> None:
        """See Fleet."""

    def attempts(self) -> Counter[int]:
        """How often each shard was handed out."""
        return Counter(self.submitted)

    def die(self, worker: int, reason: str = "killed") -> Lost:
        """A worker dies with all it holds, and another comes in its place."""
        held = self.held.pop(worker)
        self._coming += 1
        return Lost(worker, held[0] if held else None, tuple(held[1:]), reason)

    def _join(self) -> Joined:
        worker, self._next_worker = self._next_worker, self._next_worker + 1
        self.held[worker] = []
        return Joined(worker, self._profile(worker))

    def _step(self, worker: int) -> list[Event]:
        chance = self._random.random() if self._random else 1.0
        held = self.held[worker]
        if chance < 0.05:
            # What it had finished is heard of after its death.
            late = self._answer(worker, held[0]) if held and chance < 0.025 else None
            if isinstance(late, Done) and isinstance(late.task, ScoreShard):
                self._late.append(late)
            return [self.die(worker)]
        if not held or chance < 0.3:
            return []
        event = self._answer(worker, held[0])
        if event is None:
            return []
        if isinstance(event, Lost):
            return [self.die(worker, event.reason)]
        assert isinstance(event, Done | Failed)
        event = replace(event, task=held.pop(0))  # the very one that was submitted
        if isinstance(event, Done) and isinstance(event.task, ScoreShard) and chance < 0.4:
            self._late.append(scored(report(event.task.shard.index, attempt=1000 + worker)))
        return [event]
