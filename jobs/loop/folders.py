"""Where what belongs to a loop lies: DIR/ARM/seed-S/round-NNN/…, and what says that a stage of a round is done."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from poolscore.engine.errors import ConfigError
from poolscore.engine.run.directory import write_json
from poolscore.engine.storage.local import LocalStorage

TRAINED, SCORED, DONE = "trained.json", "scored.json", "round.json"  # each written once its stage is done
LABELLED, EXCLUDED, LABELS = "labelled.parquet", "excluded.parquet", "labels.parquet"
MODEL, RUN, TASKS = "model", "run", "tasks"
ROUNDS_OF_A_SEED = 1000


@dataclass(frozen=True)
class Round:
    """A round of the curve that one arm makes with one seed."""

    root: Path  # of the loop
    arm: str
    seed: int  # of the curve
    number: int  # from 0

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.arm}, seed {self.seed}, round {self.number}"

    @property
    def place(self) -> str:
        """Below the loop's folder."""
        return f"{self.arm}/seed-{self.seed}/round-{self.number:03d}"

    @property
    def own_seed(self) -> int:
        """Of its weights, masks and chance; so that a round that is done again is the same."""
        return ROUNDS_OF_A_SEED * self.seed + self.number

    def path(self, name: str) -> Path:
        """Of something in its folder."""
        return self.root / self.place / name

    @property
    def storage(self) -> LocalStorage:
        """Its folder, in which each file is written whole or not at all."""
        return LocalStorage(self.root / self.place)

    def earlier(self) -> list[Round]:
        """The rounds before, in their order."""
        return [replace(self, number=number) for number in range(self.number)]

    def read(self, record: str) -> dict[str, Any] | None:
        """What a stage has recorded; None: it is not done.

        Raises:
            ConfigError: it is damaged.
        """
        path = self.path(record)
        return _read(path) if path.exists() else None

    def write(self, record: str, value: dict[str, Any]) -> dict[str, Any]:
        """Record that a stage is done, and give the record."""
        write_json(self.storage, record, value)
        return value


def read_trained(root: Path) -> list[dict[str, Any]]:
    """What the trainings of a loop so far have recorded, of all curves."""
    return [_read(path) for path in trained_in(root)]


def trained_in(root: Path) -> Iterator[Path]:
    """Those records, of the rounds that have one: DIR/ARM/seed-S/round-NNN/trained.json."""
    return root.glob(f"*/seed-*/round-*/{TRAINED}")


def _read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
        return found
    except ValueError as error:
        raise ConfigError(f"{path} is damaged: {error}; bring it back") from error
