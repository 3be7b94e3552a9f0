"""Files that anybody can fill in: a CSV for spreadsheets, or a JSON object a line. The answer goes into `label`."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from poolscore.engine.storage.base import Storage
from poolscore.jobs.tasks.manifest import Tasks
from poolscore.jobs.tasks.names import guarded
from poolscore.jobs.tasks.question import SKIP
from poolscore.jobs.tasks.shown import Item, Shown

CSV, JSONL, HOW = "tasks.csv", "tasks.jsonl", "how-to-label.txt"


def write_csv(tasks: Tasks, items: Sequence[Item], shown: Sequence[Shown], storage: Storage) -> list[str]:
    """The table (task, id, what people see, prediction and confidence where they are shown, and an empty label; no cell
    is a formula), and what to write into it."""
    out = io.StringIO(newline="")
    table = csv.writer(out, quoting=csv.QUOTE_ALL)
    shows = bool(tasks.options["predictions"])
    header = ["task", "id", *(each.name for each in shown), *(("prediction", "confidence") if shows else ()), "label"]
    table.writerow(header)
    for item in items:
        cells = [item.name, item.id, *(item.values.get(each.name) for each in shown)]
        cells += [item.prediction, item.confidence] if shows else []
        table.writerow([*map(_cell, cells), ""])
    storage.publish(CSV, lambda file: file.write(out.getvalue().encode()))
    return [CSV, _write_how(CSV, tasks, storage)]


def write_jsonl(tasks: Tasks, items: Sequence[Item], shown: Sequence[Shown], storage: Storage) -> list[str]:
    """A row a line: {"task", "id", "data": {column: value}, "label": null}, and prediction and confidence where they
    are shown; and what to write into it."""
    lines = []
    for item in items:
        row: dict[str, Any] = {"task": item.name, "id": item.id}
        row["data"] = {each.column: item.values.get(each.name) for each in shown}
        if tasks.options["predictions"]:
            row |= {"prediction": item.prediction, "confidence": item.confidence}
        lines.append(json.dumps({**row, "label": None}, default=str) + "\n")
    storage.publish(JSONL, lambda file: file.write("".join(lines).encode()))
    return [JSONL, _write_how(JSONL, tasks, storage)]


def _write_how(name: str, tasks: Tasks, storage: Storage) -> str:
    """For the people who fill a file in."""
    question = tasks.question
    known = "\n".join(f"  {one}" for one in question.classes)
    if question.numbered:
        last = f"to {len(question.classes) - 1}" if question.classes else "on"
        known = f"  class numbers, from 0 {last}"
    command = tasks.options.get("imported_by", f"poolscore label import FOLDER {name} --labels labels.parquet")
    what = {
        "one": f"Write the class of each row into 'label', as it stands here:\n{known}",
        "several": "Write the labels that apply to each row into 'label', "
        f"{'as a|b' if name == CSV else 'as a list of texts'}:\n{known}",
        "number": "Write a number into 'label' of each row.",
    }[question.kind]
    text = (
        f"{name}: what people are asked\n\n{what}\n\n"
        f"{SKIP} says that a row cannot be labelled; where 'label' is left empty the row is still pending.\n"
        "Leave the other columns and the order as they are or not: a row is known by 'task'. A column 'annotator' may "
        "say who\nanswered. Send the file back; whoever made it takes it in with\n\n"
        f"  {command}\n"
    )
    storage.publish(HOW, lambda file: file.write(text.encode()))
    return HOW


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int | float) else guarded(str(value))
