"""Find the rows that a worker does not survive, or that the model or a decoder raises on: poison rows.

A shard that has failed so often is cut into ranges, and each is scored with nothing written. A range that fails is cut
again, down to single rows. A row is poison once it has failed by itself as often as a shard may; so a worker that dies
by chance costs trials, never a row.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from poolscore.engine.pool.plan import Shard
from poolscore.engine.run.task import ScoreShard, Task, TryReading, TryRows

if TYPE_CHECKING:
    from poolscore.engine.worker.feed import Blank

PARTS = 16  # of a range that fails. Trials that live cost together what scoring the range costs; deaths are dearer, and
# a row among 65,536 is found with four of them, and those of the row itself
MOST_ROWS = 32  # poison rows in a shard; with more of them it is set aside
MOST_DEATHS = 100  # of workers, for one bisection
READING = range(0)  # the first trial: the shard is read, and none of its rows decoded


class Bisection:
    """The ranges of a shard's rows that are still to be tried, and the poison found so far.

    Args:
        rows: of the shard.
        attempts: that a row, and reading, is given.
        most: poison rows; with more of them the bisection is given up.
    """

    def __init__(self, rows: int, attempts: int, most: int = MOST_ROWS) -> None:
        self.poison: dict[int, tuple[str, str]] = {}  # place in the shard → stage and reason
        self.given_up: str | None = None  # why
        self.in_flight = 0
        self.waiting = deque([READING])
        self._rows, self._attempts, self._most = rows, attempts, most
        self._failures: Counter[range] = Counter()
        self._parents: dict[range, range] = {}
        self._bad: set[range] = set()  # failed, and nothing within them has: each holds poison, if it was no chance
        self._deaths = 0

    @property
    def done(self) -> bool:
        """Whether there is nothing to wait for."""
        return self.given_up is not None or not (self.waiting or self.in_flight)

    def next(self) -> range:
        """A range to try; empty: READING."""
        self.in_flight += 1
        return self.waiting.popleft()

    def put_back(self, tried: range) -> None:
        """A trial that came to nothing is to be made again."""
        self.in_flight -= 1
        self.waiting.appendleft(tried)

    def lived(self, tried: range) -> None:
        """A trial that went well."""
        self.in_flight -= 1
        self._bad.discard(tried)
        if tried == READING:
            self.waiting.extend(_cut(range(self._rows)))

    def failed(self, tried: range, reason: str, died: bool) -> None:
        """A trial that did not; `died`: with its worker."""
        self.in_flight -= 1
        self._failures[tried] += 1
        self._deaths += died
        self._bad.discard(self._parents.get(tried, tried))
        self._bad.add(tried)
        if len(tried) > 1:
            parts = _cut(tried)
            self._parents |= dict.fromkeys(parts, tried)
            self.waiting.extend(parts)
        elif self._failures[tried] < self._attempts:
            self.waiting.append(tried)
        elif tried == READING:
            self._give_up("the same happens where it is only read, and no row of it decoded")
        else:
            self.poison[tried.start] = ("worker" if died else "score", reason)
        if len(self._bad) > self._most:
            self._give_up(f"more than {MOST_ROWS} of its rows do that")
        elif self._deaths > MOST_DEATHS:
            self._give_up(f"looking for the rows that do that cost {self._deaths} workers")

    def _give_up(self, why: str) -> None:
        self.given_up = self.given_up or why
        self.waiting.clear()


def _cut(rows: range) -> list[range]:
    """Up to PARTS ranges of about the same length, none of them empty."""
    count = min(PARTS, len(rows))
    ends = [rows.start + len(rows) * i // count for i in range(count + 1)]
    return [range(start, stop) for start, stop in pairwise(ends)]


@dataclass(frozen=True)
class Verdict:
    """What a bisection came to."""

    shard: Shard
    why_not: str | None  # None: it is to be scored again, without the poison that was found


class Bisections:
    """The shards that are bisected, and the poison of those that were. Trials come one after another where other shards
    wait to be scored, and side by side where none does.

    The poison is not journalled: with a shard that is scored it is in errors/, and one that is not is bisected anew by
    whoever resumes the run.
    """

    def __init__(self, attempts: int) -> None:
        self._attempts = attempts
        self._open: dict[int, tuple[Shard, Bisection]] = {}
        self._poison: dict[int, Blank] = {}  # by shard and row_id
        self._in_vain: set[int] = set()  # shards in which no poison was found, though they had failed

    def __contains__(self, shard: object) -> bool:
        return shard in self._open

    def __len__(self) -> int:
        return len(self._open)

    @property
    def waiting(self) -> bool:
        """Whether there is a trial to hand out."""
        return any(bisection.waiting for _, bisection in self._open.values())

    def begin(self, shard: Shard) -> None:
        """Look for the poison of a shard."""
        most = MOST_ROWS - len(self._poison.get(shard.index, ()))
        self._open[shard.index] = shard, Bisection(shard.rows, self._attempts, most)

    def drop(self, shard: int) -> None:
        """The shard is scored, or set aside."""
        self._open.pop(shard, None)

    def stop(self) -> None:
        """Try nothing more."""
        self._open.clear()

    def scoring(self, shard: Shard) -> ScoreShard:
        """The task to score a shard without its poison."""
        return ScoreShard(shard, self._poison.get(shard.index, {}))

    def next(self, beside_others: bool, may_have: Callable[[int], bool] = lambda shard: True) -> Task | None:
        """A trial to hand out, or None.

        Args:
            beside_others: shards wait to be scored; then there is one trial at a time.
            may_have: whether a trial of this shard may go to whoever asks.
        """
        if beside_others and any(bisection.in_flight for _, bisection in self._open.values()):
            return None
        for shard, bisection in self._open.values():
            if bisection.waiting and may_have(shard.index):
                rows = bisection.next()
                if rows == READING:
                    return TryReading(shard)
                return TryRows(shard, rows.start, rows.stop, self._poison.get(shard.index, {}))
        return None

    def put_back(self, task: Task) -> None:
        """A trial that came to nothing."""
        if task.shard.index in self._open:
            self._open[task.shard.index][1].put_back(_rows(task))

    def lived(self, task: Task) -> Verdict | None:
        """A trial that went well; the verdict, if it was the last."""
        if task.shard.index not in self._open:
            return None
        self._open[task.shard.index][1].lived(_rows(task))
        return self._verdict(task.shard)

    def failed(self, task: Task, reason: str, died: bool) -> Verdict | None:
        """A trial that did not; the verdict, if it was the last."""
        if task.shard.index not in self._open:
            return None
        self._open[task.shard.index][1].failed(_rows(task), reason, died)
        return self._verdict(task.shard)

    def _verdict(self, shard: Shard) -> Verdict | None:
        _, bisection = self._open[shard.index]
        if not bisection.done:
            return None
        self.drop(shard.index)
        if bisection.given_up is not None:
            return Verdict(shard, bisection.given_up)
        if not bisection.poison and shard.index in self._in_vain:
            return Verdict(shard, "no row of it does that by itself")
        if not bisection.poison:
            self._in_vain.add(shard.index)
        found = {shard.part(place, place + 1).row_id: why for place, why in bisection.poison.items()}
        self._poison[shard.index] = {**self._poison.get(shard.index, {}), **found}
        return Verdict(shard, None)


def _rows(task: Task) -> range:
    return range(task.start, task.stop) if isinstance(task, TryRows) else READING
