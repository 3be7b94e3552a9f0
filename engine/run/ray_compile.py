"""Compiling the model on a machine such as the workers have, where the driver's own has no such device: a driver on a
CPU node, and workers with GPUs. What comes back is what a driver with a GPU would have compiled itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, GetTimeoutError, RayTaskError

from poolscore.engine.errors import ConfigError, PoolscoreError, StoppedError
from poolscore.engine.pool.plan import Shard
from poolscore.engine.prepare.model import Compiled, compile_model
from poolscore.engine.prepare.rows import first_good_batch
from poolscore.engine.run.elastic import Ask, Elastic
from poolscore.engine.run.fleet import what_failed
from poolscore.engine.run.ray_actor import Actor
from poolscore.engine.run.ray_cluster import connect, machines
from poolscore.engine.worker.job import Job, build_scorer
from poolscore.engine.worker.profile import numeric_settings

ATTEMPTS = 3  # machines of a spot market may be taken away meanwhile
SECONDS = 1800.0  # a compiler that takes longer hangs


class Compiler(Actor):
    """Runs in a process of Ray's."""

    def compile(self, job: Job, shards: Sequence[Shard], not_on_path: Sequence[str]) -> Compiled:
        """Build the model on this machine's device, and compile it for the first batch of these shards."""
        self.leave_path(not_on_path)
        with numeric_settings(job.config.run.threads):
            scorer = build_scorer(job)
            rows = job.config.run.batch_size
            blocks = (block for shard in shards for block in scorer.reader.blocks(shard, rows) if len(block))
            return compile_model(scorer, first_good_batch(scorer.decoder, blocks))


def compile_on_cluster(job: Job, shards: Sequence[Shard], held: Callable[[int], None]) -> Compiled:
    """Compile the model of a job on a machine of the cluster that has room for a worker, as soon as there is one.

    Args:
        shards: that have rows to try it on.
        held: told how many workers' places are taken.

    Raises:
        ConfigError: the cluster has no place for a worker, or passes.compile insists and it does not compile.
        StoppedError: there was no free place for too long.
    """
    run, owned = job.config.run, not ray.is_initialized()
    if owned:
        connect(run.address)
    try:
        nodes = list(machines().values())
        elastic = Elastic(run, nodes, attached=True)
        if not elastic.on_gpu and not job.config.passes.compile:
            return Compiled()
        for _ in range(ATTEMPTS):
            try:
                return _compiled(job.with_cores((ask := elastic.ask(nodes)).cpus, bool(ask.gpus)), shards, ask, held)
            except (ActorDiedError, ActorUnavailableError):
                continue
        return _not(job, f"{ATTEMPTS} machines died while they compiled it")
    finally:
        held(0)
        if owned:
            ray.shutdown()


def _compiled(job: Job, shards: Sequence[Shard], ask: Ask, held: Callable[[int], None]) -> Compiled:
    run = job.config.run
    not_on_path = () if Path(job.config.model.path).resolve() == Path.cwd().resolve() else (str(Path.cwd()),)
    actor: Any = ray.remote(num_cpus=ask.cpus, num_gpus=ask.gpus, max_restarts=0)(Compiler).remote()
    try:
        try:
            ray.get(actor.node.remote(), timeout=run.wait_for_workers)
        except GetTimeoutError as error:
            raise StoppedError(
                f"the Ray cluster had no free place for a worker for {run.wait_for_workers:g} s "
                "(run.wait_for_workers); the same command goes on once it has"
            ) from error
        held(1)
        made: Compiled = ray.get(actor.compile.remote(job, shards, not_on_path), timeout=SECONDS)
        return made
    except GetTimeoutError:
        return _not(job, f"it took more than {SECONDS / 60:.0f} minutes")
    except RayTaskError as error:
        if isinstance(error.cause, PoolscoreError):
            raise error.cause from error
        return _not(job, what_failed(error.cause))
    finally:
        held(0)
        ray.kill(actor)


def _not(job: Job, because: str) -> Compiled:
    if job.config.passes.compile:
        raise ConfigError(f"passes.compile: the model cannot be compiled on the cluster ({because}); leave it out")
    return Compiled(because=because)
