"""The run that is in the run directory already, and what of a job's preparation it makes needless."""

from __future__ import annotations

from collections.abc import Sequence

from poolscore.engine.config import Config
from poolscore.engine.pool.plan import Plan
from poolscore.engine.run.directory import RUN, RunDirectory, redacted
from poolscore.engine.storage.open import open_storage


def begun_run(config: Config) -> RunDirectory | None:
    """The run that is in the run directory."""
    return RunDirectory(config.run.dir) if RUN in open_storage(config.run.dir).names("") else None


def unfinished(plan: Plan, begun: RunDirectory | None) -> Sequence[int]:
    """Shards that the run has not scored yet, or all if there are none: rows that are scored are not read again."""
    every = range(len(plan.shards))
    if begun is None or begun.info["pool"].get("digest") != plan.digest:
        return every
    done = begun.reports().keys()
    return [index for index in every if index not in done] or every


def asked_as_before(config: Config, plan: Plan, begun: RunDirectory | None) -> bool:
    """Whether the run asks for as many rows of the same pool: then they were counted when it was begun."""
    if begun is None or begun.info["pool"].get("digest") != plan.digest:
        return False
    there = begun.info["config"]
    return (there["select"]["k"], there["pool"]) == (config.select.k, redacted(config.pool.model_dump(mode="json")))
