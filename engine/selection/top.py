"""The best k rows of the committed scores, exactly, at any k: step 7 of the design.

For few rows (FEW) the best so far are at hand, and parts are read best first. For more, a sample of the parts tells
about how good the best k are, and the rows that reach that are collected in one look at the scores. Where the sample
was unlike the other parts, and too few or far too many rows reach it, the threshold is found by counting bits
(`threshold.py`), which is another look, and rows are collected by that. Parts whose best score cannot win are not
opened, and keys are read only where there is a row to collect. Collected rows go into sorted runs (`runs.py`). Memory:
GROUP_ROWS rows for each worker, RUN_ROWS rows in the driver, 2 kB for each part; none of these grows with k or the
number of rows.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from poolscore.engine.keys import IdSet, id_text
from poolscore.engine.selection.order import ALL_KEYS, DIGIT, ROW, Rows, Threshold, digits_of
from poolscore.engine.selection.parts import OpenPart, Part, Reader
from poolscore.engine.selection.ranking import softranks
from poolscore.engine.selection.runs import FEW, Held, SortedRuns
from poolscore.engine.selection.several import Newest
from poolscore.engine.selection.threshold import (
    SURPLUS,
    Question,
    Workers,
    best_first,
    edge_of_bests,
    find_threshold,
    grouped,
    guess_threshold,
    reached,
)

MOST = 2  # times k: where more rows reach a threshold that was guessed, it was guessed badly


@dataclass(frozen=True)
class Collect:
    """A task: the rows of these parts that reach the threshold and are not excluded."""

    parts: Sequence[Part]
    threshold: Threshold
    k: int  # no more than the best k are wanted
    below: Threshold | None = None  # rows that reach this are not wanted


@dataclass(frozen=True)
class Scored:
    """What is selected from, and where it is read."""

    parts: Sequence[Part]
    ages: Sequence[int]  # of the runs, see `several.ages_of`
    workers: Workers

    @cached_property
    def rows(self) -> int:
        """Scored rows of all runs."""
        return sum(part.rows for part in self.parts)

    @cached_property
    def run_of_part(self) -> NDArray[np.intp]:
        """The run of each part."""
        return np.array([part.run for part in self.parts], np.intp)


def fill(best: SortedRuns, scored: Scored, question: Question, k: int) -> int:
    """Put the best k rows, and perhaps some more, into sorted runs.

    Returns:
        How many of the best k there are: fewer than k only where there are no more rows.
    """
    if len(scored.ages) == 1 or not k:
        return min(k, sum(_put(best, rows) for rows in _collected(scored, question, k, best)))
    looked_at = k
    while True:
        looked_at = min(looked_at * len(scored.ages), scored.rows)  # each id may be in every run
        newest, kept = Newest(scored.ages), 0
        with SortedRuns(looked_at) as found:
            for rows in _collected(scored, question, looked_at, found):
                newest.see(rows, scored.run_of_part)
                found.add(rows)
            newest.look(scored.parts, scored.workers)
            best.clear()
            for rows in newest.of(found.merged(), scored.run_of_part):
                kept += _put(best, rows)
        if kept >= k or looked_at == scored.rows:
            return min(kept, k)


def fill_by_rank(best: SortedRuns, scored: Scored, question: Question, k: int, beta: float, seed: int) -> int:
    """The same for `softrank`, whose values are of the rank. All rows are sorted: each takes 32 bytes of local disk."""
    with SortedRuns(scored.rows) as ranked:
        count = fill(ranked, scored, question, scored.rows)
        first = 1
        for rows in ranked.merged():
            noisy = rows.copy()
            noisy["value"] = softranks(rows["key"], first, beta, seed)
            first += len(rows)
            best.add(noisy)
    return min(count, k)


def _collected(scored: Scored, question: Question, k: int, sink: SortedRuns) -> Iterator[Rows]:
    """At least the best k rows, which are to be put into `sink` as they come."""
    if not k:
        return
    enough = k + len(question.exclude) * len(scored.ages)
    if k > FEW:
        yield from _many(scored, question, k, enough)
        return
    parts = best_first(scored.parts, question)
    edge = edge_of_bests(parts, question, enough)
    tasks = (Collect(group, _reached_by(sink.last, question, Threshold(edge)), k) for group in grouped(parts))
    yield from scored.workers.map(collect, question, tasks)


def _many(scored: Scored, question: Question, k: int, enough: int) -> Iterator[Rows]:
    """The same for more than FEW rows."""
    guess = guess_threshold(scored.parts, question, enough, scored.workers)
    groups = list(grouped(best_first(scored.parts, question)))
    below = None
    if guess is not None:
        found = done = 0
        with closing(_reaching(scored, question, k, groups, guess)) as blocks:
            for rows in blocks:
                found, done = found + len(rows), done + 1
                yield rows
                if found > MOST * k + SURPLUS:
                    break
        if done < len(groups):  # it was too low
            groups = groups[done:]
        elif found >= k or guess == Threshold():
            return
        else:  # too high
            below = guess
    threshold = find_threshold(scored.parts, question, enough, scored.workers)
    yield from _reaching(scored, question, k, groups, threshold, below)


def _reaching(
    scored: Scored,
    question: Question,
    k: int,
    groups: Sequence[Sequence[Part]],
    threshold: Threshold,
    below: Threshold | None = None,
) -> Generator[Rows, None, None]:
    """The rows of each group that reach a threshold, which rises once k rows of earlier groups reach a higher one."""
    counts, found, floor = np.zeros(1 << DIGIT, np.int64), 0, threshold

    def tasks() -> Iterator[Collect]:
        for group in groups:
            yield Collect(group, floor, k, below)

    for rows in scored.workers.map(collect, question, tasks()):
        counts += np.bincount(digits_of(0, rows["value"], None), minlength=len(counts))
        found += len(rows)
        if found >= k:
            risen = Threshold.of((reached(counts, k),))
            floor = risen if risen.edge > threshold.edge else threshold
        yield rows


def _reached_by(last: np.void | None, question: Question, otherwise: Threshold) -> Threshold:
    """What a row must reach to come before `last`, or be it."""
    if last is None:
        return otherwise
    edge = float(np.float32(last["value"]))
    return Threshold(edge, int(last["key"]) if question.tied_by_key(edge) else ALL_KEYS)


def _put(into: SortedRuns, rows: Rows) -> int:
    into.add(rows)
    return len(rows)


def collect(reader: Reader, question: Question, task: Collect) -> Rows:
    """The rows of some parts that reach the threshold and are not excluded; of FEW or less, the best k."""
    found = Held(task.k)
    for part in task.parts:
        threshold = _reached_by(found.last, question, task.threshold)
        if question.may_hold(part, threshold.edge):
            with reader.opened(part) as file:
                found.add(_rows_of(part, file, question, threshold, task.k + len(question.exclude), task.below))
    return found.sorted() if task.k <= FEW else found.rows()


def _rows_of(
    part: Part, file: OpenPart, question: Question, threshold: Threshold, enough: int, below: Threshold | None
) -> Rows:
    keys = file.numbers("key") if question.ranking.needs_keys else None
    places, values = question.ranking.at_least(file.numbers(question.score), keys, threshold.edge)
    if not len(places):
        return np.empty(0, ROW)
    if enough < len(values):  # before more is read of them
        best = values >= np.partition(values, len(values) - enough)[len(values) - enough]
        places, values = places[best], values[best]
    rows = np.empty(len(places), ROW)
    rows["value"], rows["part"], rows["place"] = values, part.number, places
    rows["key"] = file.keys(places) if keys is None else keys[places]
    rows["row_id"] = file.row_ids(places)
    keep = threshold.reached(rows) & ~_excluded(file, places, rows["key"], question.exclude)
    if below is not None:
        keep &= ~below.reached(rows)
    kept: Rows = rows[keep]
    return kept


def count_excluded(scored: Scored, exclude: IdSet) -> int:
    """How many of the scored rows are to be left out. Reads all keys, 8 bytes a row."""
    return sum(scored.workers.map(_count_excluded, exclude, grouped(scored.parts)))


def _count_excluded(reader: Reader, exclude: IdSet, parts: Sequence[Part]) -> int:
    found = 0
    for part in parts:
        with reader.opened(part) as file:
            keys = file.numbers("key")
            found += int(_excluded(file, np.arange(len(keys)), keys, exclude).sum())
    return found


def _excluded(file: OpenPart, places: NDArray[np.intp], keys: NDArray[np.uint64], exclude: IdSet) -> NDArray[np.bool_]:
    """Which rows are to be left out. Ids are read only where a key says that they may be."""
    found = exclude.may_contain(keys)
    if found.any():
        ids = file.columns(["id"])["id"].combine_chunks().take(places[found])
        found[found] = exclude.contains(id_text(ids, "id"), keys[found])
    return found
