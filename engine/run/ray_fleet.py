"""A fleet of Ray actors: one for each GPU, or for each CPU slot where there are no GPUs.

The only module of the engine that imports Ray. Ray's own restarts and retries are off: the coordinator hands a lost
shard out again, which takes 2.4 s after the death of a node instead of 15.5 s (NOTES, section 3). Only tasks and
reports travel; never rows, tensors or scores.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from poolscore.engine.config import RunConfig
from poolscore.engine.config_text import one_line
from poolscore.engine.cores import Node, cores_per_worker, usable_cores, with_decode_threads
from poolscore.engine.errors import ConfigError, PoolscoreError, StoppedError
from poolscore.engine.pool.plan import Shard
from poolscore.engine.preview import Preview
from poolscore.engine.run.fleet import IN_FLIGHT, Done, Event, Joined, Lost, what_became, what_failed
from poolscore.engine.run.task import PreviewSample, Task
from poolscore.engine.worker import Job, ShardWorker

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
from ray.exceptions import RayError, RayTaskError

MAX_DEATHS_AT_START = 3  # workers that die before they are ready, in a row
LOCAL_OBJECT_STORE = 80_000_000  # bytes; Ray's minimum, since nothing large travels


class _Actor:
    """Runs in the worker process. `start` is apart from the constructor so that its errors arrive as they are."""

    def start(self, job: Job, name: str, not_on_path: Sequence[str]) -> dict[str, Any]:
        self.leave_path(not_on_path)
        self._worker = ShardWorker(job, name)
        return self._worker.profile

    def do(self, task: Task) -> Any:
        return task.do(self._worker)

    def leave_path(self, folders: Sequence[str]) -> None:
        # Ray puts the driver's working directory on the path of its workers. Code is imported from what is installed
        # and from model.path, nothing else: the same as in the driver.
        sys.path[:] = [folder for folder in sys.path if folder not in folders]


class RayFleet:
    """See Fleet. A worker that dies is replaced."""

    def __init__(self, job: Job, most_workers: int | None = None) -> None:
        config = job.config.run
        self._job = job
        self._not_on_path = () if Path(job.config.model.path).resolve() == Path.cwd().resolve() else (str(Path.cwd()),)
        self._actors: dict[int, Any] = {}
        self._given: dict[int, deque[tuple[Any, Task]]] = {}  # reference (None: not sent yet) and task
        self._suspects: set[int] = set()  # shards that were at work when a worker died: they are scored alone
        self._starting: dict[Any, int] = {}
        self._ended: list[Event] = []  # workers that were killed
        self._next = 0
        self._deaths_at_start = 0
        self._owns_ray = not ray.is_initialized()
        try:
            if self._owns_ray:
                needed = config.threads + (config.decode_threads or 0)
                _connect(config.address, max(usable_cores(), (config.workers or 1) * needed))
            self._options, self.workers = _actor_options(config)
            run = with_decode_threads(config, self._options["num_cpus"], bool(self._options["num_gpus"]))
            self._job = replace(job, config=job.config.model_copy(update={"run": run}))
            for _ in range(min(self.workers, most_workers or self.workers)):
                self._start_worker()
        except BaseException:
            self.close()
            raise

    def free(self) -> Sequence[int]:
        """See Fleet."""
        ready = [worker for worker in self._given if worker not in self._starting.values()]
        return sorted((w for w in ready if self._has_place(w)), key=lambda w: len(self._given[w]))

    def submit(self, worker: int, task: Task) -> None:
        """See Fleet."""
        self._given[worker].append((None, task))
        self._send(worker)

    def wait(self, seconds: float) -> list[Event]:
        """See Fleet."""
        ended, self._ended = self._ended, []
        if ended:
            return ended
        working = {ref: worker for worker, given in self._given.items() for ref, _ in given if ref is not None}
        refs = [*self._starting, *working]
        ready, _ = ray.wait(refs, num_returns=len(refs), timeout=0)
        if not ready:
            ready, _ = ray.wait(refs, num_returns=1, timeout=seconds)
        events = (self._started(ref) if ref in self._starting else self._finished(ref, working[ref]) for ref in ready)
        return [event for event in events if event is not None]

    def kill(self, worker: int, why: str) -> None:
        """See Fleet."""
        self._ended.append(self._lost(worker, StoppedError(why)))

    def refuse(self, worker: int) -> bool:
        """See Fleet."""
        del self._given[worker]
        ray.kill(self._actors.pop(worker))
        return bool(self._actors)

    def close(self) -> None:
        """See Fleet."""
        with suppress(RayError):  # what is gone needs no killing
            for actor in self._actors.values():
                ray.kill(actor)
        if self._owns_ray:
            ray.shutdown()

    def preview(self, sample: Shard) -> Preview:
        """Score a sample on the first worker that is ready."""
        try:
            previewed: Preview = ray.get(self._actors[self.free()[0]].do.remote(PreviewSample(sample)))
        except RayTaskError as error:
            if isinstance(error.cause, PoolscoreError):
                raise error.cause from error
            raise ConfigError(f"plan --preview: {what_failed(error.cause)}") from error
        except RayError as error:
            raise StoppedError(f"plan --preview: its worker died: {one_line(error)}") from error
        return previewed

    def _has_place(self, worker: int) -> bool:
        given = self._given[worker]
        return len(given) < IN_FLIGHT and not any(task.shard.index in self._suspects for _, task in given)

    def _send(self, worker: int) -> None:
        """Send what was given; a suspect only once it is alone."""
        given = self._given[worker]
        for i, (ref, task) in enumerate(given):
            if ref is None and (i == 0 or task.shard.index not in self._suspects):
                given[i] = self._actors[worker].do.remote(task), task

    def _start_worker(self) -> None:
        worker, self._next = self._next, self._next + 1
        actor: Any = ray.remote(**self._options)(_Actor).remote()
        self._actors[worker] = actor
        self._given[worker] = deque()
        self._starting[actor.start.remote(self._job, f"worker-{worker}", self._not_on_path)] = worker

    def _started(self, ref: Any) -> Event:
        worker = self._starting.pop(ref)
        try:
            profile = ray.get(ref)
        except RayTaskError as error:
            if isinstance(error.cause, PoolscoreError):
                raise error.cause from error
            raise ConfigError(f"a worker cannot start: {what_failed(error.cause)}") from error
        except RayError as error:
            self._deaths_at_start += 1
            if self._deaths_at_start >= MAX_DEATHS_AT_START and not self.free():
                raise StoppedError(
                    f"{self._deaths_at_start} workers in a row died while they started: {one_line(error)}"
                ) from error
            return self._lost(worker, error)
        self._deaths_at_start = 0
        return Joined(worker, profile)

    def _finished(self, ref: Any, worker: int) -> Event | None:
        """None: the worker was found dead by another of its tasks."""
        given = self._given.get(worker, deque())
        task = next((task for reference, task in given if reference == ref), None)
        if task is None:
            return None
        try:
            event: Event = Done(task, ray.get(ref))
        except RayTaskError as error:
            event = what_became(task, error.cause)
        except RayError as error:  # the actor or its node died, or Ray killed it for its memory
            return self._lost(worker, error)
        given.remove((ref, task))
        self._send(worker)
        return event

    def _lost(self, worker: int, error: Exception) -> Event:
        given = self._given.pop(worker)
        with suppress(RayError):
            ray.kill(self._actors.pop(worker))  # it may only be out of reach; a late report of its does no harm
        self._start_worker()
        at_work = [task for ref, task in given if ref is not None]
        self._suspects.update(task.shard.index for task in at_work)
        if len(at_work) == 1:
            unsent = tuple(task for ref, task in given if ref is None)
            return Lost(worker, at_work[0], unsent, one_line(error))
        # Which of them it died of cannot be known: none is blamed, and each is scored with no other beside it.
        return Lost(worker, None, tuple(task for _, task in given), one_line(error))


def preview_on_ray(job: Job, sample: Shard) -> tuple[Preview, int]:
    """Score a sample on a worker of the cluster.

    Returns:
        What became of it, and how many such workers the job would have.
    """
    fleet = RayFleet(job, most_workers=1)
    try:
        while not fleet.free():
            fleet.wait(1.0)
        return fleet.preview(sample), fleet.workers
    finally:
        fleet.close()


def _actor_options(config: RunConfig) -> tuple[dict[str, Any], int]:
    """What an actor asks of the cluster, and how many there are to be."""
    nodes = [_node(node["Resources"]) for node in ray.nodes() if node["Alive"]]
    gpus = sum(node.gpus for node in nodes) if config.device != "cpu" else 0
    if config.device == "cuda" and not gpus:
        raise ConfigError("run.device: 'cuda' is asked for, but the Ray cluster has no GPU")
    needed = config.threads + (config.decode_threads or 0)
    if needed > max((node.cpus for node in nodes), default=0):
        asked = "run.threads and run.decode_threads" if config.decode_threads else "run.threads"
        raise ConfigError(f"{asked}: {needed} are asked for, no node of the Ray cluster has that many CPUs")
    count = config.workers or gpus or max(1, sum(node.cpus for node in nodes) // needed)
    cores = needed if config.decode_threads is not None else cores_per_worker(nodes, count, needed, bool(gpus))
    options = {"num_cpus": cores, "num_gpus": 1 if gpus else 0, "max_restarts": 0, "max_task_retries": 0}
    return {**options, "max_concurrency": IN_FLIGHT}, count


def _node(resources: Mapping[str, float]) -> Node:
    return Node(int(resources.get("CPU", 0)), int(resources.get("GPU", 0)))


def _connect(address: str | None, slots: int) -> None:
    address = address or os.environ.get("RAY_ADDRESS")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.WARNING, "configure_logging": True}
    try:
        with _signals_after():
            if address:
                ray.init(address=address, **quiet)
            else:
                ray.init(
                    address="local",
                    num_cpus=slots,
                    include_dashboard=False,
                    object_store_memory=LOCAL_OBJECT_STORE,
                    **quiet,
                )
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = f"the Ray cluster at {address}" if address else "a local Ray"
        raise ConfigError(f"run.address: cannot start on {where}: {one_line(error)}") from error


@contextmanager
def _signals_after() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait for the end of the block. Ray puts its own handler for SIGTERM in place while it
    starts, which would end the process at once, and an interruption half-way would leave its processes behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda number, _: received.append(number)) for number in signals]
    try:
        yield
    except SystemExit:  # Ray's handler
        received.append(signal.SIGTERM)
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)
    if received:
        raise KeyboardInterrupt
