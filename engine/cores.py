"""The cores of a machine, and how its workers share them. No part of the numeric profile: bits do not depend on it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from poolscore.engine.config import RunConfig


@dataclass(frozen=True)
class Node:
    """What a machine has to give."""

    cpus: int
    gpus: int = 0


def usable_cores() -> int:
    """Cores of this machine that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cores_per_worker(nodes: Sequence[Node], workers: int, least: int, on_gpu: bool) -> int:
    """The most cores that each of so many workers can have on these machines; `least` if they do not all fit anyway."""
    most = max((node.cpus for node in nodes), default=0)
    for cores in range(most, least, -1):
        places = (min(node.cpus // cores, node.gpus) if on_gpu else node.cpus // cores for node in nodes)
        if sum(places) >= workers:
            return cores
    return least


def with_decode_threads(run: RunConfig, cores: int, on_gpu: bool) -> RunConfig:
    """The configuration of a worker with so many cores: what torch leaves of them decodes. Beside a GPU one thread
    always does, so that decoding and the GPU's work overlap."""
    if run.decode_threads is not None:
        return run
    return run.model_copy(update={"decode_threads": max(1 if on_gpu else 0, cores - run.threads)})


def expected_workers(run: RunConfig, gpus: int) -> int | None:
    """Workers that a run will have, as far as it is known without asking a cluster: None if one is to be asked.

    Args:
        gpus: of this machine; 0: none is used.
    """
    if run.executor == "local":
        return 1
    if run.workers is not None or run.address or os.environ.get("RAY_ADDRESS"):
        return run.workers
    return gpus or max(1, usable_cores() // (run.threads + (run.decode_threads or 0)))
