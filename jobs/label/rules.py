"""From several people's answers to a label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from poolscore.engine.errors import ConfigError
from poolscore.jobs.label.ledger import Kept
from poolscore.jobs.tasks.question import Answer, Question

Rule = Literal["majority", "all", "refuse"]
"""majority: what most say; a tie is no label. all: a row for each answer. refuse: people must agree."""


@dataclass(frozen=True)
class Label:
    """A row of the labels."""

    kept: Kept  # the last answer behind it
    answer: Answer
    annotators: tuple[str, ...]  # all who answered the row
    agreement: float | None  # share of them that says this; of numbers None


def labels_of(answers: Sequence[Kept], question: Question, rule: str) -> list[Label]:
    """The labels of one row from its answers; none where all skipped it, or where opinions are tied.

    `majority`: one class: what more people say than anything else. Several labels: each that more than half of them
    give; none of all where one is given by exactly half. Numbers: their median.

    Raises:
        ConfigError: they differ and the rule is `refuse`.
    """
    given = sorted((k for k in answers if k.answer is not None), key=lambda k: (k.at, k.annotator))
    if not given:
        return []
    said = [kept.parsed() for kept in given]
    people = tuple(kept.annotator for kept in given)
    if rule == "refuse" and len(set(said)) > 1:
        votes = ", ".join(f"{k.annotator or 'somebody'}: {k.answer}" for k in given)
        raise ConfigError(
            f"{given[0].id!r} has answers that differ ({votes}); settle it, or give --annotators majority"
        )
    if rule == "all":
        return [Label(k, a, (k.annotator,), _share(a, said, question)) for k, a in zip(given, said, strict=True)]
    answer = _majority(said, question)
    return [] if answer is None else [Label(given[-1], answer, people, _share(answer, said, question))]


def _majority(said: Sequence[Answer], question: Question) -> Answer:
    """None: a tie."""
    if question.kind == "number":
        return float(median(a for a in said if isinstance(a, float | int)))
    if question.kind == "several":
        votes = Counter(name for answer in said if isinstance(answer, tuple) for name in answer)
        if any(2 * count == len(said) for count in votes.values()):
            return None
        return tuple(name for name in question.classes if 2 * votes[name] > len(said))
    first, *others = Counter(said).most_common(2)
    return None if others and others[0][1] == first[1] else first[0]


def _share(answer: Answer, said: Sequence[Answer], question: Question) -> float | None:
    return None if question.kind == "number" else sum(a == answer for a in said) / len(said)
