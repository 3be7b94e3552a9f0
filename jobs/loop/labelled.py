"""What a round begins with: `labelled.parquet`, all labels so far, and `excluded.parquet`, all rows that were sent.

Both are made anew for each round, from the first labels and from what the rounds before have left in their folders. So
labels that come late, or are corrected, count from the next training on.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from poolscore.engine.errors import ConfigError
from poolscore.engine.run.directory import RunDirectory
from poolscore.engine.selection.read import read_selection
from poolscore.engine.storage.filesystem import open_parquet
from poolscore.jobs.loop.first import FirstLabels, ids_as, label_of
from poolscore.jobs.loop.folders import EXCLUDED, LABELLED, LABELS, RUN, TRAINED, Round
from poolscore.jobs.tasks.question import Question
from poolscore.jobs.tasks.rows import read_rows

BLOCK = 256  # rows of inputs in memory
Id = str | int | bytes


def begin_round(at: Round, first: FirstLabels, question: Question) -> None:
    """Write both tables, unless a model was trained on them: labels may be corrected till then. `labelled.parquet` has
    id, label (as `label import` writes it), round (by which it came; null: a first label), and the model's inputs where
    the first labels carry them.

    Raises:
        ConfigError: a label is of no class, or inputs of new rows cannot be read.
    """
    if at.read(TRAINED) is not None:
        return
    sent = first.ids
    if at.number:
        before = at.earlier()[-1]
        listed = pq.read_table(before.path(EXCLUDED))["id"].combine_chunks()
        sent = pa.concat_arrays([listed, ids_as(selection_of(before)["id"], sent.type)])
    at.storage.publish(EXCLUDED, lambda file: pq.write_table(pa.table({"id": sent}), file))
    table = _labels_so_far(at, first, question)
    try:
        at.storage.publish(LABELLED, lambda file: _write(file, table, at, first))
    except pa.ArrowException as error:
        raise ConfigError(f"loop.labelled: {first.path}: its input columns are not like the pool's: {error}") from error


def selection_of(at: Round) -> pa.Table:
    """The batch of a round."""
    return read_selection(RunDirectory(str(at.path(RUN))))


def count_labelled(at: Round) -> int:
    """Rows with a label; what several people say of one row is one."""
    return len(pq.read_table(at.path(LABELLED), columns=["id"])["id"].unique())


def _labels_so_far(at: Round, first: FirstLabels, question: Question) -> pa.Table:
    ids, labels = [first.ids], list(first.labels)
    rounds: list[int | None] = [None] * len(first.ids)
    for earlier in at.earlier():
        path = earlier.path(LABELS)
        there = pq.read_table(path, columns=["id", "label"]) if path.exists() else None
        if there is None:  # nobody has answered
            continue
        ids.append(ids_as(there["id"], first.ids.type))
        pairs = zip(ids[-1].to_pylist(), there["label"].to_pylist(), strict=True)
        labels += [label_of(value, question, f"{path} ({i!r})") for i, value in pairs]
        rounds += [earlier.number] * len(there)
    return pa.table(
        {
            "id": pa.concat_arrays(ids),
            "label": pa.array(labels, question.arrow_type),
            "round": pa.array(rounds, pa.int64()),
        }
    )


def _write(file: Any, table: pa.Table, at: Round, first: FirstLabels) -> None:
    blocks = _with_inputs(table, at, first) if first.inputs else iter([table])
    head = next(blocks)
    with pq.ParquetWriter(file, head.schema, compression="zstd") as writer:
        for block in chain([head], blocks):
            writer.write_table(block.cast(head.schema))


def _with_inputs(table: pa.Table, at: Round, first: FirstLabels) -> Iterator[pa.Table]:
    """The labels with the inputs of their rows, in the order in which these are found."""
    places: dict[Id, list[int]] = {}
    for i, each in enumerate(table["id"].to_pylist()):
        places.setdefault(each, []).append(i)
    for ids, inputs in _sources(at, first, places):
        taken = [(place, i) for i, each in enumerate(ids) for place in places.pop(each, ())]
        if taken:
            labels = table.take(pa.array([place for place, _ in taken]))
            found = inputs.take(pa.array([i for _, i in taken]))
            yield pa.table(dict(zip([*labels.column_names, *first.inputs], [*labels, *found], strict=True)))


def _sources(at: Round, first: FirstLabels, left: dict[Id, list[int]]) -> Iterator[tuple[list[Id], pa.Table]]:
    """Ids and the inputs of their rows: those of the round before, else of the first labels; then the pool's, of the
    rows that are `left`, which are the last batch, and what came late."""
    before = at.earlier()
    path, name = (str(before[-1].path(LABELLED)), "id") if before else (first.path, first.id_column)
    with open_parquet(path) as file:
        for batch in file.iter_batches(BLOCK, columns=[name, *first.inputs]):
            block = pa.Table.from_batches([batch])
            yield ids_as(block[name], first.ids.type).to_pylist(), block.select(list(first.inputs))
    for earlier in reversed(before):
        if not left:
            return
        batch = selection_of(earlier)
        ids = ids_as(batch["id"], first.ids.type).to_pylist()
        wanted = [i for i, each in enumerate(ids) if each in left]
        if wanted:
            row_ids, keys = (batch[column].to_numpy()[wanted] for column in ("row_id", "key"))
            run = RunDirectory(str(earlier.path(RUN)))
            for found, block in read_rows(run, first.inputs, row_ids.astype(np.int64), keys.astype(np.uint64)):
                yield [ids[wanted[i]] for i in found.tolist()], block
