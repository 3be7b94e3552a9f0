"""Files that anybody can fill in: a CSV for spreadsheets, or a JSON object a line. The answer goes into `label`."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from poolscore.engine.storage import Storage
from poolscore.jobs.tasks.manifest import Tasks
from poolscore.jobs.tasks.names import guarded
from poolscore.jobs.tasks.shown import Item, Shown

CSV, JSONL = "tasks.csv", "tasks.jsonl"


def write_csv(tasks: Tasks, items: Sequence[Item], shown: Sequence[Shown], storage: Storage) -> list[str]:
    """One file: task, id, what people see, prediction and confidence where they are shown, and an empty label. No cell
    is a formula."""
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
    return [CSV]


def write_jsonl(tasks: Tasks, items: Sequence[Item], shown: Sequence[Shown], storage: Storage) -> list[str]:
    """One file, a row a line: {"task", "id", "data": {column: value}, "label": null}, and prediction and confidence
    where they are shown."""
    lines = []
    for item in items:
        row: dict[str, Any] = {"task": item.name, "id": item.id}
        row["data"] = {each.column: item.values.get(each.name) for each in shown}
        if tasks.options["predictions"]:
            row |= {"prediction": item.prediction, "confidence": item.confidence}
        lines.append(json.dumps({**row, "label": None}, default=str) + "\n")
    storage.publish(JSONL, lambda file: file.write("".join(lines).encode()))
    return [JSONL]


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int | float) else guarded(str(value))
