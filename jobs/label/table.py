"""CSV and JSON lines: those of an export with `label` filled in, Label Studio's CSV, or anybody's with task or id."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from typing import Any

from poolscore.engine.errors import ConfigError
from poolscore.jobs.label.answers import Given, when, who
from poolscore.jobs.label.labelstudio import minimal_value
from poolscore.jobs.tasks.manifest import Tasks
from poolscore.jobs.tasks.names import unguarded
from poolscore.jobs.tasks.question import SKIP, Question

FIELD = 16 << 20  # characters of a cell at most
YES = ("true", "1", "yes", "x")


def read_csv(data: bytes, where: str, tasks: Tasks) -> list[Given]:
    """Rows with a label, or that are skipped; the others have no answer yet. Labels of a multilabel row are written
    `a|b`, or as a JSON list.

    Raises:
        ConfigError: it is no CSV in UTF-8 with a column `label`, and `task`, `pool_id` or `id`.
    """
    csv.field_size_limit(FIELD)
    given = []
    try:
        text = io.StringIO(data.decode("utf-8-sig"), newline="")
        rows = csv.DictReader(text, delimiter=_delimiter(text), strict=True)
        names = [unguarded(name or "") for name in rows.fieldnames or []]
        _require_columns(names, where)
        rows.fieldnames = names
        for row in rows:
            place = f"{where}, line {rows.line_num}"
            if None in row or None in row.values():
                raise ConfigError(f"{place}: it has not as many cells as the first line")
            cell = row["label"]
            value = _cell(cell, tasks.question)
            if cell or _skipped(row):
                given.append(_given(row, None if _skipped(row) else value, place, tasks))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{where} is no text in UTF-8; save it as UTF-8") from error
    except csv.Error as error:
        raise ConfigError(f"{where} is no CSV that can be read: {error}") from error
    return given


def read_jsonl(data: bytes, where: str, tasks: Tasks) -> list[Given]:
    """Lines with a label, or with `"skipped": true`; the others have no answer yet.

    Raises:
        ConfigError: a line is no JSON object with `task` or `id`.
    """
    given = []
    for number, line in enumerate(data.split(b"\n"), 1):
        place = f"{where}, line {number}"
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{place} is no JSON: {' '.join(str(error).split())}") from error
        if not isinstance(row, dict) or not ("task" in row or "id" in row):
            raise ConfigError(f"{place} is no object with 'task' (or 'id') and 'label'")
        if row.get("label") is not None or _skipped(row):
            given.append(_given(row, None if _skipped(row) else row["label"], place, tasks))
    return given


def _given(row: Mapping[str, Any], value: Any, where: str, tasks: Tasks) -> Given:
    """By `task`; where there is none by `pool_id` (in Label Studio's CSV `id` is its own number), else by `id`."""
    name = next(name for name in ("task", "pool_id", "id") if name in row)
    at = when(row.get("updated_at") or row.get("at") or row.get("created_at"), where)
    return Given(str(row[name]), "task" if name == "task" else "id", value, who(row.get("annotator")), at, where)


def _skipped(row: Mapping[str, Any]) -> bool:
    said = row.get("skipped", row.get("was_cancelled"))
    return str(said).lower() in YES or row.get("label") == SKIP


def _cell(cell: str, question: Question) -> Any:
    """What a cell stands for; a class whose name looks like something else is that class."""
    for text in (cell, unguarded(cell)):
        if text in question.classes:
            return text
    text = unguarded(cell)
    if text[:1] in ("[", "{"):
        try:
            return minimal_value(json.loads(text))
        except (ValueError, RecursionError):
            return text
    return text.split("|") if question.kind == "several" else text


def _delimiter(text: io.StringIO) -> str:
    """Of the first line: spreadsheets of some languages write semicolons."""
    first = text.readline()
    text.seek(0)
    return max(",;\t", key=first.count)


def _require_columns(names: list[str], where: str) -> None:
    if len(set(names)) < len(names):
        raise ConfigError(f"{where}: two columns have the same name")
    if "label" not in names or not {"task", "pool_id", "id"} & set(names):
        raise ConfigError(f"{where} needs the columns 'label' and 'task' (or 'id'); it has: {', '.join(names)}")
