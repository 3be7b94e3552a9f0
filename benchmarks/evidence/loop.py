"""One curve of active learning: train, measure, score the pool, select, label, and again.

Batches come the way a user gets them: a Parquet pool, `score_pool` in this process, `selection.parquet`. Each round is
a line of `rounds.jsonl`, so that a curve that was interrupted goes on with the round that is missing.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from poolscore.engine import parse_config, score_pool

Sections = Mapping[str, Mapping[str, Any]]  # of a configuration
Measured = float | Mapping[str, float]  # the quality of a model, or several figures, of which the first is the quality

WITHOUT: Sections = {"shortlist": {"rows": 0}}  # nothing but the batch is wanted


def inference(passes: int, device: str) -> Sections:
    """How a round's model is run: T sub-networks, others in every round; not compiled, as it would be anew in each."""
    return {
        "passes": {"count": passes, "masks": "shared", "compile": False},
        "run": {"device": device, **({"decode_threads": 0} if device == "cpu" else {})},
    }


def network(name: str, task: str, classes: int, /, **args: Any) -> Sections:
    """One of networks.py."""
    here = str(Path(__file__).resolve().parent)
    return {"model": {"source": f"networks:{name}", "args": args, "path": here, "task": task, "classes": classes}}


@dataclass(frozen=True)
class Subject:
    """What is learned, and from what."""

    config: Sections  # pool (with a column `id` of whole numbers), model, passes and run of every round
    train: Callable[[Sequence[int], int, Path], Measured]  # (ids, seed, file of weights to write) → of the test set
    start: Callable[[int], list[int]]  # seed → ids of the first labels


@dataclass(frozen=True)
class Round:
    """A model and the batch that was selected with it."""

    labels: int  # that the model was trained on
    quality: float  # of the model, on the test set
    picked: list[int]  # ids of the batch, in the order of their rank; none in the last round
    methods: dict[str, int]  # what they were picked by → how many
    training: float  # seconds, with the test
    selecting: float  # seconds of the whole job: scores and batch
    measures: dict[str, float] = field(default_factory=dict)  # what else was measured of the model, on the test set


def run_curve(
    subject: Subject,
    method: Sections,
    seed: int,
    step: int,
    until: int,
    folder: Path,
    on_round: Callable[[Round], None] = lambda done: None,
) -> list[Round]:
    """The rounds of one curve, those that `folder` has already included.

    Args:
        method: what of the configuration makes the batch, such as `select`.
        seed: of first labels, weights, masks and chance.
        step: rows of a batch.
        until: labels of the last model.
        folder: of this curve alone.
        on_round: called after each round.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rounds = read_rounds(folder / "rounds.jsonl")
    ids = subject.start(seed) + [row for done in rounds for row in done.picked]
    while not (rounds and rounds[-1].labels >= until):
        if rounds and not rounds[-1].picked:  # was the last one of a shorter curve, and has no batch yet
            rounds.pop()
        done = run_round(subject, method, ids, seed * 1000 + len(rounds), min(step, until - len(ids)), folder)
        rounds.append(done)
        write_rounds(folder / "rounds.jsonl", rounds)
        ids += done.picked
        on_round(done)
    return cut(rounds, until)


def cut(rounds: Sequence[Round], until: int) -> list[Round]:
    """The curve up to a model, whose batch does not count."""
    asked = [done for done in rounds if done.labels <= until]
    return [*asked[:-1], *(replace(last, picked=[], methods={}, selecting=0.0) for last in asked[-1:])]


def run_round(subject: Subject, method: Sections, ids: Sequence[int], seed: int, count: int, folder: Path) -> Round:
    """Train on the labelled rows, and select `count` of the others."""
    began = time.monotonic()
    measured = subject.train(ids, seed, folder / "weights.safetensors")
    measures = {"quality": measured} if isinstance(measured, float) else dict(measured)
    trained = time.monotonic()
    picked, methods = select(subject, method, ids, seed, count, folder) if count else ([], {})
    quality = next(iter(measures.values()))
    return Round(len(ids), quality, picked, methods, trained - began, time.monotonic() - trained, measures)


def select(
    subject: Subject, method: Sections, ids: Sequence[int], seed: int, count: int, folder: Path
) -> tuple[list[int], dict[str, int]]:
    """The job of poolscore: ids of the batch, and how many of them were picked by what."""
    (folder / "labelled.csv").write_text("id\n" + "".join(f"{row}\n" for row in ids))
    of_round: Sections = {
        "pool": {"id": "id", "exclude": str(folder / "labelled.csv")},
        "model": {"weights": str(folder / "weights.safetensors")},
        "passes": {"seed": seed},
        "select": {"k": count},
        "run": {"dir": str(folder / "run"), "executor": "local", "verify_rows": 0},
    }
    shutil.rmtree(folder / "run", ignore_errors=True)
    batch = pq.read_table(score_pool(parse_config(joined(subject.config, method, of_round))).selection)
    shutil.rmtree(folder / "run")
    by = batch["method"].to_pylist()
    return batch["id"].to_pylist(), {name: by.count(name) for name in dict.fromkeys(by)}


def joined(*configs: Sections) -> dict[str, dict[str, Any]]:
    """Sections of several configurations; a later one has the last word on a key."""
    whole: dict[str, dict[str, Any]] = {}
    for config in configs:
        for name, values in config.items():
            whole[name] = {**whole.get(name, {}), **values}
    return whole


def read_rounds(file: Path) -> list[Round]:
    """The rounds of a curve so far."""
    return [Round(**json.loads(line)) for line in file.read_text().splitlines()] if file.exists() else []


def write_rounds(file: Path, rounds: Sequence[Round]) -> None:
    """Whole or not at all."""
    new = file.with_suffix(".new")
    new.write_text("".join(json.dumps(asdict(done)) + "\n" for done in rounds))
    new.replace(file)
