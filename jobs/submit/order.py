"""What a job's driver is told: the configuration, as it is here and as it is on the cluster.

It travels in a file that Ray unpacks on the machines of the job, in a folder on their path: no part of it stands in a
command line, the environment or the job's metadata.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from poolscore.engine.config import AUTO, Config, parse_config, with_paths
from poolscore.engine.errors import ConfigError
from poolscore.engine.run.limits import moment_of, parse_deadline

PACKAGE, FILE = "poolscore_order", "order.json"
URI = r"[A-Za-z][A-Za-z0-9+.-]+://"


def order_of(
    config: Config, *, fresh: bool = False, must_resume: bool = False, extends: str | None = None
) -> dict[str, Any]:
    """What the driver is told; `config_of` reads it."""
    data = config.model_dump(mode="json")
    data["run"] |= {"address": None, "batch_size": "auto" if config.run.batch_size == AUTO else config.run.batch_size}
    if config.run.deadline is not None:
        data["run"]["deadline"] = _here(config.run.deadline)
    folder = config.submit.working_dir
    if extends is not None and not re.match(URI, extends):
        extends = str(Path(extends).absolute())
    how = {"fresh": fresh, "must_resume": must_resume, "extends": extends}
    return {"config": data, "working_dir": folder, "how": how}


def config_of(order: Mapping[str, Any], cwd: Path) -> Config:
    """The configuration, on the cluster. What lies in the working directory that travelled is taken from there; other
    paths are the machines' own.

    Args:
        cwd: of the job.
    """
    config = parse_config(order["config"])
    if order["working_dir"] is None:
        return config
    sent = None if re.match(URI, order["working_dir"]) else Path(order["working_dir"])

    def in_copy(path: str) -> str:
        if sent is None or re.match(URI, path) or not Path(path).is_relative_to(sent):
            return path
        copy = cwd / Path(path).relative_to(sent)
        return str(copy) if copy.exists() or any(cwd.glob(str(copy.relative_to(cwd)))) else path

    moved = with_paths(config, in_copy)
    path = moved.model.path if moved.model.path != config.model.path else str(cwd)
    return moved.model_copy(update={"run": config.run, "model": moved.model.model_copy(update={"path": path})})


def read_order() -> dict[str, Any]:
    """The order of this job, on the cluster.

    Raises:
        ConfigError: there is none, because nobody submitted this process.
    """
    for folder in map(Path, sys.path):
        if (found := folder / PACKAGE / FILE).is_file():
            order: dict[str, Any] = json.loads(found.read_text(encoding="utf-8"))
            return order
    raise ConfigError("there is no order here; `poolscore submit` starts this on a cluster")


def _here(deadline: str) -> str:
    """A time of day is this machine's, wherever the job runs."""
    given = parse_deadline(deadline)
    return deadline if isinstance(given, timedelta) else moment_of(given, datetime.now().astimezone()).isoformat()
