"""The shards of a run that wait to be handed out, and which of them a worker is given."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Collection, Sequence, Set
from copy import copy

from poolscore.engine.pool.plan import Shard
from poolscore.engine.run.bisect import Bisections
from poolscore.engine.run.leases import Leases
from poolscore.engine.run.suspects import Suspects
from poolscore.engine.run.task import ScoreShard, Task


class ShardQueue:
    """What is to be done next. Trials of shards that are bisected come first."""

    def __init__(self, leases: Leases, bisections: Bisections, suspects: Suspects) -> None:
        self._leases, self._bisections, self._suspects = leases, bisections, suspects
        self._waiting: deque[Task] = deque()
        self.finished: set[int] = set()  # shards

    def fill(self, shards: Sequence[Shard], seed: int) -> None:
        """Add them, in an order shuffled by the seed."""
        order = list(shards)
        random.Random(seed).shuffle(order)
        self._waiting.extend(ScoreShard(shard) for shard in order)

    def clear(self) -> None:
        """Hand out nothing more."""
        self._waiting.clear()
        self._bisections.stop()

    @property
    def waiting(self) -> bool:
        """Whether a task waits to be handed out. A shard whose report came from a worker given up does not."""
        while self._waiting and self._waiting[0].shard.index in self.finished:
            self._waiting.popleft()
        return bool(self._waiting) or self._bisections.waiting

    @property
    def unfinished(self) -> Set[int]:
        """Shards that somebody has, and nobody has finished."""
        return self._leases.shards - self.finished

    def next_for(self, worker: int, workers: Set[int]) -> Task | None:
        """What a worker, of these that live, is given next: nothing of a shard that it failed on, where others may have
        that."""

        def may_have(shard: int) -> bool:
            return self._suspects.may_have(worker, shard, workers)

        if (trial := self._bisections.next(bool(self._waiting), may_have)) is not None:
            return trial
        for i, task in enumerate(self._waiting):
            if may_have(task.shard.index):
                del self._waiting[i]
                return task
        return None

    def copy_for(self, worker: int, wanted: Sequence[Task]) -> Task | None:
        """A shard that another worker has, and this one is to score as well; the first report counts."""
        for task in wanted:
            shard = task.shard.index
            alone = self._leases.holders(shard) == 1 and not self._leases.has(worker, shard)
            if alone and shard not in self.finished and isinstance(task, ScoreShard):
                return copy(task)
        return None

    def put_back(self, task: Task) -> None:
        """A task that came to nothing is to be handed out again."""
        if not isinstance(task, ScoreShard):
            self._bisections.put_back(task)
        elif self._is_wanted(task.shard):
            self.put_first(task.shard)

    def put_first(self, shard: Shard) -> None:
        """A shard is to be scored before all others, without its poison."""
        self._waiting.appendleft(self._bisections.scoring(shard))

    def put_last(self, shard: Shard) -> None:
        """A shard is to be scored again after the others, unless somebody has it or its poison is looked for."""
        if self._is_wanted(shard):
            self._waiting.append(self._bisections.scoring(shard))

    def prefer(self, shards: Collection[int]) -> None:
        """These are first in line."""
        self._waiting = deque(sorted(self._waiting, key=lambda waiting: waiting.shard.index not in shards))

    def _is_wanted(self, shard: Shard) -> bool:
        """Whether a shard must be handed out: it is not done, not bisected, and no other worker has it."""
        known = shard.index in self.finished or shard.index in self._bisections
        return not known and not self._leases.holders(shard.index)
