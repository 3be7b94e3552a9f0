"""A fleet of Ray actors: one for each GPU, or for each CPU slot where there are no GPUs, as machines come and go.

Ray's own restarts and retries are off: the coordinator hands a lost shard out again, which takes about 2 s after the
death of a machine instead of 15.5 s (benchmarks/bench_recovery.py). Only tasks and reports travel; never rows, tensors
or scores.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from poolscore.engine import log
from poolscore.engine.config_text import one_line
from poolscore.engine.errors import BrokenDevice, ConfigError, PoolscoreError, StoppedError
from poolscore.engine.machine.cores import Node, usable_cores
from poolscore.engine.pool.plan import Shard
from poolscore.engine.run.elastic import Elastic
from poolscore.engine.run.fleet import IN_FLIGHT, Done, Event, Joined, Leaving, Lost, what_became, what_failed
from poolscore.engine.run.ray_actor import Actor, RayWorker
from poolscore.engine.run.ray_cluster import connect, draining, how_it_died, machine_died, machines, was_told_to_go
from poolscore.engine.run.task import PreviewSample, Task
from poolscore.engine.worker.job import Job
from poolscore.engine.worker.preview import Preview

LOOK = 1.0  # seconds between looks at the cluster's machines
SPOT = 5  # machines that may die under a shard before it is blamed: on a spot market they die for no fault of its own
START_SECONDS = 1800.0  # a worker that has a place is ready by then, its model compiled, or it hangs


class RayFleet:
    """See Fleet. A worker that dies is replaced while the cluster has a place for it."""

    def __init__(self, job: Job, most_workers: int | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        config = job.config.run
        self._job, self._most, self._clock = job, most_workers, clock
        self._not_on_path = () if Path(job.config.model.path).resolve() == Path.cwd().resolve() else (str(Path.cwd()),)
        self._workers: dict[int, RayWorker] = {}
        self._suspects: set[int] = set()  # shards that were at work when a worker died: they are scored alone
        self._took_along: Counter[int] = Counter()  # machines that died under a shard
        self._refused: set[str] = set()  # nodes
        self._lost: list[Lost] = []  # to be told
        self._next = 0
        self._looked = -math.inf
        self._owns_ray = not ray.is_initialized()
        try:
            if self._owns_ray:
                needed = config.threads + (config.decode_threads or 0)
                connect(config.address, max(usable_cores(), (config.workers or 1) * needed))
            nodes = list(machines().values())
            attached = not self._owns_ray or bool(config.address or os.environ.get("RAY_ADDRESS"))
            self._elastic = Elastic(config, nodes, attached, clock)
            self.workers = self._elastic.wanted(nodes)
            self.expected = min(self._elastic.at_once(nodes), self._most or sys.maxsize)
            self._look_around()
        except BaseException:
            self.close()
            raise

    def free(self) -> Sequence[int]:
        """See Fleet."""
        free = (worker for worker in self._ready() if not worker.leaving and self._has_place(worker))
        return [worker.number for worker in sorted(free, key=lambda worker: len(worker.given))]

    def submit(self, worker: int, task: Task) -> None:
        """See Fleet."""
        self._workers[worker].given.append((None, task))
        self._send(self._workers[worker])

    def wait(self, seconds: float) -> list[Event]:
        """See Fleet."""
        events: list[Event] = [*self._look_around()]
        refs = {ref: worker for worker in self._workers.values() for ref in worker.references()}
        ready, _ = ray.wait(list(refs), num_returns=len(refs), timeout=0) if refs else ([], [])
        if not (ready or events or self._lost):
            if refs:
                ready, _ = ray.wait(list(refs), num_returns=1, timeout=seconds)
            else:
                time.sleep(seconds)
        for ref in ready:
            events += self._answered(refs[ref], ref)
        lost, self._lost = self._lost, []
        return events + lost

    def kill(self, worker: int, why: str) -> None:
        """See Fleet."""
        if worker in self._workers:
            self._lose(self._workers[worker], why)

    def refuse(self, worker: int) -> bool:
        """See Fleet."""
        refused = self._workers.pop(worker)
        self._refused.add(str(refused.node))
        _kill(refused)
        self._looked = -math.inf  # another may be wanted
        usable = [node for name, node in machines().items() if name not in self._refused]
        return any(worker.node is not None for worker in self._workers.values()) or self._elastic.may_come(usable)

    def last(self) -> Sequence[Done]:
        """See Fleet."""
        return [event for event in self.wait(0.0) if isinstance(event, Done)]

    def close(self) -> None:
        """See Fleet."""
        for worker in self._workers.values():
            _kill(worker)
        if self._owns_ray:
            ray.shutdown()

    def preview(self, sample: Shard) -> Preview:
        """Score a sample on the first worker that is ready."""
        actor = self._workers[self.free()[0]].actor
        try:
            previewed: Preview = ray.get(actor.do.remote(PreviewSample(sample)))
        except RayTaskError as error:
            if isinstance(error.cause, PoolscoreError):
                raise error.cause from error
            raise ConfigError(f"plan --preview: {what_failed(error.cause)}") from error
        except RayError as error:
            raise StoppedError(f"plan --preview: its worker died: {one_line(error)}") from error
        return previewed

    def _ready(self) -> list[RayWorker]:
        return [worker for worker in self._workers.values() if worker.starting is None]

    def _has_place(self, worker: RayWorker) -> bool:
        alone = any(task.shard.index in self._suspects for _, task in worker.given)
        return len(worker.given) < IN_FLIGHT and not alone

    def _send(self, worker: RayWorker) -> None:
        """Send what was given; a suspect only once it is alone."""
        for i, (ref, task) in enumerate(worker.given):
            if ref is None and (i == 0 or task.shard.index not in self._suspects):
                worker.given[i] = worker.actor.do.remote(task), task

    def _look_around(self) -> list[Leaving]:
        """Follow the cluster: machines that came, that are gone, and that are about to be taken away."""
        now = self._clock()
        if now - self._looked < LOOK:
            return []
        self._looked = now
        nodes, going = machines(), draining()
        usable = [node for name, node in nodes.items() if name not in going and name not in self._refused]
        staying = [worker for worker in self._workers.values() if not worker.leaving]
        leaving = [self._leave(worker) for worker in staying if worker.node in going]
        for worker in list(self._workers.values()):
            if worker.node is not None and worker.node not in nodes:
                self._lose(worker, "its node is gone", with_machine=True)
            elif worker.leaving and not worker.given:
                self._lose(worker, "its node is being drained")
            elif worker.starting is not None and worker.node is not None and now - worker.placed > START_SECONDS:
                reason = f"it was not ready after {START_SECONDS:.0f} s"
                self._elastic.died_at_start(reason, others=bool(self._ready()))
                self._lose(worker, reason)
        self._grow(usable)
        self._elastic.require_workers(sum(worker.node is not None for worker in self._workers.values()), usable)
        return leaving

    def _leave(self, worker: RayWorker) -> Leaving:
        worker.leaving = True
        return Leaving(worker.number, "its node is being drained")

    def _grow(self, nodes: Sequence[Node]) -> None:
        """Start the workers that are wanting; those without a place wait in Ray, where an autoscaler sees them."""
        staying = [worker for worker in self._workers.values() if not worker.leaving]
        wanted = min(self._elastic.wanted(nodes), self._most or sys.maxsize)
        for _ in range(wanted - len(staying) if self._elastic.may_start() else 0):
            self._start_worker(nodes)
        for worker in [worker for worker in staying if worker.node is None][: max(0, len(staying) - wanted)]:
            _kill(self._workers.pop(worker.number))

    def _start_worker(self, nodes: Sequence[Node]) -> None:
        number, self._next = self._next, self._next + 1
        ask = self._elastic.ask(nodes)
        options: dict[str, Any] = {"num_cpus": ask.cpus, "num_gpus": ask.gpus, "max_concurrency": IN_FLIGHT}
        if self._refused:
            options["label_selector"] = {"ray.io/node-id": f"!in({','.join(sorted(self._refused))})"}
        job = self._job.with_cores(ask.cpus, bool(ask.gpus))
        actor: Any = ray.remote(max_restarts=0, max_task_retries=0, **options)(Actor).remote()
        logs = log.form_of_log(), log.bound()
        starting = actor.start.remote(job, f"worker-{number}", self._not_on_path, *logs)
        self._workers[number] = RayWorker(number, actor, actor.node.remote(), starting)

    def _answered(self, worker: RayWorker, ref: Any) -> list[Event]:
        """Nothing, where the worker was found dead by another of its references."""
        if worker.number not in self._workers:
            return []
        try:
            if ref == worker.placing:
                worker.placing, worker.node, worker.placed = None, ray.get(ref), self._clock()
                return []
            if ref == worker.starting:
                return [self._started(worker)]
            return self._finished(worker, ref)
        except RayTaskError:
            raise
        except RayError as error:  # the actor or its node died, or Ray killed it for its memory
            with_machine, told_to_go = machine_died(error), was_told_to_go(error)
            if worker.starting is not None and not with_machine and not told_to_go:
                self._elastic.died_at_start(how_it_died(error), others=bool(self._ready()))
            self._lose(worker, how_it_died(error), blame=not told_to_go, with_machine=with_machine)
            return []

    def _started(self, worker: RayWorker) -> Event:
        try:
            profile = ray.get(worker.starting)
        except RayTaskError as error:
            if isinstance(error.cause, PoolscoreError):
                raise error.cause from error
            raise ConfigError(f"a worker cannot start: {what_failed(error.cause)}") from error
        worker.starting = None
        self._elastic.started()
        return Joined(worker.number, profile)

    def _finished(self, worker: RayWorker, ref: Any) -> list[Event]:
        task = next(task for reference, task in worker.given if reference == ref)
        try:
            event: Event = Done(task, ray.get(ref))
        except RayTaskError as error:
            if isinstance(error.cause, BrokenDevice):  # the process lives, but all that it is given would fail
                self._lose(worker, str(error.cause))
                return []
            event = what_became(task, error.cause)
        worker.given.remove((ref, task))
        self._send(worker)
        return [event]

    def _lose(self, worker: RayWorker, reason: str, blame: bool = True, with_machine: bool = False) -> None:
        """Give a worker up, which may only be out of reach; a late report of its is not heard."""
        del self._workers[worker.number]
        _kill(worker)
        at_work = [task for ref, task in worker.given if ref is not None]
        if with_machine:
            self._took_along.update(task.shard.index for task in at_work)
            blame = blame and any(self._took_along[task.shard.index] > SPOT for task in at_work)
        if not blame or worker.leaving or not at_work:
            self._lost.append(Lost(worker.number, None, tuple(task for _, task in worker.given), reason))
        elif len(at_work) == 1:
            self._suspects.add(at_work[0].shard.index)
            unsent = tuple(task for ref, task in worker.given if ref is None)
            self._lost.append(Lost(worker.number, at_work[0], unsent, reason))
        else:
            # Which of them it died of cannot be known: none is blamed, and each is scored with no other beside it.
            self._suspects.update(task.shard.index for task in at_work)
            self._lost.append(Lost(worker.number, None, tuple(task for _, task in worker.given), reason))
        self._looked = -math.inf  # another may be wanted


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


def _kill(worker: RayWorker) -> None:
    """A process that does not react is killed by Ray 5 s later."""
    with suppress(RayError):  # what is gone needs no killing
        ray.kill(worker.actor)
