"""The rows that are handed over: a run's selection, a further one by its name, or a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from poolscore.engine.errors import ConfigError
from poolscore.engine.keys import id_text
from poolscore.engine.run.directory import SELECTION, RunDirectory
from poolscore.engine.storage.filesystem import locate, reason, repeated
from poolscore.engine.storage.threads import apart
from poolscore.engine.storage.uri import local_path

MOST = 1_000_000  # rows: people label no more


@dataclass(frozen=True)
class Selected:
    """A selection and the runs that its rows are of."""

    runs: tuple[RunDirectory, ...]
    name: str  # of its file, below the first run where it lies there
    table: pa.Table  # N rows, best first
    of_run: NDArray[np.int64]  # [N] which of the runs


def find_selection(selection: str, name: str | None = None, run: str | None = None) -> Selected:
    """
    Args:
        selection: a run directory, or the file of a selection.
        name: of a further selection of the run.
        run: the run of a file that does not lie in one.

    Raises:
        ConfigError: there is none, it has no rows, too many, or an id twice.
    """
    if selection.lower().endswith(".parquet"):
        if name is not None:
            raise ConfigError(f"--name {name}: {selection} is a file already; give the run and --name, or the file")
        folder = selection.rpartition("/")[0] or "."
        own = folder[: -len("/selections")] if folder.endswith("/selections") else folder
        first = RunDirectory(run or own)
        file, path = (selection if run else selection[len(own) + 1 :] if own != "." else selection), selection
    else:
        first = RunDirectory(selection)
        file = SELECTION if name is None else f"selections/{name}.parquet"
        path = first.storage.path(file)
    table = _read(path)
    _require_tasks(table, path)
    if "run" in table.column_names and "run" not in first.config.pool.keep:
        roots = list(dict.fromkeys([first.storage.root, *table["run"].to_pylist()]))
        runs = tuple(first if root == first.storage.root else RunDirectory(root) for root in roots)
        of_run = np.array([roots.index(root) for root in table["run"].to_pylist()], np.int64)
        return Selected(runs, file, table, of_run)
    return Selected((first,), file, table, np.zeros(len(table), np.int64))


def absolute(root: str) -> str:
    """A run's path or URI as it is known from anywhere."""
    path = local_path(root)
    return root if path is None else str(Path(path).resolve())


def _read(path: str) -> pa.Table:
    def read() -> pa.Table:
        at = locate(path)
        with pq.ParquetFile(at.path, filesystem=at.filesystem) as file:
            if file.metadata.num_rows > MOST:
                raise ConfigError(
                    f"{path} has {file.metadata.num_rows:,} rows; at most {MOST:,} are handed over at once"
                )
            return file.read()

    try:
        return apart(repeated, read, path)
    except FileNotFoundError as error:
        raise ConfigError(f"there is no selection {path}; `poolscore select` makes one") from error
    except (OSError, pa.ArrowException) as error:
        raise ConfigError(f"{path} cannot be read as a selection: {reason(error)}") from error


def _require_tasks(table: pa.Table, path: str) -> None:
    if missing := [name for name in ("row_id", "key", "id") if name not in table.column_names]:
        raise ConfigError(f"{path} is no selection of poolscore: it has no column '{missing[0]}'")
    if not len(table):
        raise ConfigError(f"{path} has no rows, so there is nothing to hand over")
    seen: set[str | bytes] = set()
    for i in id_text(table["id"].combine_chunks(), "id"):
        if i is None or i in seen:
            what = "a row has no id" if i is None else f"the id {i!r} is there twice"
            raise ConfigError(f"{path}: {what}, so a label could not find its row; give the pool ids of their own")
        seen.add(i)
    if len(np.unique(table["key"].to_numpy())) < len(table):
        raise ConfigError(f"{path}: two ids have the same key; leave one of them out (--exclude)")
