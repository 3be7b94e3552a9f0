"""What became of what was handed over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from poolscore.engine.errors import ConfigError
from poolscore.jobs.label.importing import states
from poolscore.jobs.label.ledger import Ledger, beside, ledger_name, read_ledger
from poolscore.jobs.tasks.manifest import Tasks, read_tasks

STATES = ("labelled", "skipped", "disputed", "pending")


@dataclass(frozen=True)
class Status:
    """Of one export: rows in each state. What was sent is all of them."""

    tasks: str
    to: str
    selection: str
    sent: int
    labelled: int
    skipped: int
    disputed: int  # answers are tied
    pending: int


def label_status(tasks: Sequence[str], labels: str | None = None, out: str | None = None) -> list[Status]:
    """Count the rows of exports by what became of them.

    Args:
        tasks: folders of exports, or their tasks.json.
        labels: what `import_labels` wrote; None: nothing came back yet.
        out: a Parquet file to write, one line a row: id, key, state, tasks. It is an exclude list, too.

    Raises:
        ConfigError: there is no such export.
    """
    ledger = None
    if labels is not None:
        storage, name = beside(labels)
        ledger = read_ledger(storage, ledger_name(name))
        if ledger is None:
            raise ConfigError(f"--labels: there are no labels {labels}; `poolscore label import` makes them")
    exports = [(at, read_tasks(at)) for at in tasks]
    found = [(at, each, _states(each, ledger)) for at, each in exports]
    if out is not None:
        _write(found, out)
    return [
        Status(at, each.to, each.selection, len(each), *(Counter(state)[name] for name in STATES))
        for at, each, state in found
    ]


def _states(tasks: Tasks, ledger: Ledger | None) -> list[str]:
    return ["pending"] * len(tasks) if ledger is None else states(tasks, ledger)


def _write(found: Sequence[tuple[str, Tasks, list[str]]], out: str) -> None:
    storage, name = beside(out)
    if len({each.ids.type for _, each, _ in found}) > 1:
        raise ConfigError("--out: the exports have ids of different types; write a file for each of them")
    table = pa.concat_tables(
        pa.table({"id": each.ids, "key": each.keys, "state": state, "tasks": pa.repeat(at, len(each))})
        for at, each, state in found
    )

    def write(file: BinaryIO) -> None:
        pq.write_table(table, file)

    storage.publish(name, write)
