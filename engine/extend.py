"""A pool that has gained files: `score --extend RUN` scores those alone, and an unfinished run goes on without them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from poolscore.engine.config import Config
from poolscore.engine.errors import ConfigError
from poolscore.engine.identity import OF_ROWS, Identity, differences, in_words
from poolscore.engine.pool.changes import changes, files_of, named
from poolscore.engine.pool.files import PoolFiles
from poolscore.engine.pool.plan import Plan
from poolscore.engine.run.directory import PLAN, RunDirectory, redacted
from poolscore.engine.storage.uri import local_path
from poolscore.engine.words import amount


@dataclass(frozen=True)
class Extension:
    """What a run extends."""

    base: RunDirectory
    runs: Sequence[
        Mapping[str, str]
    ]  # `extends` of run.json: place and id of the base, then of the runs that it extends
    notes: Sequence[str]  # what must not be overlooked

    @property
    def id(self) -> str:
        """Of the base."""
        return self.runs[0]["id"]

    def require_same_rule(self, here: Identity, config: Config) -> None:
        """Raise ConfigError, naming what differs, unless the base's rows were scored as this job will score its own."""
        there: dict[str, Any] = self.base.info["identity"]
        if different := differences(here, there, config, OF_ROWS):
            told = ", ".join(in_words(key, here, there) for key in different)
            raise ConfigError(
                f"--extend: {self.base.storage.root} differs in {told}, so its scores and new ones could not be "
                "compared; score the whole pool anew, or with the settings of that run"
            )


def extend(pool: PoolFiles, config: Config, run_dir: str) -> tuple[PoolFiles, Extension]:
    """The files of the pool that neither the run in `run_dir` nor the runs that it extends have in their plans.

    A file is known by its path. One that went is told of: nothing is lost with it, though a selection may still name
    its rows. One that has another size by now is refused: its new rows would never be scored.

    Raises:
        ConfigError: there is nothing new, or what that run scored is not in the pool as it was.
    """
    runs = _chain(run_dir)
    base = runs[0]
    if _absolute(base.storage.root) == _absolute(config.run.dir):
        raise ConfigError(f"--extend: {run_dir} is run.dir itself; a run that extends another has a run.dir of its own")
    if config.pool.sample is not None:
        raise ConfigError("--extend: what pool.sample left out cannot be told from what is new; leave pool.sample out")
    known = {path: size for run in runs for path, size in files_of(run.plan).items()}
    found = changes(known, _sizes_of(pool))
    if found.resized:
        raise ConfigError(
            f"--extend: {named(found.resized)} changed since {run_dir} scored it; write new rows to files of their "
            "own, or score the whole pool anew"
        )
    if len(found.gone) == len(known):
        raise ConfigError(f"--extend: none of the {len(known):,} files of {run_dir} is in pool.uri; is it its pool?")
    if not found.came:
        raise ConfigError(f"--extend: the pool has gained no file since {run_dir}; there is nothing to score")
    new = _without(pool, known)
    told = [{"run": redacted(_absolute(run.storage.root)), "id": str(run.info["id"])} for run in runs]
    return new, Extension(base, told, [*_gone(found.gone), *filter(None, map(_missing, runs))])


def without_new_files(
    pool: PoolFiles, plan: Plan, begun: RunDirectory, cut: Callable[[PoolFiles], Plan]
) -> tuple[PoolFiles, Plan, list[str]]:
    """The pool as it was when an unfinished run was begun, if it has only gained files since: a run goes on with what
    it has, and what came is left for `--extend`. Any other pool is given back as it is.

    Args:
        plan: of the pool as it is.
        cut: makes a plan of a pool.

    Returns:
        the pool, its plan, and the paths that are left out.
    """
    digest = begun.info["pool"].get("digest")
    if plan.digest == digest or PLAN not in begun.storage.names("") or begun.succeeded:
        return pool, plan, []
    found = changes(files_of(begun.plan), _sizes_of(pool))
    if not found.came or len(found.came) == len(pool):
        return pool, plan, []
    old = _without(pool, found.came)
    old_plan = cut(old)
    return (old, old_plan, list(found.came)) if old_plan.digest == digest else (pool, plan, [])


def _chain(run_dir: str) -> list[RunDirectory]:
    """The run and those that it extends, the latest first."""
    base = RunDirectory(run_dir)
    runs = [base]
    for earlier in base.info.get("extends", ()):
        try:
            run = RunDirectory(earlier["run"])
        except ConfigError as error:
            raise ConfigError(f"--extend: {run_dir} extends a run that cannot be read: {error}") from error
        if run.info["id"] != earlier["id"]:
            raise ConfigError(f"--extend: {run_dir} extends the run that was in {earlier['run']}, which holds another")
        runs.append(run)
    return runs


def _sizes_of(pool: PoolFiles) -> dict[str, int]:
    """Path → bytes of each file."""
    table = pool.table
    return dict(zip(table["path"].to_pylist(), table["bytes"].to_pylist(), strict=True))


def _without(pool: PoolFiles, paths: Collection[str]) -> PoolFiles:
    left_out = set(paths)
    kept = np.array([path not in left_out for path in pool.table["path"].to_pylist()])
    return replace(pool, table=pool.table.filter(pa.array(kept)))


def _gone(paths: Sequence[str]) -> list[str]:
    if not paths:
        return []
    return [f"{named(paths)} went since it was scored: a selection over both runs may still name its rows"]


def _missing(run: RunDirectory) -> str | None:
    missing = len(run.plan.shards) - len(run.reports())
    if not missing:
        return None
    return f"{run.storage.root} is not whole: it misses {amount(missing, 'shard')}, which this run does not score"


def _absolute(root: str) -> str:
    path = local_path(root)
    return root if path is None else str(Path(path).resolve())
