"""The small CNN over a pool of 5,000: poolscore beside baal and batchbald_redux, each in a process of its own.

The peers live in an interpreter of their own (`peers/requirements.txt`). Every process has the same weights, pool,
batch size and number of threads; one computes at a time, in turn.
"""

from __future__ import annotations

import gzip
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parent / "peers"))

from subject import as_input, small_cnn

HERE = Path(__file__).parent / "peers"
OURS = "poolscore"
CONTESTANTS = {  # name → file and contestant in it
    OURS: ("poolscore_peer.py", "memory"),
    "poolscore, Parquet to selection": ("poolscore_peer.py", "parquet"),
    "baal, replicated": ("baal_peer.py", "replicated"),
    "baal, loop": ("baal_peer.py", "loop"),
    "baal, loop with its cache": ("baal_peer.py", "cached"),
    "batchbald_redux": ("redux_peer.py", "repeated"),
    "batchbald_redux, prefix cut by hand": ("redux_peer.py", "cut by hand"),
}
AS_THEY_COME = ("baal, replicated", "baal, loop", "baal, loop with its cache", "batchbald_redux")
LABELLED = 200  # pictures that the network is trained on


class Process:
    """A contestant (`peers/protocol.py`)."""

    def __init__(self, name: str, python: Path, folder: Path, threads: int) -> None:
        file, contestant = CONTESTANTS[name]
        self._name = name
        self._process = subprocess.Popen(
            [python, HERE / file, contestant, folder, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": str(threads), "TQDM_DISABLE": "1"},
            text=True,
        )

    def ask(self, request: str) -> dict[str, Any]:
        """Its reply.

        Raises:
            RuntimeError: it has ended; why stands on stderr.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(request + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass
        reply = self._process.stdout.readline()
        if not reply:
            raise RuntimeError(f"{self._name} ended with exit code {self._process.wait()}")
        return dict(json.loads(reply))

    def close(self) -> None:
        """Let it end."""
        self._process.communicate()


def compare(
    peers: Path, data: Path, rows: int, batches: Sequence[int], rounds: int, threads: int, names: Sequence[str]
) -> dict[str, Any]:
    """Images a second of every contestant at every batch size, medians of the rounds.

    Args:
        peers: the peers' interpreter.
        data: folder of MNIST; where it is missing, pictures and weights are random.
        rows: of the pool.
        names: of the contestants, in the order of their turns.

    Raises:
        RuntimeError: a contestant fails, or its passes do not differ.
    """
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        folder = Path(temporary)
        pictures = write_subject(folder, data, rows)
        processes: dict[str, Process] = {}
        for name in names:
            python = Path(sys.executable) if name.startswith(OURS) else peers
            processes[name] = Process(name, python, folder, threads)
            stack.callback(processes[name].close)
        results = [measure(processes, rows, batch, rounds) for batch in batches]
        return {"pictures": pictures, "rows": rows, "threads": threads, "batches": results}


def measure(processes: Mapping[str, Process], rows: int, batch: int, rounds: int) -> dict[str, Any]:
    """All contestants in turn, at one batch size."""
    for process in processes.values():
        process.ask(f"ready {batch}")
    seconds: dict[str, list[float]] = {name: [] for name in processes}
    for _ in range(rounds):
        for name, process in processes.items():
            seconds[name].append(process.ask("score")["seconds"])
    rates = {name: rows / statistics.median(values) for name, values in seconds.items()}
    checks = {name: process.ask("check") for name, process in processes.items()}
    if same := [name for name, check in checks.items() if not check["passes_differ"] > 0]:
        raise RuntimeError(f"two passes of {same[0]} are the same: its dropout is off")
    result = {
        "batch": batch,
        "images_per_second": {name: round(rate, 1) for name, rate in rates.items()},
        "seconds": {name: [round(value, 3) for value in values] for name, values in seconds.items()},
        "passes_differ": {name: round(check["passes_differ"], 3) for name, check in checks.items()},
        "spearman": rank_correlations({name: np.array(check["bald"]) for name, check in checks.items()}),
        "packages": {name: check["packages"] for name, check in checks.items()},
    }
    peers = {name: rate for name, rate in rates.items() if name in AS_THEY_COME}
    if peers and OURS in rates:
        fastest = max(peers, key=peers.__getitem__)
        result["fastest_peer"] = fastest
        result["times_the_fastest_peer"] = {
            name: round(rate / peers[fastest], 2) for name, rate in rates.items() if name.startswith(OURS)
        }
    return result


def write_subject(folder: Path, data: Path, rows: int) -> str:
    """The pool (as an array and as Parquet) and the weights of a network trained for a few seconds."""
    images, labels = data / "train-images-idx3-ubyte.gz", data / "train-labels-idx1-ubyte.gz"
    found = images.exists() and labels.exists()
    torch.manual_seed(0)
    network = small_cnn()
    if found:
        pixels = np.frombuffer(gzip.decompress(images.read_bytes()), np.uint8, offset=16).reshape(-1, 28, 28)
        classes = np.frombuffer(gzip.decompress(labels.read_bytes()), np.uint8, offset=8)
        train(network, pixels[-LABELLED:], classes[-LABELLED:])
        pixels = pixels[:rows]
    else:
        pixels = np.random.default_rng(0).integers(0, 256, (rows, 28, 28), dtype=np.uint8)
    torch.save(network.state_dict(), folder / "weights.pt")
    np.save(folder / "pool.npy", pixels)
    column = pa.FixedSizeListArray.from_arrays(pa.array(pixels.ravel()), 28 * 28)
    (folder / "pool").mkdir()
    pq.write_table(pa.table({"pixels": column}), folder / "pool" / "part-0.parquet", compression="none")
    return "MNIST" if found else "random"


def train(network: torch.nn.Module, pixels: NDArray[np.uint8], classes: NDArray[np.uint8]) -> None:
    """So that BALD means something: 20 epochs of Adam."""
    x, y = as_input(pixels), torch.from_numpy(classes.astype(np.int64))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for _ in range(20):
        for batch in torch.randperm(len(y)).split(32):
            optimizer.zero_grad()
            F.cross_entropy(network(x[batch]), y[batch]).backward()
            optimizer.step()


def rank_correlations(scores: Mapping[str, NDArray[np.float64]]) -> dict[str, dict[str, float]]:
    """Spearman's correlation of every pair. Masks differ, so T passes agree only so far, those of one library too."""
    names = list(scores)
    matrix = np.corrcoef([ranks(scores[name]) for name in names])
    return {
        a: {b: round(float(matrix[i, j]), 3) for j, b in enumerate(names) if j > i} for i, a in enumerate(names[:-1])
    }


def ranks(x_N: NDArray[np.float64]) -> NDArray[np.float64]:
    """Places in the order; equal values share the mean of theirs."""
    _, place, count = np.unique(x_N, return_inverse=True, return_counts=True)
    mean: NDArray[np.float64] = (np.cumsum(count) - (count - 1) / 2)[place]
    return mean
