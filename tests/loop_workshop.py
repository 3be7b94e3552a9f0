"""A small pool with its truth, and loops over it in this process."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from conftest import write_pool
from loop_parts import blobs

from poolscore.engine.config import Config, parse_config
from poolscore.jobs.loop import LoopResult, run_loop, training_process

HERE = Path(__file__).parent
ROWS, FIRST, K = 90, 6, 5


def train_here(module: str, words: list[str], log: Path, what: str) -> int:
    """In place of `run_logged`: the training in this process."""
    training_process.main(json.loads(words[0]))
    return 0


@dataclass
class Workshop:
    """A folder with pool/, first.parquet (the inputs among its columns) and truth.parquet."""

    folder: Path

    @classmethod
    def make(cls, folder: Path, rows: int = ROWS) -> Workshop:
        x, y = blobs(rows, 0)
        table = pa.table({"id": [f"r{i:03d}" for i in range(rows)], "a": x[:, 0], "b": x[:, 1], "truth": y})
        write_pool(folder / "pool", table)
        pq.write_table(table.select(["id", "truth"]).rename_columns(["id", "label"]), folder / "truth.parquet")
        first = [int((y == c).nonzero()[0][i]) for i in range(FIRST // 3) for c in range(3)]
        labelled = table.take(pa.array(first)).rename_columns(["id", "a", "b", "label"])
        pq.write_table(labelled, folder / "first.parquet")
        return cls(folder)

    @property
    def truth(self) -> dict[str, int]:
        table = pq.read_table(self.folder / "truth.parquet")
        return dict(zip(table["id"].to_pylist(), table["label"].to_pylist(), strict=True))

    def data(self, loop: dict[str, Any] | None = None, **sections: dict[str, Any]) -> dict[str, Any]:
        """A configuration; `loop` and further sections are added to it."""
        base: dict[str, dict[str, Any]] = {
            "pool": {"uri": "pool", "input": ["a", "b"], "decode": {"kind": "features"}, "id": "id", "keep": ["truth"]},
            "model": {"source": "loop_parts:net", "path": str(HERE), "task": "multiclass", "classes": 3},
            "passes": {"count": 4},
            "select": {"k": K},
            "shortlist": {"rows": 0},
            "run": {"dir": "run", "executor": "local", "shard_rows": 50, "verify_rows": 0},
            "loop": {
                "labelled": "first.parquet",
                "train": "loop_parts:train",
                "label": {"oracle": {"table": "truth.parquet"}},
                "stop": {"rounds": 2},
                **(loop or {}),
            },
        }
        return {**base, **{name: {**base.get(name, {}), **values} for name, values in sections.items()}}

    def config(self, loop: dict[str, Any] | None = None, **sections: dict[str, Any]) -> Config:
        return parse_config(self.data(loop, **sections), base=self.folder)

    def loop(self, loop: dict[str, Any] | None = None, **sections: dict[str, Any]) -> LoopResult:
        return run_loop(self.config(loop, **sections))

    @property
    def curve(self) -> str:
        return (self.folder / "loop" / "curve.csv").read_text()

    @property
    def trained(self) -> list[str]:
        """'ARM SEED LABELS' of each call of the training."""
        return (self.folder / "loop" / "rounds.txt").read_text().splitlines()

    def round(self, number: int, arm: str = "bald", seed: int = 0) -> Path:
        return self.folder / "loop" / arm / f"seed-{seed}" / f"round-{number:03d}"

    def ids(self, number: int, name: str, **which: Any) -> list[str]:
        found: list[str] = pq.read_table(self.round(number, **which) / name)["id"].to_pylist()
        return found

    def write_truth(self, **more: Any) -> Path:
        """The truth as JSON, for the labelling program."""
        path = self.folder / "truth.json"
        path.write_text(json.dumps({**self.truth, **more}))
        return path
