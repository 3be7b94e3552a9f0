"""Label Studio: tasks in its JSON format for import, and the labelling configuration of the project.

https://labelstud.io/guide/tasks (import), https://labelstud.io/guide/predictions (pre-annotations),
https://labelstud.io/tags (configuration).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree as ET

from poolscore.engine.storage.base import Storage
from poolscore.jobs.tasks.manifest import Tasks
from poolscore.jobs.tasks.names import require_xml
from poolscore.jobs.tasks.question import Question
from poolscore.jobs.tasks.shown import Item, Shown

IMPORT, CONFIG = "labelstudio.json", "labelstudio.xml"
ANSWER = "label"  # `from_name` of the answers
VALUES = "values"  # the table of numbers


def write(tasks: Tasks, items: Sequence[Item], shown: Sequence[Shown], storage: Storage) -> list[str]:
    """Two files: what is imported, and the project's labelling configuration."""
    config = labelling_config(tasks.question, shown)  # which may refuse the names of classes
    data = [_task(tasks, item, shown) for item in items]
    storage.publish(IMPORT, lambda file: file.write(json.dumps(data, indent=1, default=str).encode()))
    storage.publish(CONFIG, lambda file: file.write(config))
    return [IMPORT, CONFIG]


def labelling_config(question: Question, shown: Sequence[Shown]) -> bytes:
    """The XML of a project: what people see of a task, and what they are asked."""
    view = ET.Element("View")
    for each in shown:
        if each.form != "value":
            tag = "Text" if each.form == "text" else "Image"
            ET.SubElement(view, tag, name=each.name, value=f"${each.name}")
    if any(each.form == "value" for each in shown):
        ET.SubElement(view, "Table", name=VALUES, value=f"${VALUES}")
    to = _about(shown)
    if question.kind == "number":
        ET.SubElement(view, "Number", name=ANSWER, toName=to, required="true")
    else:
        one = question.kind == "one"
        choice, required = ("single", "true") if one else ("multiple", "false")
        choices = ET.SubElement(view, "Choices", name=ANSWER, toName=to, choice=choice, required=required)
        for name in question.classes:
            ET.SubElement(choices, "Choice", value=require_xml(name, "model.classes"))
    ET.indent(view)
    return bytes(ET.tostring(view, encoding="utf-8")) + b"\n"


def _task(tasks: Tasks, item: Item, shown: Sequence[Shown]) -> dict[str, Any]:
    data: dict[str, Any] = {"task": item.name, "pool_id": item.id}
    for each in shown:
        value = item.values.get(each.name)
        if each.form == "value":
            data.setdefault(VALUES, {})[each.column] = value
        elif each.form == "file" and value is not None:
            data[each.name] = tasks.options["files_at"] + value
        else:
            data[each.name] = value
    if item.prediction is None:
        return {"data": data}
    kind = "number" if tasks.question.kind == "number" else "choices"
    answer = {kind: item.prediction if kind == "number" else [item.prediction]}
    result = {"from_name": ANSWER, "to_name": _about(shown), "type": kind, "value": answer}
    sure = {} if item.confidence is None else {"score": item.confidence}
    return {"data": data, "predictions": [{"model_version": tasks.run_ids[0], **sure, "result": [result]}]}


def _about(shown: Sequence[Shown]) -> str:
    """`to_name` of the answers: the first that people see."""
    return VALUES if shown[0].form == "value" else shown[0].name
