"""Label Studio's exports: JSON and JSON-MIN (https://labelstud.io/guide/export); its CSV is read by `table.py`."""

from __future__ import annotations

import json
from typing import Any, Literal

from poolscore.engine.errors import ConfigError
from poolscore.jobs.label.answers import Given, when, who
from poolscore.jobs.tasks.labelstudio import ANSWER
from poolscore.jobs.tasks.manifest import Tasks


def read(data: bytes, where: str, tasks: Tasks) -> list[Given]:
    """The answers of a project. Drafts and predictions are nobody's answers; cancelled annotations are skips.

    Raises:
        ConfigError: it is no export, or an annotation holds something else than the answer.
    """
    try:
        rows = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where} is no JSON: {' '.join(str(error).split())}") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ConfigError(f"{where} is no export of Label Studio: a list of tasks is expected")
    given: list[Given] = []
    for i, row in enumerate(rows):
        place = f"{where}, task {row.get('id', i + 1)}"
        given += _whole(row, place) if isinstance(row.get("annotations"), list) else [_minimal(row, place)]
    return given


def minimal_value(value: Any) -> Any:
    """An answer of JSON-MIN: {"choices": […]} and [{"number": n}] are what they hold."""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
        value = value[0]
    if isinstance(value, dict):
        return next((value[kind] for kind in ("choices", "number") if kind in value), value)
    return value


def _whole(row: dict[str, Any], where: str) -> list[Given]:
    data = row.get("data")
    if not isinstance(data, dict):
        raise ConfigError(f"{where} has no data; export the project as JSON again")
    ref = _ref(data)
    given = []
    for annotation in row["annotations"]:
        if not isinstance(annotation, dict) or not isinstance(annotation.get("result", []), list):
            raise ConfigError(f"{where} has an annotation that is none; export the project as JSON again")
        cancelled = annotation.get("was_cancelled") or annotation.get("skipped")
        value = None if cancelled else _value(annotation.get("result", []), where)
        at = when(annotation.get("updated_at") or annotation.get("created_at"), where)
        given.append(Given(*ref, value, who(annotation.get("completed_by")), at, where))
    return given


def _value(result: list[Any], where: str) -> Any:
    """The answer of an annotation; [] where nothing was chosen."""
    found: list[Any] = []
    for each in result:
        if not isinstance(each, dict) or each.get("from_name") != ANSWER or not isinstance(each.get("value"), dict):
            name = each.get("from_name") if isinstance(each, dict) else each
            raise ConfigError(f"{where} answers {name!r}; only '{ANSWER}' of the exported configuration is known")
        found.append(minimal_value(each["value"]))
    if len(found) == 1:
        return found[0]
    return [v for value in found for v in (value if isinstance(value, list) else [value])]


def _minimal(row: dict[str, Any], where: str) -> Given:
    at = when(row.get("updated_at") or row.get("created_at"), where)
    return Given(*_ref(row), minimal_value(row.get(ANSWER, [])), who(row.get("annotator")), at, where)


def _ref(data: dict[str, Any]) -> tuple[str, Literal["task", "id"]]:
    """A project of people's own may lack `task`; then the id tells, or the name of a file."""
    if isinstance(data.get("task"), str):
        return data["task"], "task"
    if isinstance(data.get("pool_id"), str | int):
        return str(data["pool_id"]), "id"
    return next((v.rpartition("/")[2] for v in data.values() if isinstance(v, str) and "/" in v), ""), "task"
