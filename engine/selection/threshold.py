"""How good a row must be to be among the best k: a radix search over the total order, 16 bits at a time.

Histograms of the rows' bits are counted part by part; sums of them are the same in any order and on any number of
workers. The first 16 bits of the value (as float32) leave a bin that holds about 1 % of k where scores are spread out.
Only where more rows than that are tied are the lower bits of the value looked at, and then the first bits of the key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from poolscore.engine.keys import IdSet
from poolscore.engine.selection.order import DIGIT, DIGITS, Threshold, digits_of
from poolscore.engine.selection.parts import Part, Reader
from poolscore.engine.selection.ranking import Ranking
from poolscore.engine.storage.filesystem import in_order

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
Counts = NDArray[np.int64]  # rows of each digit [65536]
GROUP_ROWS = 1 << 19  # of the parts that a task looks at
SURPLUS = 1 << 18  # rows beyond k that are collected rather than looked at once more; or an eighth of k
SAMPLE_PARTS, SAMPLE_SHARE = 16, 64  # parts of a sample at least, and one of so many


class Workers(Protocol):
    """Where tasks run. Tasks and results are small, and travel."""

    def map(self, call: Callable[[Reader, A, B], C], common: A, tasks: Iterable[B]) -> Iterator[C]:
        """What `call` gives for what all tasks have in common and each task, in the order of the tasks. A task is asked
        for only when its turn comes."""


class Threads:
    """Workers that are threads of this process; reading and numpy's loops run side by side."""

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._reader = Reader()

    def map(self, call: Callable[[Reader, A, B], C], common: A, tasks: Iterable[B]) -> Iterator[C]:
        """See Workers."""
        return in_order(lambda task: call(self._reader, common, task), tasks, self._at_once)


@dataclass(frozen=True)
class Question:
    """What is selected by."""

    score: str
    ranking: Ranking
    exclude: IdSet

    def tied_by_key(self, edge: float) -> bool:
        """Whether rows whose value is `edge` as float32 are in the order of their keys."""
        return self.ranking.exact or edge == -np.inf

    def may_hold(self, part: Part, edge: float) -> bool:
        """Whether a row of the part may have a value of at least `edge`, as float32."""
        return bool(np.float32(self.ranking.most(part.best)) >= np.float32(edge))


@dataclass(frozen=True)
class Count:
    """A task: the digits of these parts' rows whose digits before are `before`; only those of at least `floor`."""

    parts: Sequence[Part]
    before: tuple[int, ...]
    floor: int


def find_threshold(
    parts: Sequence[Part], question: Question, k: int, workers: Workers, surplus: int | None = None
) -> Threshold:
    """A threshold that at least k rows reach (all rows, if there are fewer), and few more.

    Args:
        parts: all that are selected from.
        question: its excluded ids count like others here: k must be larger by as many.
        k: rows, 1 or more.
        workers: where the parts are read; memory of each: GROUP_ROWS rows of 40 bytes.
        surplus: rows beyond k that are not looked at once more; default: SURPLUS, or an eighth of k.
    """
    surplus = max(SURPLUS, k // 8) if surplus is None else surplus
    if k >= sum(part.rows for part in parts):
        return Threshold()
    parts = best_first(parts, question)
    digits: tuple[int, ...] = ()
    wanted, floor = k, int(digits_of(0, np.array([edge_of_bests(parts, question, k)]), None)[0])
    for level in range(DIGITS):
        counts = np.zeros(1 << DIGIT, np.int64)
        for found in workers.map(count, question, _tasks(parts, digits, floor, counts, wanted)):
            counts += found
        digit = reached(counts, wanted)
        digits, floor = (*digits, digit), 0
        above = int(counts[digit + 1 :].sum())
        few = above + counts[digit] - wanted <= surplus
        if few or (level == 1 and not question.tied_by_key(Threshold.of(digits).edge)):
            break
        wanted -= above
    return Threshold.of(digits)


def guess_threshold(parts: Sequence[Part], question: Question, k: int, workers: Workers) -> Threshold | None:
    """A threshold that k rows and about a quarter more reach, as far as a sample of the parts tells; fewer or many more
    where its parts are unlike the others. None: there are too few parts to leave most of them out of a sample.

    Args:
        parts, question, k, workers: see `find_threshold`.
    """
    count = max(SAMPLE_PARTS, len(parts) // SAMPLE_SHARE)
    if 4 * count > len(parts):
        return None
    sample = [parts[i] for i in drawn(len(parts), count)]
    share = sum(part.rows for part in sample) / max(1, sum(part.rows for part in parts))
    wanted = max(1, round(1.25 * k * share))
    return find_threshold(sample, question, wanted, workers, surplus=wanted // 8)


def drawn(parts: int, count: int) -> list[int]:
    """Which parts are a sample."""
    places: list[int] = np.random.default_rng(0).permutation(parts)[:count].tolist()
    return places


def best_first(parts: Iterable[Part], question: Question) -> list[Part]:
    """The parts in the order of the best value that they may hold."""
    return sorted(parts, key=lambda part: -question.ranking.most(part.best))


def edge_of_bests(parts: Sequence[Part], question: Question, k: int) -> float:
    """A value that k rows reach, where that is known without reading: where values are scores, each part has a row as
    good as its best. -inf: nothing is known.

    Args:
        parts: best first.
        question: its excluded ids count like others: k must be larger by as many.
    """
    known = question.ranking.exact and 0 < k <= len(parts) and np.isfinite(parts[0].best)
    return parts[k - 1].best if known else -np.inf


def count(reader: Reader, question: Question, task: Count) -> Counts:
    """Rows of each digit."""
    level = len(task.before)
    edge = Threshold.of((*task.before, task.floor)).edge
    found = [np.empty(0, np.intp)]
    for part in task.parts:
        if not question.may_hold(part, edge):
            continue
        with reader.opened(part) as file:
            keys = file.numbers("key") if question.ranking.needs_keys or level == DIGITS - 1 else None
            places, values = question.ranking.at_least(file.numbers(question.score), keys, edge)
            for place, digit in enumerate(task.before):
                same = digits_of(place, values, None) == digit
                places, values = places[same], values[same]
            found.append(digits_of(level, values, None if keys is None else keys[places]))
    return np.bincount(np.concatenate(found), minlength=1 << DIGIT)


def reached(counts: Counts, wanted: int) -> int:
    """The largest digit that at least `wanted` rows have or exceed; 0 if there are fewer rows."""
    from_above = counts[::-1].cumsum()
    return max(len(counts) - 1 - int(np.searchsorted(from_above, wanted)), 0)


def grouped(parts: Iterable[Part]) -> Iterator[list[Part]]:
    """Parts for one task each: at least one, and about GROUP_ROWS rows."""
    group: list[Part] = []
    rows = 0
    for part in parts:
        group.append(part)
        rows += part.rows
        if rows >= GROUP_ROWS:
            yield group
            group, rows = [], 0
    if group:
        yield group


def _tasks(parts: Sequence[Part], before: tuple[int, ...], floor: int, counts: Counts, wanted: int) -> Iterator[Count]:
    """Tasks, of which later ones know what the counts of earlier ones rule out."""
    for group in grouped(parts):
        floor = max(floor, reached(counts, wanted))
        yield Count(group, before, floor)
