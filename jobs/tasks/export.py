"""A batch handed over to people: shuffled, and without what the model thinks of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa

from poolscore.engine.errors import ConfigError
from poolscore.engine.exclude import TASKS
from poolscore.engine.keys import id_text
from poolscore.engine.storage.base import Storage
from poolscore.engine.storage.filesystem import require_reachable
from poolscore.engine.storage.open import open_storage
from poolscore.engine.storage.uri import local_path
from poolscore.jobs.tasks import cvat, folder, labelstudio, table
from poolscore.jobs.tasks.manifest import SUCCESS, Tasks, tasks_in
from poolscore.jobs.tasks.question import Question
from poolscore.jobs.tasks.rows import input_columns
from poolscore.jobs.tasks.selection import Selected, absolute, find_selection
from poolscore.jobs.tasks.shown import Item, Shown, fill_items, shown_columns

To = Literal["labelstudio", "cvat", "csv", "jsonl", "folder"]
Writer = Callable[[Tasks, Sequence[Item], Sequence[Shown], Storage], list[str]]
WRITERS: dict[str, Writer] = {
    "labelstudio": labelstudio.write,
    "cvat": cvat.write,
    "csv": table.write_csv,
    "jsonl": table.write_jsonl,
    "folder": folder.write,
}
NEED_CLASSES = ("labelstudio", "cvat", "folder")


@dataclass(frozen=True)
class Exported:
    """What was written."""

    out: str
    rows: int
    files: tuple[str, ...]  # that people or their tools are given, besides the pictures
    again: bool  # it was there already, and nothing was written


def export_tasks(
    selection: str,
    out: str,
    to: str,
    *,
    name: str | None = None,
    run: str | None = None,
    predictions: bool = False,
    url_column: str | None = None,
    show: Sequence[str] = (),
    classes: Sequence[str] | None = None,
    files_at: str | None = None,
    seed: int = 0,
    imported_by: str | None = None,
) -> Exported:
    """Write what people need to label a selection into a folder, and `tasks.json`, which their answers are imported by.
    The same call again writes nothing, or the rest of what a call that was stopped has left.

    Args:
        selection: a run directory, or the file of a selection; the pool must be there, unless all that is shown is
            kept.
        out: folder, local or in object storage; empty, or that of this very export.
        to: the tool.
        name: of a further selection of the run.
        run: of a selection file that does not lie in its run.
        predictions: show them, as pre-annotations; people then agree with the model more often than they should.
        url_column: a kept column of URLs, instead of the pictures' bytes.
        show: columns that people see, of the pool or kept; default: the model's inputs.
        classes: names of the model's classes, where the configuration has none.
        files_at: what stands before `files/…` in Label Studio's tasks; default: the folder in object storage, else what
            its local storage calls it.
        seed: of the order.
        imported_by: the command that takes the answers in, where it is known; it is told in how-to-label.txt.

    Raises:
        ConfigError: the selection, the pool or the folder is not what it must be.
        StoppedError: storage failed; the same call goes on.
    """
    if to not in get_args(To):
        raise ConfigError(f"--to {to}: there are {', '.join(get_args(To))}")
    selected = find_selection(selection, name, run)
    first = selected.runs[0]
    question = Question.of(first.config, classes, first.info.get("outputs"))
    if to in NEED_CLASSES and question.kind != "number" and not question.classes:
        raise ConfigError("--classes: name the classes in their order; the run's model.classes does not")
    if to in ("cvat", "folder") and question.kind == "number":
        raise ConfigError(f"--to {to}: takes classes, and the task is a regression; use labelstudio, csv or jsonl")
    if predictions and question.kind == "several":
        raise ConfigError("--predictions: the scores of multilabel rows hold their likeliest label alone; leave it out")
    if url_column is not None and to in ("cvat", "folder"):
        raise ConfigError(f"--url-column: {to} works on files; leave it out")
    shown = shown_columns(selected, [*show] or ([] if url_column else input_columns(first)), url_column)
    options: dict[str, Any] = {"predictions": predictions}
    options["shown"] = {each.name: [each.column, each.form] for each in shown}
    if imported_by is not None:
        options["imported_by"] = imported_by
    if to == "labelstudio":
        options["files_at"] = files_at if files_at is not None else _files_at(out)
    order = np.random.default_rng(seed).permutation(len(selected.table))
    tasks = _tasks(to, selected, question, order, seed, options)
    return _write(tasks, selected, order, shown, out)


def _write(tasks: Tasks, selected: Selected, order: np.ndarray, shown: list[Shown], out: str) -> Exported:
    require_reachable(out)
    storage = open_storage(out)
    if _claim(storage, tasks):
        files = tuple(name for name in storage.read(SUCCESS).decode().split("\n") if name)
        return Exported(out, len(tasks), files, again=True)
    places = np.argsort(order).tolist()
    items = _items(tasks, selected, order)
    fill_items(items, places, selected, shown, storage, cvat.picture_size if tasks.to == "cvat" else None)
    files = tuple(WRITERS[tasks.to](tasks, items, shown, storage))
    storage.publish(SUCCESS, lambda file: file.write("\n".join(files).encode()))
    return Exported(out, len(tasks), files, again=False)


def _claim(storage: Storage, tasks: Tasks) -> bool:
    """Take the folder for an export; whether all of it is there already."""
    there = tasks_in(storage)
    if there is None:
        if others := storage.names(""):
            raise ConfigError(
                f"--out: {storage.root} holds other files ({others[0]}, …); choose an empty or new folder"
            )
        if not storage.create(TASKS, tasks.to_json()):
            there = tasks_in(storage)
    if there is not None and there.digest != tasks.digest:
        raise ConfigError(
            f"--out: {storage.root} holds another export ({there.selection}, {len(there):,} rows, --to {there.to}); "
            "choose another folder"
        )
    return there is not None and SUCCESS in storage.names("")


def _tasks(
    to: str, selected: Selected, question: Question, order: np.ndarray, seed: int, options: dict[str, Any]
) -> Tasks:
    table = selected.table.take(pa.array(order))
    return Tasks(
        to=to,
        runs=tuple(absolute(run.storage.root) for run in selected.runs),
        run_ids=tuple(str(run.info.get("id", "")) for run in selected.runs),
        selection=selected.name,
        question=question,
        seed=seed,
        options=options,
        ids=_plain(table["id"].combine_chunks()),
        keys=table["key"].to_numpy(),
        row_ids=table["row_id"].to_numpy(),
        of_run=selected.of_run[order],
    )


def _items(tasks: Tasks, selected: Selected, order: np.ndarray) -> list[Item]:
    ids = [i.hex() if isinstance(i, bytes) else i for i in id_text(tasks.ids, "id")]
    items = [Item(name, i) for name, i in zip(tasks.names, ids, strict=True)]
    if tasks.options["predictions"]:
        table = selected.table.take(pa.array(order))
        confidence = table["confidence"].to_pylist() if "confidence" in table.column_names else [None] * len(items)
        for item, value, sure in zip(items, table["prediction"].to_pylist(), confidence, strict=True):
            item.prediction, item.confidence = tasks.question.predicted(value), sure
    return items


def _plain(ids: pa.Array) -> pa.Array:
    """Ids of a type that `tasks.json` names: text, binary or integers."""
    if pa.types.is_dictionary(ids.type):
        return _plain(ids.dictionary_decode())
    if pa.types.is_integer(ids.type):
        return ids
    text = pa.types.is_string(ids.type) or pa.types.is_large_string(ids.type) or pa.types.is_string_view(ids.type)
    return ids.cast(pa.string() if text else pa.binary())


def _files_at(out: str) -> str:
    """As Label Studio names files: those of its local storage below the folder of the export's own, or objects."""
    path = local_path(out)
    return f"{out.rstrip('/')}/" if path is None else f"/data/local-files/?d={path.resolve().name}/"
