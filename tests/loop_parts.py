"""What a user brings to the loops of the tests: a tiny model, and ways to train it. Without torch until it is built, so
that the process of a training starts quickly."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from safetensors.numpy import save_file

CENTRES = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0]])  # of three classes


def blobs(rows: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """float32 [N, 2] and classes [N]."""
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, len(CENTRES), rows)
    return (CENTRES[classes] + rng.normal(0, 0.7, (rows, 2))).astype(np.float32), classes


def net() -> Any:
    """Features [N, 2] → three classes."""
    from torch import nn

    return nn.Sequential(nn.Dropout(0.3), nn.Linear(2, 3))


def train(labelled: Path, out: Path, round: int, seed: int) -> dict[str, float]:  # noqa: A002
    """The mean of each class, as a Linear layer; `rounds.txt` beside the loop tells of each call."""
    table = pq.read_table(labelled)
    x = np.stack([table["a"].to_numpy(), table["b"].to_numpy()], 1).astype(np.float64)
    y = table["label"].to_numpy()
    noise = np.random.default_rng(seed).normal(0, 0.05, (3, 2))
    means = np.stack([x[y == c].mean(0) if (y == c).any() else np.full(2, 9.0) for c in range(3)]) + noise
    weights = {"1.weight": means.astype(np.float32), "1.bias": (-(means**2).sum(1) / 2).astype(np.float32)}
    save_file(weights, out / "weights.safetensors")
    test, truth = blobs(200, 99)
    predicted = (test @ weights["1.weight"].T + weights["1.bias"]).argmax(1)
    with (labelled.parents[3] / "rounds.txt").open("a") as file:
        file.write(f"{labelled.parents[2].name} {seed} {len(table)}\n")
    print(f"trained with seed {seed}")
    return {"accuracy": float((predicted == truth).mean()), "loss": float(len(table)) ** -0.5}


def train_killed(labelled: Path, out: Path, round: int, seed: int) -> dict[str, float]:  # noqa: A002
    """Dies in its first call for round 1, with half of its weights written."""
    mark = labelled.parents[3] / "died"
    if round == 1 and not mark.exists():
        mark.touch()
        (out / "weights.safetensors").write_bytes(b"half")
        print("last words")
        os.kill(os.getpid(), signal.SIGKILL)
    return train(labelled, out, round, seed)


def train_kills_its_loop(labelled: Path, out: Path, round: int, seed: int) -> dict[str, float]:  # noqa: A002
    """In its first call for round 1 it kills the process that wants it, and would go on for a minute."""
    mark = labelled.parents[3] / "pid"
    if round == 1 and not mark.exists():
        (out / "weights.safetensors").write_bytes(b"half")
        mark.write_text(str(os.getpid()))
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)
    return train(labelled, out, round, seed)


def train_slowly(labelled: Path, out: Path, round: int, seed: int) -> None:  # noqa: A002
    """Says who it is, and takes a minute."""
    (labelled.parents[3] / "pid").write_text(str(os.getpid()))
    time.sleep(60)


def train_nothing(labelled: Path, out: Path, round: int, seed: int) -> None:  # noqa: A002
    """Writes a file of another name."""
    (out / "other.bin").write_bytes(b"")


def train_raises(labelled: Path, out: Path, round: int, seed: int) -> None:  # noqa: A002
    raise ValueError("no such\nlayer")


def train_text(labelled: Path, out: Path, round: int, seed: int) -> Any:  # noqa: A002
    return {"accuracy": "good"}


def train_nan(labelled: Path, out: Path, round: int, seed: int) -> Any:  # noqa: A002
    return {"accuracy": float("nan")}


def train_round(labelled: Path, out: Path, round: int, seed: int) -> Any:  # noqa: A002
    return {"round": round}


def train_list(labelled: Path, out: Path, round: int, seed: int) -> Any:  # noqa: A002
    return [0.9]


def answer(tasks: Path, answers: Path, truth: dict[str, Any], left_out: int = 0) -> None:
    """Fill in a tasks.csv, all rows but the last few; the first of them is skipped."""
    import csv

    with (tasks / "tasks.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for i, row in enumerate(rows[: len(rows) - left_out]):
        row["label"] = str(truth[row["id"]]) if i else "_skip"
    with answers.open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0].keys())
        table.writeheader()
        table.writerows(rows)


def main() -> None:
    """A labelling program: `python loop_parts.py TRUTH TASKS ANSWERS`."""
    import sys

    truth = json.loads(Path(sys.argv[1]).read_text())
    print(f"round {os.environ['POOLSCORE_ROUND']}, seed {os.environ['POOLSCORE_SEED']}")
    if "fail" in truth:
        print("no connection")
        sys.exit(7)
    if "wait" in truth:
        Path(sys.argv[1]).with_name("pid").write_text(f"{os.getpid()} {os.getppid()}")
        time.sleep(60)
    if "silent" not in truth:
        answer(Path(sys.argv[2]), Path(sys.argv[3]), truth, left_out=1)


if __name__ == "__main__":
    main()
