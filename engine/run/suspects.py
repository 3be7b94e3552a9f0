"""Workers that live but fail at what others can do: a broken GPU, a pool that is not mounted on one machine.

Such a worker is always free, so it would soon have had every shard. Who fails IN_A_ROW times on different shards is
given nothing more while there are others, until these have had the same shards: where they fail as well the shards are
to blame, where they do not the worker is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Set

IN_A_ROW = 3  # shards that a worker failed on, one after another, and nobody else has
REFUTED = 2  # of the shards that a suspect failed on, scored by others: it is sick


class Suspects:
    """Who failed on what. Workers and shards by their numbers."""

    def __init__(self) -> None:
        self.blamed: set[int] = set()  # workers that ever failed
        self._in_a_row: defaultdict[int, list[int]] = defaultdict(list)  # worker → shards
        self._refuted: defaultdict[int, set[int]] = defaultdict(set)  # worker → shards that others scored
        self._failed_on: defaultdict[int, set[int]] = defaultdict(set)  # shard → workers

    def failed(self, worker: int, shard: int) -> None:
        """A worker failed on a shard, or on a part of it."""
        self.blamed.add(worker)
        self._failed_on[shard].add(worker)
        if len(self._failed_on[shard]) > 1:  # as others did
            for shards in self._in_a_row.values():
                if shard in shards:
                    shards.remove(shard)
        elif shard not in self._in_a_row[worker]:
            self._in_a_row[worker].append(shard)

    def did(self, worker: int, shard: int, whole: bool) -> None:
        """A worker did what it was given; `whole`: it scored a shard."""
        self._in_a_row.pop(worker, None)
        if whole:
            for other in self._failed_on.pop(shard, set()) - {worker}:
                self._refuted[other].add(shard)

    def gone(self, worker: int) -> None:
        """A worker is no more."""
        self._in_a_row.pop(worker, None)
        self._refuted.pop(worker, None)
        for workers in self._failed_on.values():
            workers.discard(worker)

    def is_suspect(self, worker: int) -> bool:
        """Whether a worker is to be given nothing while there are others."""
        return len(self._in_a_row.get(worker, ())) >= IN_A_ROW

    def shards_of(self, worker: int) -> list[int]:
        """Shards that a worker failed on one after another."""
        return list(self._in_a_row.get(worker, ()))

    def sick(self) -> dict[int, set[int]]:
        """Suspects that are to be replaced, and the shards that failed there and nowhere else."""
        return {worker: shards for worker, shards in self._refuted.items() if self._is_sick(worker)}

    def may_have(self, worker: int, shard: int, workers: Set[int]) -> bool:
        """Whether a shard, or a part of it, may go to a worker, given all that live: to one that did not fail on it,
        while there is one."""
        failed = self._failed_on.get(shard, set())
        return worker not in failed or not any(w not in failed and not self.is_suspect(w) for w in workers)

    def may_work(self, worker: int, workers: Set[int]) -> bool:
        """Whether a worker is given anything at all, given all that live."""
        return not self.is_suspect(worker) or all(map(self.is_suspect, workers))

    def _is_sick(self, worker: int) -> bool:
        return self.is_suspect(worker) and len(self._refuted[worker]) >= REFUTED
