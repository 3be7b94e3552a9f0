"""`tasks.json`: what was handed over to people. The import of their answers reads it, and so do exclude lists."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from hashlib import sha256
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from poolscore.engine.errors import ConfigError
from poolscore.engine.exclude import TASKS, ids_of_tasks
from poolscore.engine.storage.base import Storage
from poolscore.engine.storage.filesystem import require_reachable
from poolscore.engine.storage.open import open_storage
from poolscore.jobs.tasks.names import task_name
from poolscore.jobs.tasks.question import Question

SUCCESS = "_SUCCESS"
FORMAT = 1  # of tasks.json; readers of a newer one read older ones


@dataclass(frozen=True)
class Tasks:
    """An export: N rows in the order in which people see them."""

    to: str
    runs: tuple[str, ...]  # paths or URIs
    run_ids: tuple[str, ...]  # of their run.json, which no other run has
    selection: str  # file, below the first run where it lies there
    question: Question
    seed: int  # of the order
    options: dict[str, Any]  # of the export, such as whether predictions were shown
    ids: pa.Array  # [N] as in the pool
    keys: NDArray[np.uint64]  # [N]
    row_ids: NDArray[np.int64]  # [N] in their run
    of_run: NDArray[np.int64]  # [N] which of the runs

    def __len__(self) -> int:
        return len(self.keys)

    @cached_property
    def names(self) -> list[str]:
        """[N] of the tasks."""
        return [task_name(key) for key in self.keys.tolist()]

    @property
    def digest(self) -> str:
        """The same for the same rows, handed over in the same way."""
        return sha256(json.dumps(self._identity(), sort_keys=True).encode()).hexdigest()[:32]

    def to_json(self) -> bytes:
        """With today's date."""
        about = {"format": FORMAT, "date": datetime.now(UTC).isoformat(timespec="seconds"), "digest": self.digest}
        return (json.dumps(about | self._identity(), indent=1, ensure_ascii=False) + "\n").encode()

    def _identity(self) -> dict[str, Any]:
        binary = pa.types.is_binary(self.ids.type) or pa.types.is_large_binary(self.ids.type)
        ids = [i.hex() if binary else i for i in self.ids.to_pylist()]
        return {
            "to": self.to,
            "runs": list(self.runs),
            "run_ids": list(self.run_ids),
            "selection": self.selection,
            "kind": self.question.kind,
            "classes": list(self.question.classes),
            "numbered": self.question.numbered,
            "seed": self.seed,
            "options": self.options,
            "id_type": str(self.ids.type),
            "tasks": {
                "task": self.names,  # the keys, in hexadecimal digits
                "id": ids,
                "row_id": self.row_ids.tolist(),
                "run": self.of_run.tolist(),
            },
        }


def read_tasks(at: str) -> Tasks:
    """An export, given as its folder or its `tasks.json` (local or in object storage).

    Raises:
        ConfigError: there is none, it is damaged, or of a newer format.
    """
    folder = folder_of(at)
    require_reachable(folder)
    found = tasks_in(open_storage(folder))
    if found is None:
        raise ConfigError(f"{folder} holds no export (it has no {TASKS}); `poolscore export-tasks` makes one")
    return found


def folder_of(at: str) -> str:
    """The folder of an export, given as itself or as its tasks.json."""
    return at[: -len(TASKS)].rstrip("/") or "." if at.rpartition("/")[2] == TASKS else at.rstrip("/") or at


def tasks_in(storage: Storage) -> Tasks | None:
    """The export in a folder; None: there is none.

    Raises:
        ConfigError: it is damaged, or of a newer format.
    """
    where = storage.path(TASKS)
    try:
        about = json.loads(storage.read(TASKS))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ConfigError(f"{where} is damaged: {error}; bring it back") from error
    if isinstance(about, dict) and isinstance(about.get("format"), int) and about["format"] > FORMAT:
        raise ConfigError(f"{where} was written by a newer poolscore; upgrade poolscore to read it")
    try:
        rows = about["tasks"]
        tasks = Tasks(
            about["to"],
            tuple(about["runs"]),
            tuple(about["run_ids"]),
            about["selection"],
            Question(about["kind"], tuple(about["classes"]), about["numbered"]),
            about["seed"],
            about["options"],
            ids_of_tasks(about),
            np.array([int(name, 16) for name in rows["task"]], np.uint64),
            np.array(rows["row_id"], np.int64),
            np.array(rows["run"], np.int64),
        )
    except (KeyError, TypeError, ValueError, pa.ArrowException) as error:
        raise ConfigError(f"{where} is no list of tasks of poolscore: {' '.join(str(error).split())}") from error
    if tasks.digest != about.get("digest"):
        raise ConfigError(f"{where} was changed after it was written; bring it back, or export the tasks again")
    return tasks
