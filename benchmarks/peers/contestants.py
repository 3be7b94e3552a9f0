"""Who takes part, and a contestant as the parent sees it: a process that answers (`protocol.py`)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workloads import Workload

HERE = Path(__file__).parent
OURS = "poolscore"  # from Parquet to the selection: what the others are compared with
SHELF = ("baal", "batchbald_redux", "torch-uncertainty")  # libraries


@dataclass(frozen=True)
class Way:
    """A way to score the pool."""

    file: str
    contestant: str  # in it
    parquet: bool = False  # reads the pool itself; the others have it in memory, decoded
    once: bool = False  # runs what no dropout reaches once a row, and nothing of it again
    cut: bool = False  # has its network cut by hand

    def rows(self, workload: Workload) -> int:
        """Rows of the pool that it scores; a marginal rate takes more than a batch."""
        rows = workload.rows if self.once else workload.few
        return max(rows, 2 * workload.batch) if self.parquet else rows


WAYS = {
    OURS: Way("poolscore_peer.py", "parquet", parquet=True, once=True),
    "poolscore, from memory": Way("poolscore_peer.py", "memory", once=True),
    "baal, replicated": Way("baal_peer.py", "replicated"),
    "baal, loop": Way("baal_peer.py", "loop"),
    "baal, loop with its cache": Way("baal_peer.py", "cached"),
    "batchbald_redux": Way("redux_peer.py", "repeated"),
    "batchbald_redux, cut by hand": Way("redux_peer.py", "cut by hand", once=True, cut=True),
    "torch-uncertainty, repeated": Way("torch_uncertainty_peer.py", "repeated"),
    "torch-uncertainty, loop": Way("torch_uncertainty_peer.py", "loop"),
    "torch by hand, loop": Way("torch_peer.py", "loop", parquet=True),
    "torch by hand, cut by hand": Way("torch_peer.py", "cut by hand", parquet=True, once=True, cut=True),
    "Ray Data, loop": Way("ray_data_peer.py", "actor", parquet=True),
}


def of_library(name: str) -> bool:
    """It needs the peers' interpreter, and is used as it comes off the shelf where nothing is cut by hand."""
    return name.startswith(SHELF)


class Process:
    """A contestant in its interpreter."""

    def __init__(self, name: str, workload: str, peers: Path, folder: Path, threads: int) -> None:
        way, python = WAYS[name], peers if of_library(name) else Path(sys.executable)
        self.name = name
        self._process = subprocess.Popen(
            [python, HERE / way.file, way.contestant, workload, folder, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": str(threads), "TQDM_DISABLE": "1"},
            text=True,
        )

    def ask(self, *request: object) -> dict[str, Any]:
        """Its reply.

        Raises:
            RuntimeError: it has ended; why stands on stderr.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(" ".join(map(str, request)) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass
        reply = self._process.stdout.readline()
        if not reply:
            raise RuntimeError(f"{self.name} ended with exit code {self._process.wait()}")
        return dict(json.loads(reply))

    def close(self) -> None:
        """Let it end."""
        self._process.communicate()
