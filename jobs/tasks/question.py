"""What people are asked of each row: one class of several, some of several labels, or a number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from poolscore.engine.config import Config
from poolscore.engine.config_text import one_line
from poolscore.engine.errors import ConfigError
from poolscore.engine.scores import Task

SKIP = "_skip"
"""What stands for 'cannot be labelled' where a tool has no button for it: CVAT, CSV, JSON lines, folders."""

Kind = Literal["one", "several", "number"]
Answer = str | tuple[str, ...] | float | None
"""A class; labels in the order of the classes; a number; None: skipped."""


@dataclass(frozen=True)
class Question:
    """The same for all rows of an export."""

    kind: Kind
    classes: tuple[str, ...]  # names, or numbers as text; empty for numbers, and where nobody said how many there are
    numbered: bool  # the model's classes have no names

    @classmethod
    def of(cls, config: Config, classes: Sequence[str] | None = None, outputs: int | None = None) -> Question:
        """What a run's model answers.

        Args:
            classes: names of the model's classes in their order, where the configuration has none.
            outputs: of the model, as its run found them, where the configuration does not say.

        Raises:
            ConfigError: names that cannot be, or a regression of several outputs.
        """
        task, names = config.model.task, config.model.class_names
        if task is Task.REGRESSION:
            if (config.model.outputs or 1) > (2 if config.model.predicts_noise else 1):
                raise ConfigError("a regression of several outputs cannot be asked of people row by row")
            return cls("number", (), False)
        if task is Task.BINARY:
            count, names = 2, names if names is not None and len(names) == 2 else None
        else:
            count = config.model.outputs or outputs or 0
        given = tuple(classes) if classes else names
        if given is not None and count and len(given) != count:
            raise ConfigError(f"--classes: {len(given)} names are given, the model has {count} classes")
        if given is not None:
            _require_names(given)
        kind: Kind = "several" if task is Task.MULTILABEL else "one"
        if kind == "several" and not (given or count):
            raise ConfigError("--classes: name the labels; the run's model.classes does not say how many there are")
        return cls(kind, given or tuple(map(str, range(count))), given is None)

    @property
    def arrow_type(self) -> pa.DataType:
        """Of the column `label`: what `check.label` reads."""
        if self.kind == "number":
            return pa.float64()
        if self.kind == "several":
            return pa.list_(pa.int8())
        return pa.int64() if self.numbered else pa.string()

    def stored(self, answer: Answer) -> Any:
        """An answer as a value of the column `label`: a class name (or number), 0 or 1 for each label, a number."""
        if self.kind == "several":
            assert isinstance(answer, tuple)
            return [int(name in answer) for name in self.classes]
        if self.kind == "one" and self.numbered:
            assert isinstance(answer, str)
            return int(answer)
        return answer

    def predicted(self, value: Any) -> Answer:
        """The prediction of the scores (class number, or mean output) as an answer."""
        if value is None or self.kind == "number":
            return None if value is None else float(value)
        name = self.classes[value] if value < len(self.classes) else str(value)
        return (name,) if self.kind == "several" else name

    def parsed(self, value: Any, where: str) -> Answer:
        """An answer as people or their tools wrote it.

        Args:
            value: a class, a list of labels, a number, or text that stands for it; SKIP or None: skipped.
            where: row and file, for errors.

        Raises:
            ConfigError: a label outside the class list, no number, or more than one label.
        """
        if value is None or value == SKIP or value == [SKIP]:
            return None
        if self.kind != "several" and value == []:  # handed in without an answer
            return None
        if self.kind == "number":
            return _number(value, where)
        given = [self._known(v, where) for v in (value if isinstance(value, list | tuple) else [value])]
        if self.kind == "several":
            order = {name: i for i, name in enumerate(self.classes)}
            return tuple(sorted(set(given), key=order.__getitem__))
        if len(set(given)) != 1:
            raise ConfigError(f"{where}: {len(given)} labels, one class is asked for: {', '.join(given) or 'none'}")
        return given[0]

    def _known(self, value: Any, where: str) -> str:
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise ConfigError(f"{where}: {value!r} is no label; a label is a class name or number")
        name = str(value)
        if not self.classes and self.numbered and name.isascii() and name.isdecimal():
            return str(int(name))
        if name not in self.classes:
            known = ", ".join(self.classes[:20]) + (", …" if len(self.classes) > 20 else "") or "numbers"
            raise ConfigError(
                f"{where}: the label {one_line(repr(name))} is no class; the classes are: {one_line(known)}"
            )
        return name


def _number(value: Any, where: str) -> float:
    try:
        number = float("nan" if isinstance(value, bool) else value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ConfigError(f"{where}: {value!r} is no number")
    return number


def _require_names(names: Sequence[str]) -> None:
    for i, name in enumerate(names):
        if not name or name == SKIP or name in names[:i]:
            why = "is named twice" if name in names[:i] else "cannot be the name of a class"
            raise ConfigError(f"--classes: '{name}' {why}")
