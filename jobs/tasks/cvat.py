"""CVAT: the pictures, the labels for its constructor, and `annotations.xml` in its format 'CVAT for images 1.1', where
a class is a tag of the picture. https://docs.cvat.ai/docs/manual/advanced/xml_format
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from contextlib import suppress
from xml.etree import ElementTree as ET

from PIL import Image

from poolscore.engine.errors import ConfigError
from poolscore.engine.inputs.picture import FORMATS
from poolscore.engine.storage.base import Storage
from poolscore.jobs.tasks.manifest import Tasks
from poolscore.jobs.tasks.names import require_xml
from poolscore.jobs.tasks.question import SKIP
from poolscore.jobs.tasks.shown import Item, Shown

ANNOTATIONS, LABELS = "annotations.xml", "labels.json"


def write(tasks: Tasks, items: Sequence[Item], shown: Sequence[Shown], storage: Storage) -> list[str]:
    """Two files: the labels, and the pictures with their tags (none, unless predictions are shown).

    Raises:
        ConfigError: not one picture a row, numbers, or names that XML cannot hold.
    """
    if [each.form for each in shown] != ["file"]:
        raise ConfigError("--to cvat: it labels pictures of its own, one a row; use labelstudio, csv or jsonl")
    names = [require_xml(name, "model.classes") for name in (*tasks.question.classes, SKIP)]
    labels = [{"name": name, "type": "tag", "attributes": []} for name in names]
    xml = _annotations(names, items, shown[0])
    storage.publish(LABELS, lambda file: file.write(json.dumps(labels, indent=1).encode()))
    storage.publish(ANNOTATIONS, lambda file: file.write(xml))
    return [LABELS, ANNOTATIONS]


def picture_size(data: bytes) -> tuple[int, int] | None:
    """Width and height, by the header alone; None: it cannot be told."""
    with suppress(Exception), Image.open(io.BytesIO(data), formats=FORMATS) as picture:  # it raises many kinds
        return picture.size
    return None


def _annotations(names: Sequence[str], items: Sequence[Item], picture: Shown) -> bytes:
    root = ET.Element("annotations")
    ET.SubElement(root, "version").text = "1.1"
    task = ET.SubElement(ET.SubElement(root, "meta"), "task")
    for tag, text in (("name", "poolscore"), ("size", str(len(items))), ("mode", "annotation")):
        ET.SubElement(task, tag).text = text
    labels = ET.SubElement(task, "labels")
    for name in names:
        label = ET.SubElement(labels, "label")
        ET.SubElement(label, "name").text = name
        ET.SubElement(label, "type").text = "tag"
        ET.SubElement(label, "attributes")
    for i, item in enumerate(items):
        about = {"id": str(i), "name": str(item.values.get(picture.name, "")).rpartition("/")[2]}
        if item.size is not None:
            about |= {"width": str(item.size[0]), "height": str(item.size[1])}
        image = ET.SubElement(root, "image", about)
        if item.prediction is not None:
            ET.SubElement(image, "tag", label=str(item.prediction), source="auto")
    ET.indent(root)
    return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"
