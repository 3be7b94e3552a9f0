"""A folder a class: people sort the pictures by moving them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import BinaryIO

from poolscore.engine.errors import ConfigError
from poolscore.engine.storage.base import Storage
from poolscore.jobs.tasks.manifest import Tasks
from poolscore.jobs.tasks.names import folder_name
from poolscore.jobs.tasks.question import SKIP, Question
from poolscore.jobs.tasks.shown import FILES, Item, Shown

ABOUT = "_about.txt"  # says what a folder is for, and makes it be there on object storage


def write(tasks: Tasks, items: Sequence[Item], shown: Sequence[Shown], storage: Storage) -> list[str]:
    """A note in each folder.

    Raises:
        ConfigError: not one picture a row, or not one class of several.
    """
    if [each.form for each in shown] != ["file"] or tasks.question.kind != "one":
        raise ConfigError("--to folder: sorts pictures, one a row, by one class; use labelstudio, csv or jsonl")
    if tasks.options["predictions"]:
        raise ConfigError("--predictions: nobody could tell which pictures were looked at in --to folder; leave it out")
    notes = {f"{FILES}/{ABOUT}": "To be sorted: move each picture into the folder of its class."}
    for name, label in folders(tasks.question).items():
        what = "What cannot be labelled" if label == SKIP else f"Pictures of the class '{label}'"
        notes[f"{name}/{ABOUT}"] = f"{what}."
    for name, text in notes.items():
        storage.publish(name, partial(_write, text))
    return [*notes]


def _write(text: str, file: BinaryIO) -> None:
    file.write(f"{text}\n".encode())


def folders(question: Question) -> dict[str, str]:
    """Folder → its class; SKIP is one of them."""
    return {**{folder_name(i, label): label for i, label in enumerate(question.classes)}, SKIP: SKIP}
