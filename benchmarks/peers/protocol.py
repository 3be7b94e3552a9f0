"""How the benchmark talks to a contestant, which lives in an interpreter of its own: one line in, one line of JSON out.

ready 64     build what batches of 64 need, and run them once on a few rows    {}
score        score the pool                                                    {"seconds": 3.1}
check        of what was scored last                                           {"bald": [...], "passes_differ": 0.4, …}

python baal_peer.py CONTESTANT FOLDER THREADS
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

SOME = 32  # rows on which two passes are compared


class Contestant(Protocol):
    """One way to score a pool."""

    def ready(self, batch: int) -> None:
        """Build what this batch size needs, and run it once on a few rows."""

    def score(self) -> Any:
        """BALD of every row of the pool, array [N]; this is timed."""

    def two_passes(self) -> tuple[Tensor, Tensor]:
        """The outputs of two passes of the first SOME rows, each [SOME, C]."""


def serve(contestants: Mapping[str, Callable[[Path], Contestant]], packages: tuple[str, ...]) -> None:
    """Answer on stdin and stdout until stdin is closed; whatever else is printed goes to stderr."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    name, folder, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    contestant = contestants[name](Path(folder))
    bald_N: Any = None
    for line in sys.stdin:
        request, *arguments = line.split()
        reply: dict[str, Any] = {}
        if request == "ready":
            contestant.ready(int(arguments[0]))
        elif request == "score":
            started = time.perf_counter()
            bald_N = contestant.score()
            reply["seconds"] = time.perf_counter() - started
        elif request == "check":
            one, other = contestant.two_passes()
            reply["bald"] = np.asarray(bald_N, dtype=float).tolist()
            reply["passes_differ"] = float((one - other).abs().max())
            reply["packages"] = {package: version(package) for package in packages}
        print(json.dumps(reply), file=replies, flush=True)
