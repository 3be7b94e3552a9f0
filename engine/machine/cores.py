"""The cores of a machine, and how its workers share them. No part of the numeric profile: bits do not depend on it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from poolscore.engine.config import RunConfig
from poolscore.engine.machine.linux import bind, cores_beside, cpu_quota, memory_limit

READ_AHEAD = {False: 128 << 20, True: 1 << 30}  # bytes; True: on a GPU


@dataclass(frozen=True)
class Node:
    """What a machine has to give."""

    cpus: int
    gpus: int = 0


def usable_cores() -> int:
    """Cores of this machine that this process may use: by its affinity, and whole ones by its container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota()
    return cores if quota is None else max(1, min(cores, int(quota)))


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


def read_ahead(run: RunConfig, on_gpu: bool) -> int:
    """Bytes that a worker may read and decode ahead of its model; on a GPU some of them are pinned. Where nothing is
    said they are READ_AHEAD, but all workers of a machine together take an eighth of its memory at most."""
    if run.read_ahead is not None:
        return run.read_ahead
    memory = memory_limit()
    if memory is None:
        return READ_AHEAD[on_gpu]
    share = min(1.0, (run.threads + (run.decode_threads or 0)) / usable_cores())
    return min(READ_AHEAD[on_gpu], int(share * memory / 8))


def bind_to_gpu(run: RunConfig) -> None:
    """Keep this worker's process on the cores beside its GPU, where they are known and enough: what is pinned elsewhere
    takes the detour over the other processor. Before its threads begin."""
    import torch

    if run.device == "cpu" or not torch.cuda.is_available():
        return
    gpu = torch.cuda.get_device_properties(0)
    domain, bus, device = (getattr(gpu, f"pci_{part}_id", -1) for part in ("domain", "bus", "device"))
    cores = cores_beside(f"{domain:04x}:{bus:02x}:{device:02x}.0")
    if cores is not None:
        bind(cores, least=run.threads + (run.decode_threads or 0))


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
