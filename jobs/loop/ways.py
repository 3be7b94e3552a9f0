"""The ways to labels: an oracle, a command, or people, for whom the loop stops. All end in a round's labels.parquet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from poolscore.engine.config import Config
from poolscore.engine.config.loop import CommandConfig, OracleConfig, PauseConfig
from poolscore.engine.errors import ConfigError, StoppedError
from poolscore.engine.keys import id_text
from poolscore.engine.run.directory import RunDirectory
from poolscore.engine.words import amount
from poolscore.jobs.label import import_labels, label_status
from poolscore.jobs.loop.first import label_of
from poolscore.jobs.loop.folders import LABELS, RUN, TASKS, Round
from poolscore.jobs.loop.labelled import selection_of
from poolscore.jobs.loop.process import last_line, run_logged
from poolscore.jobs.loop.tied import NOT_STARTED
from poolscore.jobs.loop.truth import KEY, Truth, read_truth
from poolscore.jobs.tasks import Exported, export_tasks
from poolscore.jobs.tasks.question import Question

ANSWERS = {"csv": "answers.csv", "jsonl": "answers.jsonl", "labelstudio": "answers.json", "cvat": "answers.xml"}
LOG = "label.log"


@dataclass(frozen=True)
class Answered:
    """What became of a batch."""

    rows: int
    labelled: int
    skipped: int
    disputed: int  # people's answers are tied
    pending: int


@dataclass(frozen=True)
class Waiting:
    """For people: what was handed over, and what to do with their answers."""

    round: str
    tasks: str  # folder
    files: tuple[str, ...]  # in it, that people or their tools are given
    imported_by: str  # the command that takes their answers in
    so_far: Answered

    @property
    def lines(self) -> list[str]:
        """For people to read."""
        done = self.so_far.rows - self.so_far.pending
        return [
            f"{self.round} waits for people: {done:,} of {amount(self.so_far.rows, 'row')} answered",
            f"they label what is in {self.tasks} ({', '.join(self.files)})",
            f"then: {self.imported_by}",
            "and the same command goes on",
        ]


def label_batch(config: Config, at: Round, truth: Truth | None) -> Answered | Waiting:
    """Get the labels of a round's batch; what is there already is not asked for again.

    Args:
        truth: the oracle's table, where it has one.

    Raises:
        ConfigError: answers are wrong, or there are none. Rows that are skipped, even all of them, are answered.
        StoppedError, InterruptedRun: the command failed, or was interrupted.
    """
    assert config.loop is not None
    way = config.loop.label
    if way.pause is not None:
        return _ask_people(config, way.pause, at)
    if way.oracle is not None:
        return _ask_oracle(config, way.oracle, truth, at)
    assert way.command is not None
    return _ask_command(config, way.command, at)


def require_askable(config: Config, question: Question) -> Truth | None:
    """Find out before hours are spent whether the oracle has labels, or the tool can ask the question.

    Returns:
        The oracle's table, where it has one.

    Raises:
        ConfigError: not so.
    """
    assert config.loop is not None
    if (oracle := config.loop.label.oracle) is not None:
        return _read_oracle(config, oracle)
    way = config.loop.label.pause or config.loop.label.command
    assert way is not None
    if way.to in ("cvat", "folder") and question.kind == "number":
        raise ConfigError(f"loop.label: {way.to} takes classes, and the task is a regression; use labelstudio or csv")
    if way.to in ("labelstudio", "cvat", "folder") and question.kind != "number" and not question.classes:
        raise ConfigError(f"model.classes: name the classes, or give their number, to ask for them with {way.to}")
    return None


def _read_oracle(config: Config, oracle: OracleConfig) -> Truth | None:
    if oracle.table is not None:
        return read_truth(oracle)
    if oracle.label not in config.pool.keep:
        raise ConfigError(
            f"loop.label.oracle: the pool's column '{oracle.label}' must be in pool.keep; or give a table as "
            "loop.label.oracle.table"
        )
    return None


def _ask_oracle(config: Config, oracle: OracleConfig, truth: Truth | None, at: Round) -> Answered:
    batch = selection_of(at)
    ids = id_text(batch["id"].combine_chunks(), "id")
    if truth is None:
        where, found = f"{KEY}: the pool's column '{oracle.label}'", batch[oracle.label].to_pylist()
    else:
        where, found = f"{KEY}: {truth.path}", truth.of(ids)
    question = Question.of(config, outputs=RunDirectory(str(at.path(RUN))).info.get("outputs"))
    labels = [label_of(value, question, f"{where} ({i!r})") for i, value in zip(ids, found, strict=True)]
    table = pa.table({"id": batch["id"], "key": batch["key"], "label": pa.array(labels, question.arrow_type)})
    given = table.filter(table["label"].is_valid())
    at.storage.publish(LABELS, lambda file: pq.write_table(given, file))
    return Answered(len(table), len(given), len(table) - len(given), 0, 0)


def _ask_command(config: Config, command: CommandConfig, at: Round) -> Answered:
    tasks, labels = at.path(TASKS), at.path(LABELS)
    _export(at, command.to, show=command.show)
    if not labels.exists():
        answers = tasks if command.to == "folder" else at.path(ANSWERS[command.to])
        _run(config, command, at, tasks, answers)
        if not answers.exists():
            raise ConfigError(f"loop.label.command: it wrote no {answers}; its last argument says where to")
        # What it said before it was called again does not count.
        import_labels(str(tasks), str(answers), str(labels), replace_old=True, round_number=at.number)
    answered = _answered(at)
    if answered.pending == answered.rows:
        labels.unlink()
        raise ConfigError(f"loop.label.command: it answered none of {amount(answered.rows, 'row')}; see {at.path(LOG)}")
    return answered


def _run(config: Config, command: CommandConfig, at: Round, tasks: Path, answers: Path) -> None:
    words, log = [*command.run, str(tasks), str(answers)], at.path(LOG)
    about = {"POOLSCORE_ROUND": str(at.number), "POOLSCORE_SEED": str(at.own_seed)}
    code = run_logged(
        "poolscore.jobs.loop.tied", words, log, f"labelling ({at.name})", cwd=config.model.path, env=about
    )
    if code == NOT_STARTED:
        raise ConfigError(f"loop.label.command: cannot be started ({last_line(log)})")
    if code:
        raise StoppedError(
            f"loop.label.command: ended with exit code {code} in {at.name} ({last_line(log)}); see {log}; the same "
            "command calls it again"
        )


def _ask_people(config: Config, pause: PauseConfig, at: Round) -> Answered | Waiting:
    assert config.loop is not None
    before = pause.files_at if pause.files_at is not None else f"/data/local-files/?d={at.root.resolve().name}/"
    files_at = f"{before}{at.place}/{TASKS}/" if pause.to == "labelstudio" else None
    exported = _export(at, pause.to, show=pause.show, url_column=pause.url_column, files_at=files_at)
    answered = _answered(at)
    if answered.rows - answered.pending < pause.answered * answered.rows:
        return Waiting(at.name, exported.out, exported.files, _import_command(at), answered)
    return answered


def _import_command(at: Round) -> str:
    tasks, labels = quote(str(at.path(TASKS))), quote(str(at.path(LABELS)))
    return f"poolscore label import {tasks} ANSWERS --labels {labels} --round {at.number}"


def _export(at: Round, to: str, **options: Any) -> Exported:
    how = _import_command(at)
    return export_tasks(str(at.path(RUN)), str(at.path(TASKS)), to, seed=at.own_seed, imported_by=how, **options)


def _answered(at: Round) -> Answered:
    labels = str(at.path(LABELS)) if at.path(LABELS).exists() else None
    (status,) = label_status([str(at.path(TASKS))], labels)
    return Answered(status.sent, status.labelled, status.skipped, status.disputed, status.pending)
