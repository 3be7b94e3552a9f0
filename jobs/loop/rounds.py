"""One round: add, train, score, select, label. Each stage is recorded once it is done, and is not done again then."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import count
from math import fsum
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from poolscore.engine.config import Config, StopConfig
from poolscore.engine.errors import TooFewRows
from poolscore.engine.finish import RunResult
from poolscore.engine.identity import CODE
from poolscore.engine.run.directory import RunDirectory
from poolscore.engine.words import amount
from poolscore.jobs.loop import stop
from poolscore.jobs.loop.arms import RANDOM, config_of_round
from poolscore.jobs.loop.first import FirstLabels, ids_as
from poolscore.jobs.loop.folders import DONE, RUN, SCORED, TRAINED, Round, read_trained
from poolscore.jobs.loop.labelled import begin_round, selection_of
from poolscore.jobs.loop.training import train_round
from poolscore.jobs.loop.truth import Truth
from poolscore.jobs.loop.ways import Answered, Waiting, label_batch
from poolscore.jobs.tasks.question import Question


@dataclass(frozen=True)
class Loop:
    """What all rounds have in common."""

    config: Config
    root: Path
    question: Question
    first: Mapping[int, FirstLabels]  # by seed
    truth: Truth | None  # of an oracle with a table
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
    labels = trained["labels"]
    scored, batch = None, None
    why = stop.after_training(rules, at.number, labels, trained["metrics"])
    if why is None:
        k = min(loop.config.select.k, rules.budget - labels if rules.budget is not None else loop.config.select.k)
        scored = at.read(SCORED) or _score(loop, at, k)
        why = "the pool has no rows left" if scored is None else _enough(rules, at, scored)
    if why is None:
        answered = label_batch(loop.config, at, loop.truth)
        if isinstance(answered, Waiting):
            return Ended(answered.lines[0], answered)
        batch = answered
        loop.tell(f"{at.name}: {_in_words(batch)}")
    at.write(DONE, _record(at, trained, scored, batch, why))
    if loop.config.loop.keep == "last":
        _remove_scores(at)
    return None if why is None else Ended(why)


def _train(loop: Loop, at: Round) -> dict[str, Any]:
    assert loop.config.loop is not None
    if (done := at.read(TRAINED)) is not None:
        return done
    loop.tell(f"{at.name}: training")
    before = {done.get("code") for done in read_trained(loop.root)} - {None}
    trained = train_round(loop.config, at)
    if before and trained["code"] not in before:
        loop.tell(
            f"{at.name}: the files with the code of {loop.config.loop.train} have changed since the models before were "
            "trained: the curves mix both (`code` in each round.json tells which)"
        )
    loop.trained()
    told = ", ".join(f"{name} {value:.4g}" for name, value in trained["metrics"].items()) or "trained"
    loop.tell(f"{at.name}: {told} with {trained['labels']:,} labels ({trained['seconds']:.0f} s)")
    if not at.number and not trained["metrics"]:
        loop.tell(
            f"{at.name}: {loop.config.loop.train} returned no metrics, so the curve has none; return a dictionary "
            "such as {'accuracy': 0.93}, measured on rows that are not in the pool"
        )
    return trained


def _enough(rules: StopConfig, at: Round, scored: dict[str, Any]) -> str | None:
    opening = replace(at, number=0).read(SCORED) or scored
    return stop.after_scoring(rules, scored["score"], scored["mass"], opening["mass"])


def _score(loop: Loop, at: Round, k: int) -> dict[str, Any] | None:
    """The main job, for as many rows as there are, up to k; None: there are none. A run that was stopped goes on, by
    its own directory."""
    loop.tell(f"{at.name}: scoring the pool")
    began = time.monotonic()
    while True:
        config = config_of_round(loop.config, at, k, bool(loop.first[at.seed].inputs))
        try:
            result = loop.score(config)
            break
        except TooFewRows as error:
            if not error.left:
                return None
            k = error.left
    if not at.number:
        listed = amount(result.listed, "id") + (" of pool.exclude and" if loop.config.pool.exclude else "")
        loop.tell(
            f"{at.name}: {listed} with first labels leave out {amount(result.totals.excluded, 'row')} of the pool"
            + ("" if result.totals.excluded else ", as it should be where the first labels come from elsewhere")
        )
    ids_as(selection_of(at)["id"], loop.first[at.seed].ids.type)  # before anybody labels them
    mass = None if at.arm == RANDOM else _mass(RunDirectory(config.run.dir), config.selected_by)
    return at.write(
        SCORED,
        {
            "score": config.selected_by,
            "model_code": RunDirectory(config.run.dir).info["identity"].get(CODE),
            "mass": mass,
            "rows": result.totals.scored,
            "batch": len(selection_of(at)),
            "exit_code": result.exit_code,
            "seconds": round(time.monotonic() - began, 3),
        },
    )


def _remove_scores(at: Round) -> None:
    """Of all rounds but this one and the one before. Nothing of the loop reads them once their round is scored."""
    for earlier in at.earlier()[:-1]:
        shutil.rmtree(earlier.path(RUN) / "scores", ignore_errors=True)


def _mass(run: RunDirectory, score: str) -> float:
    """The mean of a score over the scored rows, in the order of shards: the sum would fall with every row that is
    labelled."""
    reports = run.reports()
    rows, sums = 0, []
    for shard in sorted(reports):
        column = pq.read_table(run.storage.path(reports[shard].scores), columns=[score])[score].cast("float64")
        finite = column.filter(pc.is_finite(column))
        rows += len(finite)
        sums.append(float(pc.sum(finite).as_py() or 0.0))
    return fsum(sums) / max(1, rows)


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
