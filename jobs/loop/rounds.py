"""One round: add, train, score, select, label. Each stage is recorded once it is done, and is not done again then."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import count
from math import fsum
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from poolscore.engine.config import Config
from poolscore.engine.finish import RunResult
from poolscore.engine.run.directory import RunDirectory
from poolscore.jobs.loop import stop
from poolscore.jobs.loop.arms import RANDOM, config_of_round
from poolscore.jobs.loop.first import FirstLabels
from poolscore.jobs.loop.folders import DONE, SCORED, TRAINED, Round
from poolscore.jobs.loop.labelled import begin_round, selection_of
from poolscore.jobs.loop.training import train_round
from poolscore.jobs.loop.ways import Answered, Waiting, label_batch
from poolscore.jobs.tasks.question import Question


@dataclass(frozen=True)
class Loop:
    """What all rounds have in common."""

    config: Config
    root: Path
    question: Question
    first: Mapping[int, FirstLabels]  # by seed
    score: Callable[[Config], RunResult]  # the main job, with its report
    tell: Callable[[str], None]  # a line about what is begun or done
    trained: Callable[[], object]  # called after each training: the curves have a point more


@dataclass(frozen=True)
class Ended:
    """A curve to which nothing is added for now."""

    why: str
    waiting: Waiting | None = None


def run_curve(loop: Loop, arm: str, seed: int) -> Ended:
    """The rounds of a curve, from the first that is not done.

    Raises:
        ConfigError: something of the user's is wrong.
        StoppedError, InterruptedRun: the same call goes on.
    """
    for number in count():
        at = Round(loop.root, arm, seed, number)
        done = at.read(DONE)
        if done is not None and done["stopped"] is None:
            continue
        if (ended := run_round(loop, at)) is not None:
            return ended
    raise AssertionError


def run_round(loop: Loop, at: Round) -> Ended | None:
    """What is left of a round; None: another follows."""
    assert loop.config.loop is not None
    rules = loop.config.loop.stop
    begin_round(at, loop.first[at.seed], loop.question)
    trained = _train(loop, at)
    labels, left = trained["labels"], _rows_left(loop, at)
    scored, batch = None, None
    why = stop.after_training(rules, at.number, labels, trained["metrics"])
    if why is None and left == 0:
        why = "the pool has no rows left"
    if why is None:
        k = min(n for n in (loop.config.select.k, rules.budget and rules.budget - labels, left) if n is not None)
        scored = at.read(SCORED) or _score(loop, at, k)
        opening = replace(at, number=0).read(SCORED) or scored
        why = stop.after_scoring(rules, scored["score"], scored["mass"], opening["mass"])
    if why is None:
        answered = label_batch(loop.config, loop.question, at)
        if isinstance(answered, Waiting):
            return Ended(answered.lines[0], answered)
        batch = answered
        loop.tell(f"{at.name}: {_in_words(batch)}")
    at.write(DONE, _record(at, trained, scored, batch, why))
    return None if why is None else Ended(why)


def _train(loop: Loop, at: Round) -> dict[str, Any]:
    if (done := at.read(TRAINED)) is not None:
        return done
    loop.tell(f"{at.name}: training")
    trained = train_round(loop.config, at)
    loop.trained()
    told = ", ".join(f"{name} {value:.4g}" for name, value in trained["metrics"].items()) or "trained"
    loop.tell(f"{at.name}: {told} with {trained['labels']:,} labels ({trained['seconds']:.0f} s)")
    return trained


def _score(loop: Loop, at: Round, k: int) -> dict[str, Any]:
    """The main job. A run that was stopped goes on, by its own directory."""
    loop.tell(f"{at.name}: scoring the pool")
    config = config_of_round(loop.config, at, k, bool(loop.first[at.seed].inputs))
    began = time.monotonic()
    result = loop.score(config)
    mass = None if at.arm == RANDOM else _mass(RunDirectory(config.run.dir), config.selected_by)
    return at.write(
        SCORED,
        {
            "score": config.selected_by,
            "mass": mass,
            "rows": result.totals.scored,
            "batch": len(selection_of(at)),
            "whole": not (result.set_aside or result.shards_left),
            "exit_code": result.exit_code,
            "seconds": round(time.monotonic() - began, 3),
        },
    )


def _mass(run: RunDirectory, score: str) -> float:
    """The sum of a score over the pool, in the order of shards."""
    reports = run.reports()
    parts = (pq.read_table(run.storage.path(reports[shard].scores), columns=[score]) for shard in sorted(reports))
    return fsum(float(pc.sum(part[score].cast("float64")).as_py() or 0.0) for part in parts)


def _rows_left(loop: Loop, at: Round) -> int | None:
    """Rows that the pool has for a batch, as the round before has left them; None: nobody knows, for it was not scored
    as a whole, or a sample is drawn anew in each round."""
    scored = at.earlier()[-1].read(SCORED) if at.number and loop.config.pool.sample is None else None
    return scored["rows"] - scored["batch"] if scored is not None and scored["whole"] else None


def _in_words(answered: Answered) -> str:
    others = {"skipped": answered.skipped, "disputed": answered.disputed, "pending": answered.pending}
    more = "".join(f", {number:,} {what}" for what, number in others.items() if number)
    return f"{answered.labelled:,} of {answered.rows:,} rows labelled{more}"


def _record(
    at: Round, trained: dict[str, Any], scored: dict[str, Any] | None, batch: Answered | None, why: str | None
) -> dict[str, Any]:
    return {
        "arm": at.arm,
        "seed": at.seed,
        "round": at.number,
        "own_seed": at.own_seed,
        "trained": trained,
        "scored": scored,
        "batch": asdict(batch) if batch is not None else None,
        "stopped": why,
    }
