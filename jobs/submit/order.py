"""What travels to the cluster: the configuration, poolscore's own code and the user's.

The configuration goes in a file of a package of its own, which Ray unpacks on the machines of the job and puts on their
path: so no part of it stands in a command line, the environment or the job's metadata.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from poolscore.engine.config import AUTO, Config, FunctionDecode, parse_config, with_paths
from poolscore.engine.errors import ConfigError
from poolscore.engine.run.limits import moment_of, parse_deadline

PACKAGE, FILE = "poolscore_order", "order.json"
PARTS = ("engine", "jobs", "kernels")  # of poolscore
STOP_SECONDS = 60  # that a job has to end in good order once it is told to; Ray's own default is 3
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def order_of(config: Config, *, fresh: bool, must_resume: bool) -> dict[str, Any]:
    """What the driver is told; `config_of` reads it."""
    data = config.model_dump(mode="json")
    data["run"] |= {"address": None, "batch_size": "auto" if config.run.batch_size == AUTO else config.run.batch_size}
    if config.run.deadline is not None:
        data["run"]["deadline"] = _here(config.run.deadline)
    folder = config.submit.working_dir
    return {"config": data, "working_dir": folder, "fresh": fresh, "must_resume": must_resume}


def config_of(order: Mapping[str, Any], cwd: Path) -> Config:
    """The configuration, on the cluster. What lies in the working directory that travelled is taken from there; other
    paths are the machines' own.

    Args:
        cwd: of the job.
    """
    config = parse_config(order["config"])
    if order["working_dir"] is None:
        return config
    sent = None if _URI.match(order["working_dir"]) else Path(order["working_dir"])

    def in_copy(path: str) -> str:
        if sent is None or _URI.match(path) or not Path(path).is_relative_to(sent):
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


def runtime_env(config: Config, order: Mapping[str, Any], staging: Path) -> dict[str, Any]:
    """Ray's runtime environment of the job.

    Args:
        staging: an empty folder, needed until the job is submitted.

    Raises:
        ConfigError: something that is to travel is not there.
    """
    wanted = config.submit
    modules = [_write_order(order, staging)]
    if wanted.bring == "package":
        modules += _own_package(staging)
    for path in wanted.py_modules:
        _require_there("submit.py_modules", path)
    modules += [*wanted.py_modules, *users_modules(config)]
    env: dict[str, Any] = {
        "py_modules": modules,
        "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS), **wanted.env_vars},
    }
    if wanted.working_dir is not None:
        _require_there("submit.working_dir", wanted.working_dir)
        env["working_dir"] = wanted.working_dir
    if wanted.pip:
        env["pip"] = list(wanted.pip)
    return env


def users_modules(config: Config) -> list[str]:
    """Modules and packages in `model.path` that the configuration names, and that do not travel otherwise."""
    path, folder = Path(config.model.path), config.submit.working_dir
    if folder is not None and path.is_relative_to(folder):
        return []
    travelling = {Path(module).stem for module in config.submit.py_modules}
    named = dict.fromkeys(name for name in _named(config) if name not in travelling)
    places = [place for name in named if (place := _module_in(path, name)) is not None]
    return [str(place) for place in places if not _is_installed(place)]


def _module_in(path: Path, name: str) -> Path | None:
    """The package or file that Python would import from a folder."""
    if (path / name / "__init__.py").is_file():
        return path / name
    return next((place for place in (path / f"{name}.py", path / name) if place.exists()), None)


def _named(config: Config) -> Iterator[str]:
    """Top-level modules that the configuration names."""
    decoders = config.pool.named_inputs().values()
    names = [decode.function for decode in decoders if isinstance(decode, FunctionDecode)]
    if not config.model.is_file:
        names.append(config.model.source)
    for name in names:
        if (top := name.partition(":")[0].partition(".")[0]) not in ("", "poolscore"):
            yield top


def _is_installed(place: Path) -> bool:
    """Whether Python here would take another module of that name, which is installed."""
    spec = find_spec(place.stem)
    return spec is not None and spec.origin is not None and not Path(spec.origin).is_relative_to(place.parent)


def _own_package(staging: Path) -> list[str]:
    """A clean copy of poolscore as it is installed here, editable or not, with its version."""
    package = staging / "poolscore"
    for part in PARTS:
        spec = find_spec(f"poolscore.{part}")
        assert spec is not None
        assert spec.submodule_search_locations is not None
        source = next(iter(spec.submodule_search_locations))
        shutil.copytree(source, package / part, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    about = distribution("poolscore")
    info = staging / f"poolscore-{about.version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(about.read_text("METADATA") or "", encoding="utf-8")
    return [str(package), str(info)]


def _write_order(order: Mapping[str, Any], staging: Path) -> str:
    folder = staging / PACKAGE
    folder.mkdir()
    (folder / FILE).write_text(json.dumps(order), encoding="utf-8")
    return str(folder)


def _require_there(key: str, path: str) -> None:
    if not _URI.match(path) and not Path(path).exists():
        raise ConfigError(f"{key}: there is no {path}")


def _here(deadline: str) -> str:
    """A time of day is this machine's, wherever the job runs."""
    given = parse_deadline(deadline)
    return deadline if isinstance(given, timedelta) else moment_of(given, datetime.now().astimezone()).isoformat()
