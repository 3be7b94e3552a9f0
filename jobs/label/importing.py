"""Finished annotations into a labelled Parquet that grows."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import get_args

from poolscore.engine.errors import ConfigError
from poolscore.engine.keys import id_text
from poolscore.engine.storage.filesystem import require_reachable
from poolscore.jobs.label.answers import Given
from poolscore.jobs.label.labels import about_labels, bring_up_to_date
from poolscore.jobs.label.ledger import Id, Kept, Ledger, beside, extended, ledger_name, one_each, read_ledger
from poolscore.jobs.label.reading import read_answers
from poolscore.jobs.label.rules import Label, Rule, labels_of
from poolscore.jobs.tasks.manifest import Tasks, read_tasks
from poolscore.jobs.tasks.names import unguarded
from poolscore.jobs.tasks.question import Question

NAMED = 10  # wrong answers that are told of at once
_NAME = re.compile("(?<![0-9a-f])[0-9a-f]{16}(?![0-9a-f])")


@dataclass(frozen=True)
class Imported:
    """What an import did, and where the export stands by now."""

    labels: str
    answers: int  # read
    new: int  # of them, that were not known or are others than before
    labelled: int  # rows of the export, and the same below
    skipped: int
    disputed: tuple[str, ...]  # ids of rows whose answers are tied: one more opinion settles them
    pending: int
    rows: int  # in the labels, of all exports


def import_labels(
    tasks: str,
    annotations: str | Sequence[str],
    labels: str,
    *,
    annotators: str | None = None,
    classes: Sequence[str] | None = None,
    annotator: str = "",
    replace_old: bool = False,
    with_inputs: bool = False,
    round_number: int | None = None,
) -> Imported:
    """Add people's answers to the labels. The same answers again change nothing; the rest may come later. Beside the
    labels lies `….answers.parquet`, which holds every answer.

    Args:
        tasks: the folder of the export, or its tasks.json.
        annotations: files of answers (Label Studio's JSON, JSON-MIN or CSV, CVAT's XML or ZIP, CSV, JSON lines), or
            folders with a folder for each class.
        labels: the Parquet file that grows; it is made where there is none.
        annotators: where several people answered; default: as before, else majority.
        classes: the class list, where the export has none; or further ones after those of the export.
        annotator: who answered, where the files do not say.
        replace_old: answers that differ from the same person's earlier ones take their place.
        with_inputs: carry the model's input columns, too; once they are carried they always are.
        round_number: of a loop, for the column `round`.

    Raises:
        ConfigError: a file cannot be read, an answer is of no row of the export or outside the class list, somebody
            answered otherwise before. Nothing is written then.
    """
    exported = read_tasks(tasks)
    require_reachable(labels)
    storage, name = beside(labels)
    question = _question(exported.question, classes)
    ledger = _ledger(labels, exported, question)
    if annotators is not None and annotators not in get_args(Rule):
        raise ConfigError(f"--annotators {annotators}: there are {', '.join(get_args(Rule))}")
    rule, ledger.rule = ledger.rule, annotators or ledger.rule
    files = [annotations] if isinstance(annotations, str) else annotations
    read, new = 0, 0
    for file in files:
        given = [replace(g, annotator=g.annotator or annotator) for g in read_answers(file, exported)]
        read += len(given)
        new += ledger.merge(_matched(given, exported, ledger.question, round_number), file, replace_old)
    every = _labels(ledger)
    about_labels(storage, name)  # which refuses a file that is somebody else's
    if new or rule != ledger.rule or ledger_name(name) not in storage.names(""):
        ledger.write(storage, ledger_name(name))
    bring_up_to_date(labels, every, ledger, exported.runs[0], with_inputs)  # also where an import was stopped before
    state = states(exported, ledger)
    count = {which: sum(s == which for s in state) for which in ("labelled", "skipped", "pending")}
    disputed = tuple(str(i) for i, s in zip(exported.ids.to_pylist(), state, strict=True) if s == "disputed")
    return Imported(labels, read, new, count["labelled"], count["skipped"], disputed, count["pending"], len(every))


def states(tasks: Tasks, ledger: Ledger) -> list[str]:
    """Of each row of an export: labelled, skipped, disputed (its answers are tied) or pending."""
    rows = ledger.of_rows()

    def state(row: Id) -> str:
        answers = rows.get(row)
        if not answers:
            return "pending"
        if labels_of(answers, ledger.question, ledger.rule):
            return "labelled"
        return "skipped" if all(kept.answer is None for kept in answers) else "disputed"

    return [state(i) for i in tasks.ids.to_pylist()]


def _labels(ledger: Ledger) -> list[Label]:
    rows = ledger.of_rows().values()
    return [label for answers in rows for label in labels_of(answers, ledger.question, ledger.rule)]


def _question(question: Question, classes: Sequence[str] | None) -> Question:
    if not classes:
        return question
    given, known = tuple(classes), question.classes
    if question.kind == "number" or (known and (question.numbered or given[: len(known)] != known)):
        have = ", ".join(known) or "numbers"
        raise ConfigError(f"--classes: the export asked for {have}; others can be named after these only")
    return replace(question, classes=given, numbered=False)


def _ledger(labels: str, tasks: Tasks, question: Question) -> Ledger:
    storage, name = beside(labels)
    ledger = read_ledger(storage, ledger_name(name))
    if ledger is None:
        if name in storage.names(""):
            about_labels(storage, name)
            raise ConfigError(f"--labels: {labels} is there, but not {ledger_name(name)}; bring it back")
        return Ledger(question, tasks.ids.type)
    if ledger.id_type != tasks.ids.type:
        raise ConfigError(
            f"--labels: {labels} has ids of type {ledger.id_type}, the export {tasks.ids.type}; choose another"
        )
    return extended(ledger, question, tasks.selection)


def _matched(given: Sequence[Given], tasks: Tasks, question: Question, round_number: int | None) -> list[Kept]:
    """The answers with the rows that they are of."""
    by_task = {name: i for i, name in enumerate(tasks.names)}
    text = [i.hex() if isinstance(i, bytes) else i for i in id_text(tasks.ids, "id")]
    by_id = {i: place for place, i in enumerate(text)}
    ids, digest, now = tasks.ids.to_pylist(), tasks.digest, datetime.now(UTC)
    found: list[tuple[Given, Kept]] = []
    unknown: list[Given] = []
    wrong: list[str] = []
    for each in given:
        if each.by == "task":
            name = _NAME.search(each.ref)
            place = by_task.get(name[0]) if name else None
        else:
            place = by_id.get(each.ref, by_id.get(unguarded(each.ref)))
        if place is None:
            unknown.append(each)
            continue
        try:
            answer = question.parsed(each.value, f"{each.where} ({ids[place]!r})")
        except ConfigError as error:
            wrong.append(str(error))
            continue
        kept = Kept(
            id=ids[place],
            key=int(tasks.keys[place]),
            row_id=int(tasks.row_ids[place]),
            run=tasks.runs[int(tasks.of_run[place])],
            selection=tasks.selection,
            tasks=digest,
            round=round_number,
            annotator=each.annotator,
            answer=None if answer is None else json.dumps(answer),
            at=each.at or now,
        )
        found.append((each, kept))
    if unknown:
        names = ", ".join(repr(each.ref) for each in unknown[:5]) + (", …" if len(unknown) > 5 else "")
        raise ConfigError(
            f"{unknown[0].where}: {len(unknown)} of the answers are to rows that were not exported: {names}"
        )
    if wrong:
        raise ConfigError(_together(wrong))
    return one_each(found)


def _together(wrong: Sequence[str]) -> str:
    """What is wrong with the answers of a file, in one line; what to do is said once."""
    if len(wrong) == 1:
        return wrong[0]
    told, (_, _, advice) = [one.partition("; ")[0] for one in wrong[:NAMED]], wrong[0].partition("; ")
    more = [f"and {len(wrong) - NAMED:,} more"] if len(wrong) > NAMED else []
    return f"{len(wrong):,} answers: {'; '.join([*told, *more])}" + (f"; {advice}" if advice else "")
