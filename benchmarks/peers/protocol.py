"""How the benchmark talks to a contestant, which lives in an interpreter of its own: one line in, one line of JSON out.

ready 5000 64   get ready for the pools of 5,000 and 64 rows     {}
score 5000      score the pool of 5,000 rows                      {"seconds": 3.1}
check           of what was scored last                           {"bald": [...], "passes_differ": 0.4, …}

python baal_peer.py CONTESTANT WORKLOAD FOLDER THREADS
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from workloads import WORKLOADS, Workload


class Contestant(Protocol):
    """One way to score the pools of a workload, which lie in a folder beside the weights."""

    def ready(self, rows: int, few: int) -> None:
        """Load what lies in memory: at most so many rows of the pool. One of a few rows is scored first."""

    def score(self, rows: int) -> Any:
        """BALD of every row of the pool of so many rows, array [rows]; this is timed."""

    def two_passes(self) -> tuple[Tensor, Tensor]:
        """The outputs of two passes of the pool of a few rows, each [few, C]."""


def serve(contestants: Mapping[str, Callable[[Workload, Path], Contestant]], packages: tuple[str, ...]) -> None:
    """Answer on stdin and stdout until stdin is closed; whatever else is printed goes to stderr."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    name, workload, folder, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    torch.manual_seed(0)
    contestant = contestants[name](WORKLOADS[workload], Path(folder))
    bald_N: Any = None
    for line in sys.stdin:
        request, *numbers = line.split()
        arguments = [int(number) for number in numbers]
        reply: dict[str, Any] = {}
        if request == "ready":
            contestant.ready(*arguments)
        elif request == "score":
            started = time.perf_counter()
            bald_N = contestant.score(*arguments)
            reply["seconds"] = time.perf_counter() - started
        elif request == "check":
            one, other = contestant.two_passes()
            reply["bald"] = np.asarray(bald_N, dtype=float).tolist()
            reply["passes_differ"] = float((one - other).abs().max())
            reply["packages"] = {package: version(package) for package in packages}
        print(json.dumps(reply), file=replies, flush=True)
