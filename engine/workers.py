"""The fleet of one call, whatever it is of."""

from __future__ import annotations

from dataclasses import replace

from poolscore.engine import log
from poolscore.engine.config import Config
from poolscore.engine.prepare import Prepared
from poolscore.engine.run.directory import RunDirectory
from poolscore.engine.run.fleet import Fleet, LocalFleet
from poolscore.engine.run.limits import Limits
from poolscore.engine.run.live import at_stage
from poolscore.engine.worker.job import Job


class Workers:
    """The fleet of one call, opened when it is needed first.

    Args:
        epoch: of the journal; None: nothing is written.
        limits: count for how long workers are held.
    """

    def __init__(self, run: RunDirectory, prepared: Prepared, epoch: int | None, limits: Limits) -> None:
        self._run, self._prepared, self._epoch, self._limits = run, prepared, epoch, limits
        self._fleet: Fleet | None = None

    def fleet(self) -> Fleet:
        """The fleet; its model is compiled by what is left in the run directory."""
        if self._fleet is None:
            if self._prepared.compile_on:
                self._prepared = self._compiled_elsewhere()
            job = replace(self._prepared.job, run_id=self._run.info["id"], epoch=self._epoch)
            if job.compiled is not None:
                self._run.storage.publish(job.compiled.name, lambda file: file.write(self._prepared.programs))
            self._fleet = _fleet(self._prepared.config, job)
        return self._fleet

    def _compiled_elsewhere(self) -> Prepared:
        from poolscore.engine.run.ray_compile import compile_on_cluster  # Ray is not needed for a run in this process

        before = self._prepared
        self._run.update(live=at_stage("compiling"))
        made = compile_on_cluster(before.job, before.compile_on, self._limits.count)
        if made.because is not None:
            log.LOG.warning("the workers run without torch.compile: %s", made.because)
        job = replace(before.job, compiled=made.artefact)
        return replace(before, job=job, programs=made.programs, uncompiled_because=made.because, compile_on=())

    def close(self) -> None:
        """Let it go; the next call of `fleet` opens another."""
        fleet, self._fleet = self._fleet, None
        if fleet is not None:
            fleet.close()
        self._limits.count(0)


def _fleet(config: Config, job: Job) -> Fleet:
    if config.run.executor == "local":
        return LocalFleet(job)
    from poolscore.engine.run.ray_fleet import RayFleet  # Ray is not needed for a run in this process

    return RayFleet(job)
