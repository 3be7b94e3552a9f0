"""The pool of a job: its files, whether they have the columns that are asked for, and the plan of its shards."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial

from poolscore.engine.config import Config, RunConfig
from poolscore.engine.errors import ConfigError
from poolscore.engine.extend import Extension, extend, without_new_files
from poolscore.engine.imports import add_to_path
from poolscore.engine.inputs import build_decoders
from poolscore.engine.pool.choice import RowChoice
from poolscore.engine.pool.cut import make_plan
from poolscore.engine.pool.files import PoolFiles
from poolscore.engine.pool.find import FooterCache, StartWorkers, Workers, find_files
from poolscore.engine.pool.plan import Plan
from poolscore.engine.run.directory import RunDirectory
from poolscore.engine.scores import SCORES
from poolscore.engine.selection.groups import require_groups
from poolscore.engine.worker.job import decoded_columns

OWN_COLUMNS = {
    "row_id",
    "key",
    "id",
    "prediction",
    "confidence",
    "rank",
    "score",
    "method",
    "score_name",
    "perturbed_score",
    "step",
    "gain",
    *SCORES,
}


@dataclass(frozen=True)
class Found:
    """What was found in the pool."""

    pool: PoolFiles
    plan: Plan
    choice: RowChoice  # which rows of the shards count
    extension: Extension | None  # the run that this job extends
    came: list[str]  # files that an unfinished run goes on without


def look_at_pool(
    config: Config, cache: FooterCache | None, extends: str | None = None, begun: RunDirectory | None = None
) -> Found:
    """Look at files and footers, and cut the pool into shards.

    Args:
        extends: a run directory: only files count that the run there has not.
        begun: the run that the job goes on with. Where it is not finished, files that came since do not count.

    Raises:
        ConfigError: the pool cannot be read, lacks a column that is asked for, or no row of it counts.
    """
    wanted = config.pool
    workers = _footer_workers(config.run)
    pool = find_files(wanted.uri, keep=wanted.filter, bad_files=wanted.bad_files, cache=cache, workers=workers)
    _check_columns(config, pool)
    extension = None
    if extends is not None:
        pool, extension = extend(pool, config, extends)
    cut = partial(make_plan, shard_rows=config.run.shard_rows, sample=wanted.sample, seed=config.passes.seed)
    plan, came = cut(pool), list[str]()
    if begun is not None:
        pool, plan, came = without_new_files(pool, plan, begun, cut)
    if not plan.rows and extension is not None:
        raise ConfigError(f"--extend: no row of the files that came since {extends} counts; there is nothing to score")
    if not plan.rows:
        raise ConfigError(
            f"pool.filter: by their statistics none of the {pool.rows} rows can match; look at names and values"
        )
    choice = replace(pool.choice, share=plan.share, seed=config.passes.seed)
    return Found(pool, plan, choice, extension, came)


def look_at_labelled(config: Config) -> PoolFiles | None:
    """The files of the labelled rows that the wiring is checked with, if there are any. To be looked at before a model
    is built.

    Raises:
        ConfigError: they cannot be read, or lack a column that is asked for.
    """
    if config.check is None:
        return None
    add_to_path(config.model.path)
    files = find_files(config.check.labelled, "check.labelled")
    columns = dict.fromkeys(decoded_columns(config), "check.labelled")
    files.require_columns({**columns, config.check.label: "check.label"})
    return files


def _footer_workers(run: RunConfig) -> StartWorkers | None:
    """The machines of an attached cluster; a Ray on this machine is no faster than threads."""
    address = run.address or os.environ.get("RAY_ADDRESS")
    if run.executor != "ray" or not address:
        return None

    def start() -> AbstractContextManager[Workers]:
        from poolscore.engine.selection.on_ray import ray_workers  # Ray is not needed for a pool of few files

        return ray_workers(address, "run.address")

    return start


def _check_columns(config: Config, pool: PoolFiles) -> None:
    asked = dict.fromkeys(config.pool.keep, "pool.keep")
    if config.pool.id is not None:
        asked[config.pool.id] = "pool.id"
    for name, decoder in build_decoders(config).items():
        key = f"pool.inputs.{name}" if name else "pool.input"
        asked |= dict.fromkeys(decoder.columns, key)
        pool.require_columns(dict.fromkeys(decoder.columns, key))
        decoder.check(pool.schema)
    pool.choice.check(pool.schema)
    pool.require_columns(asked | dict.fromkeys(pool.choice.columns, "pool.filter"))
    for name in set(config.select.max_per_group) & set(config.pool.keep):
        require_groups(name, pool.schema.field(name).type)
    if taken := sorted(set(config.pool.keep) & OWN_COLUMNS):
        raise ConfigError(f"pool.keep: '{taken[0]}' is a column that poolscore writes itself; rename it in the pool")
