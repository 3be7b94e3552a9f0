"""A run whose driver dies at any single write, resumed: nothing is lost, nothing done twice, the answer the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import nets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import TESTS, errors_of_run, scores_of_run, write_pool
from one_record import one_by_one

from poolscore.engine.config import Config, parse_config
from poolscore.engine.errors import DONE
from poolscore.engine.prepare import Prepared, prepare_job
from poolscore.engine.run import heartbeat
from poolscore.engine.run.directory import RunDirectory
from poolscore.engine.run.journal import Journal
from poolscore.engine.score import score_pool
from poolscore.engine.shortlist.read import ABOUT, about_shortlist, read_shortlist
from poolscore.engine.storage.local import LocalStorage

ROWS, SHARDS = 30, 3


class KilledError(BaseException):
    """The process is gone."""


class Machine:
    """Local storage on which a driver dies half-way through its n-th write: a temporary file is left, and nothing more
    is written by that life."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lives = 0
        self.writes: list[str] = []  # of this life
        self.dies_at: int | None = None
        write_temporary, this_process = (
            LocalStorage._write_temporary,
            heartbeat.this_process,
        )

        def dying(storage: LocalStorage, name: str, fill: Callable[[BinaryIO], object]) -> Path:
            self.writes.append(name)
            if self.dies_at is not None and len(self.writes) >= self.dies_at:
                if len(self.writes) == self.dies_at:
                    write_temporary(storage, name, lambda file: file.write(b"half"))
                raise KilledError
            return write_temporary(storage, name, fill)

        monkeypatch.setattr(LocalStorage, "_write_temporary", dying)
        monkeypatch.setattr(LocalStorage, "delete", self._deleting(LocalStorage.delete))
        # Each life is a process of its own, whose predecessor is gone.
        monkeypatch.setattr(
            "poolscore.engine.run.journal.this_process", lambda: replace(this_process(), started=f"life {self.lives}")
        )

    def live(self, config: Config, prepared: Prepared, dies_at: int | None = None) -> int | None:
        """One life of the driver; its exit code, None if it died."""
        self.lives, self.writes, self.dies_at = self.lives + 1, [], dies_at
        try:
            return score_pool(config, prepared=prepared).exit_code
        except KilledError:
            return None

    def _deleting(self, delete: Callable[[LocalStorage, str], None]) -> Callable[[LocalStorage, str], None]:
        def dying(storage: LocalStorage, name: str) -> None:
            self.writes.append(f"delete {name}")
            if self.dies_at is not None and len(self.writes) >= self.dies_at:
                raise KilledError
            delete(storage, name)

        return dying


@pytest.fixture
def configure(tmp_path: Path) -> Callable[[str], Config]:
    rng = np.random.default_rng(0)
    columns: dict[str, Any] = {name: rng.normal(size=ROWS).tolist() for name in "abc"}
    columns["a"][17] = None  # set aside, so that there is a part in errors/
    write_pool(tmp_path / "pool", pa.table({"id": [f"r{i}" for i in range(ROWS)], **columns}), 1, ROWS // SHARDS)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        torch.save(nets.mlp(3, 4).state_dict(), tmp_path / "weights.pt")

    def config(name: str) -> Config:
        run = {"dir": str(tmp_path / name), "executor": "local", "max_bad_fraction": 0.5}
        return parse_config(
            {
                "pool": {
                    "uri": str(tmp_path / "pool"),
                    "input": ["a", "b", "c"],
                    "decode": {"kind": "features"},
                    "id": "id",
                },
                "model": {
                    "source": "nets:mlp",
                    "path": str(TESTS),
                    "args": {"inputs": 3, "outputs": 4},
                    "weights": str(tmp_path / "weights.pt"),
                    "task": "multiclass",
                },
                "passes": {"count": 2, "split": False},  # nothing to trace: each life builds the model
                "select": {"k": 9},
                "run": run | {"batch_size": ROWS // SHARDS, "shard_rows": ROWS // SHARDS},
            }
        )

    return config


def test_a_driver_that_dies_at_any_write(
    configure: Callable[[str], Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Journal, "append", one_by_one(Journal.append))
    machine = Machine(monkeypatch)
    whole = configure("whole")
    prepared = prepare_job(whole)
    assert machine.live(whole, prepared) == DONE
    steps = Counter(name.split("/")[0] for name in machine.writes)
    assert steps["scores"] == SHARDS
    assert steps["errors"] == 1
    assert steps["_log"] == SHARDS + 3  # it opens, journals, seals, closes
    assert steps["shortlist"] == 4  # a part, the rows, the centre, and what names them
    for step in range(1, sum(steps.values()) + 1):
        config = configure(f"run-{step}")
        this = replace(prepared, config=config, job=replace(prepared.job, config=config))
        assert machine.live(config, this, dies_at=step) is None or step == sum(steps.values())
        assert machine.live(config, this) == DONE
        require_same(RunDirectory(config.run.dir), RunDirectory(whole.run.dir))


def require_same(run: RunDirectory, whole: RunDirectory) -> None:
    """Scores, errors and selection are the same, every row is there once, and nothing else is left."""
    root, there = Path(run.storage.root), Path(whole.storage.root)
    assert scores_of_run(str(root)).equals(scores_of_run(str(there)))
    assert errors_of_run(str(root)).equals(errors_of_run(str(there)))
    rows = [*scores_of_run(str(root))["row_id"].to_pylist(), *errors_of_run(str(root))["row_id"].to_pylist()]
    assert sorted(rows) == list(range(ROWS))
    assert (root / "selection.parquet").read_bytes() == (there / "selection.parquet").read_bytes()
    assert run.succeeded
    assert (run.info["status"], run.info["totals"]["scored"]) == ("done", ROWS - 1)
    assert pq.read_table(root / "selection.parquet").num_rows == 9
    reports = run.reports().values()
    mine, theirs = read_shortlist(run), read_shortlist(whole)
    assert mine.rows.equals(theirs.rows)
    assert mine.rows.num_rows == ROWS - 1
    assert np.array_equal(mine.features_NF, theirs.features_NF)
    about = about_shortlist(run) or {}
    of_shortlist = {ABOUT, about["table"], about["centre"], *(part["name"] for part in about["parts"])}
    for folder, counted in (
        ("scores", {r.scores for r in reports}),
        ("errors", {r.errors for r in reports} - {None}),
        ("shortlist", of_shortlist),
    ):
        assert {f"{folder}/{path.name}" for path in (root / folder).iterdir()} == counted
