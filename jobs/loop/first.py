"""Tables of ids and labels that users give: the first labels, and those of an oracle."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import pyarrow as pa

from poolscore.engine.config import Config, columns_of
from poolscore.engine.errors import ConfigError
from poolscore.engine.exclude import open_columns
from poolscore.engine.keys import id_text
from poolscore.engine.storage.filesystem import reason, repeated, require_reachable
from poolscore.engine.storage.threads import apart
from poolscore.jobs.tasks.question import Question


@dataclass(frozen=True)
class FirstLabels:
    """The labels that a curve begins with: N rows."""

    path: str
    id_column: str
    ids: pa.Array  # [N], of the type that ids have in all rounds
    labels: list[Any]  # [N], as `Question.stored`
    inputs: tuple[str, ...]  # the model's input columns, which it carries; none, or all of them
    digest: str  # of ids and labels


def read_first(config: Config, question: Question, seed: int) -> FirstLabels:
    """The first labels of a curve.

    Raises:
        ConfigError: they cannot be read, have no rows, or hold what is no label.
    """
    assert config.loop is not None
    path, key = config.loop.labelled.replace("{seed}", str(seed)), "loop.labelled"
    names, ids, values = read_pairs(path, (config.pool.id or "id", "id"), "label", key)
    text = id_text(ids, f"{key} column '{names[0]}'")
    if not text:
        raise ConfigError(f"{key}: {path} has no rows; a loop begins with some labels")
    labels = []
    for i, value in zip(text, values.to_pylist(), strict=True):
        label = label_of(value, question, f"{key}: {path} ({i!r})")
        if i is None or label is None:
            raise ConfigError(f"{key}: {path}: a row has no {'id' if i is None else f'label ({i!r})'}; take it out")
        labels.append(label)
    decoders = config.pool.named_inputs().values()
    wanted = tuple(dict.fromkeys(column for decode in decoders for column in columns_of(decode)))
    carried = wanted if path.lower().endswith(".parquet") and set(wanted) <= set(names[2:]) else ()
    if clash := {"id", "label", "round"} & set(carried):
        raise ConfigError(
            f"{key}: {path} carries the model's input '{clash.pop()}', a name that the loop takes; rename it"
        )
    digest = sha256(json.dumps([list(map(str, text)), labels]).encode()).hexdigest()[:32]
    return FirstLabels(path, names[0], ids, labels, carried, digest)


def read_pairs(
    path: str, id_names: Sequence[str], label_name: str, key: str
) -> tuple[tuple[str, ...], pa.Array, pa.ChunkedArray]:
    """Ids and labels of a Parquet file (or a folder of them) or a CSV, all of whose cells are text.

    Args:
        id_names: the column of ids has the first of these names that there is.
        key: the configuration key, for errors.

    Returns:
        The names of the columns (that of the ids, of the labels, all others), ids [N], labels [N].

    Raises:
        ConfigError: it cannot be read, or has no such columns.
    """
    require_reachable(path)
    try:
        names, read = apart(repeated, lambda: open_columns(path), path)
        id_name = next((name for name in id_names if name in names), None)
        if id_name is None or label_name not in names:
            lacks = label_name if id_name is not None else id_names[0]
            raise ConfigError(f"{key}: {path} has no column '{lacks}'; it has: {', '.join(names)}")
        ids = apart(repeated, lambda: read(id_name), path).combine_chunks()
        ids = ids.dictionary_decode() if pa.types.is_dictionary(ids.type) else ids
        labels = apart(repeated, lambda: read(label_name), path)
        labels.validate(full=True)  # that its text is UTF-8
    except FileNotFoundError as error:
        raise ConfigError(f"{key}: there is no file {path}") from error
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        raise ConfigError(f"{key}: {path} cannot be read as Parquet or CSV: {reason(error)}") from error
    return (id_name, label_name, *(name for name in names if name not in (id_name, label_name))), ids, labels


def label_of(value: Any, question: Question, where: str) -> Any:
    """A label as `check.label` takes it (class number or name, 0 or 1 for each of several labels, a number) as
    `label import` stores it; None: there is none.

    Raises:
        ConfigError: it is no label, or of no class.
    """
    if value is None or value == "":
        return None
    if question.kind == "several":
        wanted = len(question.classes)
        if not isinstance(value, list) or len(value) != wanted or any(v not in (0, 1) for v in value):
            raise ConfigError(f"{where}: the label {value!r} is not 0 or 1 for each of {wanted} labels")
        return [int(v) for v in value]
    if question.kind == "one" and isinstance(value, int):
        value = int(value)  # of true and false
        if not question.numbered and 0 <= value < len(question.classes):
            value = question.classes[value]
    answer = question.parsed(value, where)
    return None if answer is None else question.stored(answer)


def ids_as(ids: pa.ChunkedArray | pa.Array, kind: pa.DataType) -> pa.Array:
    """Ids of the pool as the first labels have them.

    Raises:
        ConfigError: they cannot be.
    """
    ids = ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids
    try:
        return (ids.dictionary_decode() if pa.types.is_dictionary(ids.type) else ids).cast(kind)
    except pa.ArrowException as error:
        raise ConfigError(f"loop.labelled: its ids are of type {kind}, those of the pool {ids.type}") from error
