"""CVAT's format 'CVAT for images 1.1': a class is a tag of a picture. A picture without a tag has no answer yet."""

from __future__ import annotations

import io
from datetime import datetime
from typing import Any
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import iterparse

from poolscore.engine.errors import ConfigError
from poolscore.jobs.label.answers import Given, when
from poolscore.jobs.tasks.manifest import Tasks
from poolscore.jobs.tasks.question import SKIP


def read(data: bytes, where: str, tasks: Tasks) -> list[Given]:
    """The tags of each picture, by whom the job is assigned to, else by its owner.

    Raises:
        ConfigError: it is no such XML, it holds entities or a document type, or shapes are drawn in it.
    """
    given: list[Given] = []
    annotator, at = "", None
    try:
        for _, element in iterparse(io.BytesIO(data), events=("end",), forbid_dtd=True):
            if element.tag == "meta":
                annotator, at = _who(element), _when(element, where)
            elif element.tag == "track":
                raise ConfigError(f"{where} is of a video; export as 'CVAT for images 1.1'")
            elif element.tag == "image":
                given += _answers(element, annotator, at, where)
                element.clear()
    except (ParseError, DefusedXmlException, ValueError, LookupError) as error:
        raise ConfigError(f"{where} is no XML that is read: {' '.join(str(error).split())}") from error
    return given


def _answers(image: Element, annotator: str, at: datetime | None, where: str) -> list[Given]:
    name = image.get("name", "")
    place = f"{where}, picture {name}"
    if shapes := [child.tag for child in image if child.tag != "tag"]:
        raise ConfigError(f"{place}: a {shapes[0]} is drawn; only tags of the whole picture are labels")
    labels: list[Any] = [child.get("label") for child in image]
    if not labels:
        return []
    if SKIP in labels and len(labels) > 1:
        raise ConfigError(f"{place}: '{SKIP}' stands beside other labels; take one of them away")
    return [Given(name.rpartition("/")[2], "task", None if labels == [SKIP] else labels, annotator, at, place)]


def _who(meta: Element) -> str:
    for of in (".//assignee/username", ".//assignee", ".//owner/username"):
        found = (meta.findtext(of) or "").strip()
        if found:
            return found
    return ""


def _when(meta: Element, where: str) -> datetime | None:
    return when((meta.findtext(".//updated") or meta.findtext("dumped") or "").strip(), where)
