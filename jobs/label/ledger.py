"""`labels.answers.parquet`: every answer that was ever imported, as people gave it. The labels are made of it anew by
each import, so that answers may come in parts and in any order."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from hashlib import sha256
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from poolscore.engine.errors import ConfigError
from poolscore.engine.storage.base import Storage
from poolscore.engine.storage.open import open_storage
from poolscore.jobs.label.answers import Given
from poolscore.jobs.tasks.question import Answer, Question

Id = str | int | bytes
ABOUT = b"poolscore"  # key of the schema's metadata
FORMAT = 1
_TIME = pa.timestamp("us", tz="UTC")
_FIELDS: list[tuple[str, pa.DataType]] = [
    ("key", pa.uint64()),
    ("row_id", pa.int64()),
    ("run", pa.string()),
    ("selection", pa.string()),
    ("tasks", pa.string()),
    ("round", pa.int64()),
    ("annotator", pa.string()),
    ("answer", pa.string()),
    ("at", _TIME),
]


@dataclass(frozen=True)
class Kept:
    """One person's answer to one row."""

    id: Id
    key: int
    row_id: int  # in its run
    run: str  # path or URI
    selection: str
    tasks: str  # digest of the export
    round: int | None
    annotator: str  # '' where nobody said
    answer: str | None  # as JSON; None: skipped
    at: datetime  # when it was given; else, imported

    def parsed(self) -> Answer:
        """The answer as `Question.parsed` gave it."""
        value = None if self.answer is None else json.loads(self.answer)
        return tuple(value) if isinstance(value, list) else value


@dataclass
class Ledger:
    """All answers, in the order in which they came."""

    question: Question
    id_type: pa.DataType
    rule: str = "majority"
    answers: dict[tuple[Id, str], Kept] = field(default_factory=dict)  # by id and annotator

    def merge(self, new: Iterable[Kept], where: str, replace_old: bool) -> int:
        """Add answers; a skip stands only where the same person gave no answer. How many are new or changed.

        Raises:
            ConfigError: somebody answered otherwise before, and `replace_old` is False; nothing is added then.
        """
        merged, changed = dict(self.answers), 0
        for each in new:
            place = each.id, each.annotator
            old = merged.get(place)
            if old is not None and (old.answer == each.answer or (each.answer is None and not replace_old)):
                continue
            if old is not None and old.answer is not None and not replace_old:
                by = f" by {each.annotator}" if each.annotator else ""
                raise ConfigError(
                    f"{where}: {each.id!r} was {old.answer}{by} in an earlier import, and is {each.answer} now; give "
                    "--replace if the new answers are to count, or --annotator if they are somebody else's"
                )
            merged[place] = each
            changed += 1
        self.answers = merged
        return changed

    def of_rows(self) -> dict[Id, list[Kept]]:
        """The answers to each row."""
        rows: dict[Id, list[Kept]] = {}
        for kept in self.answers.values():
            rows.setdefault(kept.id, []).append(kept)
        return rows

    @property
    def digest(self) -> str:
        """Of all that labels are made of, in its order."""
        rows = [(str(k.id), k.annotator, k.answer, k.at.isoformat(), k.round) for k in self.answers.values()]
        return sha256(json.dumps([rows, self.question.classes]).encode()).hexdigest()[:32]

    def write(self, storage: Storage, name: str) -> None:
        """Replace the file."""
        rows = [asdict(kept) for kept in self.answers.values()]
        about = {"format": FORMAT, "rule": self.rule, **asdict(self.question)}
        schema = pa.schema([("id", self.id_type), *_FIELDS], {ABOUT: json.dumps(about)})
        table = pa.Table.from_pylist(rows, schema)
        storage.publish(name, lambda file: pq.write_table(table, file, compression="zstd"))


def read_ledger(storage: Storage, name: str) -> Ledger | None:
    """The answers imported so far; None: there are none.

    Raises:
        ConfigError: the file is no such list, or of a newer format.
    """
    try:
        table = pq.read_table(pa.BufferReader(storage.read(name)))
        about: dict[str, Any] = json.loads(table.schema.metadata[ABOUT])
        if about["format"] > FORMAT:
            raise ConfigError(f"{storage.path(name)} was written by a newer poolscore; upgrade poolscore to read it")
        question = Question(about["kind"], tuple(about["classes"]), about["numbered"])
        kept = [Kept(**row) for row in table.to_pylist()]
    except FileNotFoundError:
        return None
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{storage.path(name)} is no list of answers of `poolscore label import`: {error}") from error
    answers = {(each.id, each.annotator): each for each in kept}
    return Ledger(question, table.schema.field("id").type, about["rule"], answers)


def ledger_name(labels: str) -> str:
    """The file of answers beside a file of labels."""
    return f"{labels.removesuffix('.parquet')}.answers.parquet"


def beside(labels: str) -> tuple[Storage, str]:
    """The folder of a file of labels, and its name there."""
    if not labels.lower().endswith(".parquet"):
        raise ConfigError(f"--labels {labels}: is written as Parquet; give it a name that ends in .parquet")
    folder, slash, name = labels.rpartition("/")
    return open_storage(folder or ("/" if slash else ".")), name


def one_each(given: Sequence[tuple[Given, Kept]]) -> list[Kept]:
    """Of a file's answers one for each row and person: the latest; and a skip only where there is no other.

    Raises:
        ConfigError: two that differ, and no times to tell which counts.
    """
    chosen: dict[tuple[Id, str], tuple[Given, Kept]] = {}
    for raw, kept in given:
        place = kept.id, kept.annotator
        before, old = chosen.get(place, (raw, kept))
        if old.answer is not None and kept.answer is not None and old.answer != kept.answer:
            if raw.at is None or before.at is None or raw.at == before.at:
                by = f"'{kept.annotator}' answers" if kept.annotator else "there are"
                raise ConfigError(
                    f"{raw.where}: {by} {old.answer} and {kept.answer} for one row; take one of them away"
                )
            later = raw.at > before.at
        else:
            later = old.answer is None and kept.answer is not None
        if later or place not in chosen:
            chosen[place] = raw, kept
    return [kept for _, kept in chosen.values()]


def extended(ledger: Ledger, question: Question, where: str) -> Ledger:
    """The ledger with the classes of a further export, which may add some at the end.

    Raises:
        ConfigError: another question was asked.
    """
    old = ledger.question
    shorter, longer = sorted((old.classes, question.classes), key=len)
    if (old.kind, old.numbered) != (question.kind, question.numbered) or longer[: len(shorter)] != shorter:
        raise ConfigError(
            f"{where} answers another question than the labels so far (other classes); choose other --labels"
        )
    return replace(ledger, question=replace(question, classes=longer))
