"""`poolscore demo`: the whole way on real handwritten digits, with nothing but what the package holds."""

from __future__ import annotations

import gzip
import os
import shutil
from importlib.resources import files
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from poolscore.engine.errors import ConfigError
from poolscore.jobs import show
from poolscore.jobs.pack import pack

MARK = ".poolscore-demo"  # by which an old demonstration is known; nothing else is ever removed
LABELLED, CHECKED = 100, 200  # digits with labels: for training, for the check
EPOCHS = 60

CONFIG = """\
# The demonstration's configuration. `poolscore schema` lists everything that can be set.
pool:
  uri: pool                     # Parquet; here one file
  id: id
  input: image                  # column with PNG bytes
  decode: {{kind: image, mode: L, mean: [0.5], std: [0.5]}}   # as in training
  keep: [label]                 # carried along, to look at; the scores know nothing of it
  exclude: labelled-ids.csv     # has labels already
model:
  source: poolscore.jobs.demo.model:digits_cnn
  weights: weights.safetensors
  task: multiclass
  classes: 10
passes: {{count: 20, masks: shared, seed: 0}}
select: {{method: topk, score: bald, k: 50}}
check: {{labelled: check.parquet, label: label, min_accuracy: 0.6}}
run: {{dir: run, workers: {workers}, shard_rows: 256}}
"""


def run_demo(folder: Path, workers: int) -> int:
    """Pack, train, check, score on local Ray, select, report; returns the exit code.

    Args:
        folder: where to work; the folder of an older demonstration is replaced.
        workers: Ray workers.

    Raises:
        ConfigError: the folder holds something else, or cannot be made.
    """
    from poolscore.engine.config import load_config
    from poolscore.jobs.cli.score import run_score
    from poolscore.jobs.demo.train import train

    _make_anew(folder)
    os.environ.pop("RAY_ADDRESS", None)  # this folder is on this machine; a cluster may not see it
    show.done("1. pack 1,797 real handwritten digits into a Parquet pool")
    pictures, digits = read_digits()
    np.save(folder / "digits.npy", pictures)
    np.save(folder / "labels.npy", digits)
    show.done(f"   {pack(folder / 'digits.npy', folder / 'pool', labels=folder / 'labels.npy')}")
    show.done(f"2. train a small CNN with dropout on {LABELLED} of them")
    chosen = np.random.default_rng(0).permutation(len(digits))
    _take(folder, chosen[:LABELLED], "labelled.parquet")
    _take(folder, chosen[LABELLED : LABELLED + CHECKED], "check.parquet")
    ids = np.sort(chosen[: LABELLED + CHECKED])
    (folder / "labelled-ids.csv").write_text("id\n" + "".join(f"{i}\n" for i in ids), encoding="utf-8")
    train(pictures[chosen[:LABELLED]], digits[chosen[:LABELLED]], folder / "weights.safetensors", EPOCHS)
    config = folder / "poolscore.yaml"
    config.write_text(CONFIG.format(workers=workers), encoding="utf-8")
    show.done(f"3. poolscore score {config}")
    return run_score(load_config(config))


def read_digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """uint8 [1797, 8, 8] and the digits, int64 [1797]."""
    with gzip.open(str(files(__package__) / "digits.csv.gz"), "rt", encoding="ascii") as file:
        table = np.loadtxt(file, delimiter=",")
    return np.round(table[:, :64] * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8), table[:, 64].astype(np.int64)


def _make_anew(folder: Path) -> None:
    try:
        if folder.exists() and any(folder.iterdir()) and not (folder / MARK).exists():
            raise ConfigError(f"--dir {folder}: it holds other files; choose a new folder")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / MARK).touch()
    except OSError as error:
        raise ConfigError(f"--dir {folder}: cannot be made ({error.strerror}); choose a new folder") from error


def _take(folder: Path, rows: NDArray[np.int64], name: str) -> None:
    pool = pq.read_table(folder / "pool")
    pq.write_table(pool.take(pa.array(np.sort(rows))), folder / name)
