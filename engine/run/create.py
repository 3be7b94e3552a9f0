"""A run begins in an empty directory; an old one is moved out of its way."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import chain, count
from pathlib import Path
from typing import Any

from poolscore.engine.config import Config
from poolscore.engine.errors import ConfigError, StoppedError
from poolscore.engine.pool.plan import Plan
from poolscore.engine.run.directory import (
    BAD_FILES,
    FORMAT,
    PLAN,
    RUN,
    RUNNING,
    RunDirectory,
    as_json,
    now,
    redacted,
    write_json,
)
from poolscore.engine.run.journal import require_no_driver
from poolscore.engine.run.totals import Totals
from poolscore.engine.storage.base import Storage
from poolscore.engine.storage.open import open_storage
from poolscore.engine.storage.uri import local_path


def create_run(
    root: str,
    config: Config,
    version: str,
    plan: Plan,
    identity: Mapping[str, Any],
    extends: Sequence[Mapping[str, str]] = (),
    outputs: int | None = None,
) -> RunDirectory:
    """Start a run in an empty directory.

    Args:
        extends: place and id of the runs that it goes on with, the latest first.
        outputs: of the model, where they are known.

    Raises:
        StoppedError: another job started one there at the same moment.
    """
    patience = config.run.storage_patience
    storage = open_storage(root, patience)
    info = {
        "format": FORMAT,
        "poolscore": version,
        "id": secrets.token_hex(8),
        "status": RUNNING,
        "created": now(),
        "updated": now(),
        "seed": config.passes.seed,
        "config": redacted(config.model_dump(mode="json")),
        "identity": redacted(dict(identity)),
        **({"extends": list(extends)} if extends else {}),
        "pool": {
            "digest": plan.digest,
            "rows": plan.rows,
            "shards": len(plan.shards),
            "files": plan.files,
            "bytes": plan.bytes,
            "passed_over": plan.passed_over,
            "bad_files": len(plan.unreadable),
        },
        "outputs": outputs,
        "profile": None,  # the first; older readers know of no other
        "profiles": {},
        "totals": asdict(Totals()),
    }
    if not storage.create(RUN, as_json(info)):
        raise StoppedError(f"{root}: another job started a run there at this moment; choose another run.dir, or wait")
    write_plan(storage, plan)  # after run.json: of several jobs that begin here, one alone comes so far
    return RunDirectory(root, plan, patience)


def write_plan(storage: Storage, plan: Plan) -> None:
    """Write a run's plan, and the files that it left out as unreadable."""
    if plan.unreadable:
        write_json(storage, BAD_FILES, dict(plan.unreadable))
    storage.publish(PLAN, lambda file: file.write(plan.to_parquet()))


def set_aside(root: str) -> str:
    """Move an old run out of the way, for --fresh; nothing is deleted. Returns where it went.

    Raises:
        StoppedError: a driver works on it.
        ConfigError: it cannot be moved. In object storage nothing can, at once; a copy that is stopped half-way would
            leave two halves of a run.
    """
    path = local_path(root)
    if path is None:
        raise ConfigError(
            f"--fresh: {root} holds a run, and object storage cannot move it aside; choose another run.dir, or move it "
            "yourself"
        )
    root = str(path)
    require_no_driver(open_storage(root))
    base = f"{root}.old-{time.strftime('%Y%m%d-%H%M%S')}"
    to = next(name for name in chain([base], (f"{base}-{i}" for i in count(2))) if not Path(name).exists())
    try:
        Path(root).rename(to)
    except OSError as error:  # such as a mount point
        raise ConfigError(
            f"--fresh: {root} cannot be moved aside ({error.strerror}); choose another run.dir"
        ) from error
    return to
