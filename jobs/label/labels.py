"""`labels.parquet`: the rows that have a label, ready to train with. It may carry the pool's input columns."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from poolscore.engine.errors import ConfigError
from poolscore.engine.run.directory import RunDirectory
from poolscore.engine.storage.base import Storage
from poolscore.engine.storage.filesystem import open_parquet
from poolscore.jobs.label.ledger import ABOUT, FORMAT, Id, Ledger, beside
from poolscore.jobs.label.rules import Label
from poolscore.jobs.tasks.rows import input_columns, read_rows, schema_of

BLOCK = 256  # rows of inputs in memory


@dataclass(frozen=True)
class Inputs:
    """Where the input columns of labelled rows come from."""

    columns: tuple[str, ...]
    before: str | None  # a file of labels that has some of them already


def bring_up_to_date(labels: str, every: Sequence[Label], ledger: Ledger, run: str, with_inputs: bool) -> None:
    """Write a file of labels anew, unless it is that of these answers already.

    Args:
        every: the labels of the ledger.
        run: whose model's input columns are carried, where the labels carry any so far or `with_inputs` says so.

    Raises:
        ConfigError: the file was not written by an import, it carries other inputs, or the pool cannot be read.
    """
    storage, name = beside(labels)
    there = about_labels(storage, name)
    before = tuple(there["inputs"]) if there else ()
    columns = tuple(input_columns(RunDirectory(run))) if before or with_inputs else ()
    if before and before != columns:
        raise ConfigError(
            f"--labels: {labels} carries {', '.join(before)}, the run has other inputs; choose another file"
        )
    about = {"format": FORMAT, "rule": ledger.rule, "answers": ledger.digest, "inputs": list(columns if every else ())}
    if about != there:
        inputs = Inputs(columns, storage.path(name) if before else None)
        _write(storage, name, every, ledger, inputs, about)


def about_labels(storage: Storage, name: str) -> dict[str, Any] | None:
    """What a file of labels says of itself; None: there is none.

    Raises:
        ConfigError: the file was not written by an import.
    """
    if name not in storage.names(""):
        return None
    try:
        with open_parquet(storage.path(name)) as file:
            about: dict[str, Any] = json.loads(file.schema_arrow.metadata[ABOUT])
            return {"inputs": [], **about}
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        path = storage.path(name)
        raise ConfigError(
            f"--labels: {path} was not written by `poolscore label import`; choose another file"
        ) from error


def _write(
    storage: Storage, name: str, labels: Sequence[Label], ledger: Ledger, inputs: Inputs, about: dict[str, Any]
) -> None:
    """Memory: the labels, and a block of inputs.

    Columns: id, key, label (`Question.arrow_type`), of several labels label_names, annotators, agreement, at, run,
    selection, round; then the inputs.
    """
    table = _table(labels, ledger)

    def write(file: object) -> None:
        blocks = _with_inputs(table, labels, inputs) if inputs.columns and labels else iter([table])
        first = next(blocks)
        schema = first.schema.with_metadata({ABOUT: json.dumps(about)})
        with pq.ParquetWriter(file, schema, compression="zstd") as writer:
            for block in chain([first], blocks):
                writer.write_table(block.cast(schema))

    storage.publish(name, write)


def _table(labels: Sequence[Label], ledger: Ledger) -> pa.Table:
    question = ledger.question
    columns: dict[str, pa.Array] = {
        "id": pa.array([label.kept.id for label in labels], ledger.id_type),
        "key": pa.array([label.kept.key for label in labels], pa.uint64()),
        "label": pa.array([question.stored(label.answer) for label in labels], question.arrow_type),
    }
    if question.kind == "several":
        columns["label_names"] = pa.array([label.answer for label in labels], pa.list_(pa.string()))
    columns |= {
        "annotators": pa.array([label.annotators for label in labels], pa.list_(pa.string())),
        "agreement": pa.array([label.agreement for label in labels], pa.float32()),
        "at": pa.array([label.kept.at for label in labels], pa.timestamp("us", tz="UTC")),
        "run": pa.array([label.kept.run for label in labels], pa.string()),
        "selection": pa.array([label.kept.selection for label in labels], pa.string()),
        "round": pa.array([label.kept.round for label in labels], pa.int64()),
    }
    return pa.table(columns)


def _with_inputs(table: pa.Table, labels: Sequence[Label], inputs: Inputs) -> Iterator[pa.Table]:
    """The labels with their inputs, which are taken from the labels so far, else from the pools."""
    if clash := set(table.column_names) & set(inputs.columns):
        raise ConfigError(
            f"--with-inputs: the pool's column '{clash.pop()}' has the name of one of the labels'; rename it"
        )
    places: dict[Id, list[int]] = {}
    for i, label in enumerate(labels):
        places.setdefault(label.kept.id, []).append(i)
    for ids, columns in _sources(labels, places, inputs):
        taken = [(place, i) for i, each in enumerate(ids) for place in places.pop(each, ())]
        if taken:
            of_labels = table.take(pa.array([place for place, _ in taken]))
            of_inputs = columns.take(pa.array([i for _, i in taken]))
            yield pa.table(dict(zip([*of_labels.column_names, *inputs.columns], [*of_labels, *of_inputs], strict=True)))


def _sources(labels: Sequence[Label], left: dict[Id, list[int]], inputs: Inputs) -> Iterator[tuple[list[Id], pa.Table]]:
    """Ids and the inputs of their rows, until none is `left`."""
    if inputs.before is not None:
        with open_parquet(inputs.before) as file:
            for batch in file.iter_batches(BLOCK, columns=["id", *inputs.columns]):
                block = pa.Table.from_batches([batch])
                yield block["id"].to_pylist(), block.select(list(inputs.columns))
    for path in dict.fromkeys(label.kept.run for label in labels):
        rows = {k.id: k for k in (label.kept for label in labels) if k.run == path and k.id in left}
        if rows:
            run, kept = RunDirectory(path), list(rows.values())
            schema_of(run, inputs.columns)
            row_ids, keys = np.array([k.row_id for k in kept], np.int64), np.array([k.key for k in kept], np.uint64)
            for found, block in read_rows(run, inputs.columns, row_ids, keys):
                yield [kept[i].id for i in found.tolist()], block
