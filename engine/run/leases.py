"""How long a shard may stay with a worker: when it is handed out a second time, and when its worker is given up.

Pure: it is told what happens and asked what is late. Ray notices neither a hung CUDA call or decoder nor a process that
is stopped; time does.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter, deque
from collections.abc import Callable, Set
from dataclasses import dataclass, field

from poolscore.engine.run.task import ScoreShard, Task

RECENT = 101  # finished shards from which the usual pace is taken
SLOW, SLOW_FLOOR = 4.0, 30.0  # times the usual, but at least so many seconds: handed out a second time
END, END_FLOOR = 1.5, 5.0  # the same where a worker has nothing else to do
END_UNKNOWN = 60.0  # seconds, where no shard has finished that could tell what is usual
HUNG, HUNG_FLOOR = 20.0, 600.0  # the same: the worker is killed
HUNG_UNKNOWN = 3600.0
WARM_UP = 60.0  # seconds more for the first shard of a worker: caches are cold, libraries choose their algorithms
GAP = 10.0  # seconds without a call: the driver itself was stopped, or waited for storage; nobody's time runs


@dataclass(eq=False)
class Lease:
    """A task that a worker has."""

    task: Task
    is_first: bool  # that its worker was given
    since: float | None = None  # when it came to the front of its worker's line; None: another is before it


@dataclass
class _Line:
    """What one worker has, the front first."""

    leases: list[Lease] = field(default_factory=list)
    pace: float | None = None  # seconds a row, of the shard that this worker finished last
    leaving: bool = False
    given_up: bool = False
    fresh: bool = True


class Leases:
    """Who has which shard, and since when. Two workers may have the same one.

    Args:
        shard_timeout: seconds after which a worker is given up; None: many times what is usual.
        clock: seconds that never run backwards.
    """

    def __init__(self, shard_timeout: float | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._shard_timeout = shard_timeout
        self._clock = clock
        self._called, self._lost_time = clock(), 0.0
        self._lines: dict[int, _Line] = {}
        self._places: dict[int, tuple[int, Lease]] = {}  # identity of a task → its worker and lease
        self._holders: Counter[int] = Counter()  # of each shard
        self._paces: deque[float] = deque(maxlen=RECENT)
        self._usual: float | None = None  # seconds a row
        self._kills: Counter[int] = Counter()  # of each shard

    def give(self, worker: int, task: Task) -> None:
        """A task was handed to a worker. Copies are told apart by their identity."""
        line = self._lines.setdefault(worker, _Line())
        lease = Lease(task, line.fresh)
        line.leases.append(lease)
        line.fresh = False
        self._places[id(task)] = worker, lease
        self._holders[task.shard.index] += 1
        self._start(line)

    def take_back(self, task: Task, finished: bool) -> int | None:
        """A worker is done with a task. Returns which; None, and nothing happens, if it was given up before."""
        if id(task) not in self._places:
            return None
        worker, lease = self._places[id(task)]
        line = self._lines[worker]
        if finished and lease.since is not None:
            line.pace = (self._now() - lease.since) / max(1, task.shard.rows)
            self._paces.append(line.pace)
            self._usual = statistics.median(self._paces)
        self._drop(line, lease)
        return worker

    def lose(self, worker: int) -> None:
        """A worker is gone, with what it had."""
        line = self._lines.pop(worker, _Line())
        while line.leases:
            self._drop(line, line.leases[-1])

    def leave(self, worker: int) -> None:
        """A worker is about to go: what waits in its line is wanted elsewhere now."""
        self._lines.setdefault(worker, _Line()).leaving = True

    def holders(self, shard: int) -> int:
        """How many workers have a shard."""
        return self._holders[shard]

    def has(self, worker: int, shard: int) -> bool:
        """Whether this worker has this shard."""
        return any(lease.task.shard.index == shard for lease in self._lines.get(worker, _Line()).leases)

    def is_idle(self, worker: int) -> bool:
        """Whether a worker has nothing to do."""
        return not self._lines.get(worker, _Line()).leases

    @property
    def shards(self) -> Set[int]:
        """All shards that somebody has."""
        return self._holders.keys()

    @property
    def count(self) -> int:
        """Tasks that workers have, copies counted."""
        return len(self._places)

    def slow(self) -> list[Task]:
        """Tasks that are wanted elsewhere whatever else there is to do: they take far longer than their kind, or wait
        at a worker that is about to go. Only such as one worker alone has."""
        return self._single(lambda line, lease: self._elapsed(lease) > self._limit(line, lease, SLOW, SLOW_FLOOR))

    def unfinished(self) -> list[Task]:
        """Tasks worth doing a second time by workers that would have nothing else to do, the most urgent first: what
        waits in a line, then what runs longer than usual. Only such as one worker alone has."""

        def is_late(line: _Line, lease: Lease) -> bool:
            limit = self._limit(line, lease, END, END_FLOOR, END_UNKNOWN)
            return lease.since is None or self._elapsed(lease) > limit

        return self._single(is_late)

    def hung(self) -> list[tuple[int, str]]:
        """Workers to be killed and why; each is named once."""
        found = []
        for worker, line in self._lines.items():
            for lease in line.leases[:1]:
                limit, elapsed = self._hard_limit(line, lease), self._elapsed(lease)
                if elapsed > limit and not line.given_up:
                    line.given_up = True
                    self._kills[lease.task.shard.index] += isinstance(lease.task, ScoreShard)
                    found.append((worker, f"it was at shard {lease.task.shard.index} for more than {limit:.0f} s"))
        return found

    def _single(self, wanted: Callable[[_Line, Lease], bool]) -> list[Task]:
        found = [
            (lease.since is not None, -self._elapsed(lease), lease.task.shard.index, lease.task)
            for line in self._lines.values()
            for lease in line.leases
            if self._holders[lease.task.shard.index] == 1
            and (wanted(line, lease) or (line.leaving and lease.since is None))
        ]
        return [task for *_, task in sorted(found, key=lambda one: one[:3])]

    def _hard_limit(self, line: _Line, lease: Lease) -> float:
        if self._shard_timeout is not None:
            return self._shard_timeout
        # Twice as long after each kill: a shard that is only slow, where nothing told so, is done in the end. A part of
        # one, which is tried because it may hang for ever, takes no longer than the whole.
        kills = self._kills[lease.task.shard.index] if isinstance(lease.task, ScoreShard) else 0
        return self._limit(line, lease, HUNG, HUNG_FLOOR, HUNG_UNKNOWN) * 2.0**kills

    def _limit(self, line: _Line, lease: Lease, times: float, floor: float, unknown: float = float("inf")) -> float:
        """Seconds. A worker that has always been slower than others is not late by their measure."""
        if self._usual is None:
            return unknown
        usual = max(self._usual, line.pace or 0.0) * lease.task.shard.rows
        return max(floor, times * usual) + (WARM_UP if lease.is_first else 0.0)

    def _elapsed(self, lease: Lease) -> float:
        return 0.0 if lease.since is None else self._now() - lease.since

    def _drop(self, line: _Line, lease: Lease) -> None:
        shard = lease.task.shard.index
        line.leases.remove(lease)
        del self._places[id(lease.task)]
        self._holders[shard] -= 1
        if not self._holders[shard]:
            del self._holders[shard]
        self._start(line)

    def _start(self, line: _Line) -> None:
        if line.leases and line.leases[0].since is None:
            line.leases[0].since = self._now()

    def _now(self) -> float:
        now = self._clock()
        if now - self._called > GAP:
            self._lost_time += now - self._called
        self._called = now
        return now - self._lost_time
