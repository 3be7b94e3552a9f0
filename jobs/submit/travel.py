"""Code that travels to the cluster: poolscore's own, and what the configuration names of the user's.

Ray's client sends folders; single files, and copies without what Python leaves beside, go in archives of ours. Their
bytes depend on what is in them alone, so that a cluster that has one is not sent it again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from poolscore.engine.config import Config, FunctionDecode
from poolscore.engine.errors import ConfigError
from poolscore.jobs.submit.order import FILE, PACKAGE, URI

PARTS = ("engine", "jobs", "kernels")  # of poolscore
STAYS = (".?*", "__pycache__", "*.pyc")  # of folders, as .gitignore has it: .env, .git and their kind
STOP_SECONDS = 60  # that a job has to end in good order once it is told to; Ray's own default is 3
Upload = Callable[[Path], str]  # an archive → its URI on the cluster


def runtime_env(config: Config, order: Mapping[str, Any], staging: Path, upload: Upload) -> dict[str, Any]:
    """Ray's runtime environment of the job; archives are uploaded, folders are named for Ray's client to do so.

    Args:
        staging: an empty folder.

    Raises:
        ConfigError: something that is to travel is not there.
    """
    wanted = config.submit
    for key, paths in (("working_dir", [wanted.working_dir]), ("py_modules", wanted.py_modules)):
        for path in paths:
            if path is not None and not re.match(URI, path) and not Path(path).exists():
                raise ConfigError(f"submit.{key}: there is no {path}")
    whole = [path for path in wanted.py_modules if re.match(URI, path) or Path(path).is_dir()]
    single = [Path(path) for path in wanted.py_modules if path not in whole]
    if wrong := [path for path in single if path.suffix != ".py"]:
        raise ConfigError(
            f"submit.py_modules: {wrong[0]} is no folder and no .py file; unpack it, or name a package in submit.pip"
        )
    named = users_modules(config)
    whole += [str(module) for module in named if module.is_dir()]
    told = {f"{PACKAGE}/{FILE}": json.dumps(order).encode()}
    for module in [*single, *(module for module in named if module.is_file())]:
        told |= _files_of(module, module.name)
    modules = [upload(_archive(staging / "order.zip", told)), *whole]
    if wanted.bring == "package":
        modules.append(upload(_archive(staging / "poolscore.zip", own_package())))
    env: dict[str, Any] = {
        "py_modules": modules,
        "excludes": list(STAYS),
        "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS), **wanted.env_vars},
    }
    if wanted.working_dir is not None:
        env["working_dir"] = wanted.working_dir
    if wanted.pip:
        env["pip"] = list(wanted.pip)
    return env


def users_modules(config: Config) -> list[Path]:
    """Modules and packages in `model.path` that the configuration names, and that do not travel otherwise."""
    path, folder = Path(config.model.path), config.submit.working_dir
    if folder is not None and path.is_relative_to(folder):
        return []
    travelling = {Path(module).stem for module in config.submit.py_modules}
    named = dict.fromkeys(name for name in _named(config) if name not in travelling)
    places = [place for name in named if (place := _module_in(path, name)) is not None]
    return [place for place in places if not _is_installed(place)]


def own_package() -> dict[str, bytes]:
    """The files of poolscore as it is installed here, editable or not, with its version."""
    files: dict[str, bytes] = {}
    for part in PARTS:
        spec = find_spec(f"poolscore.{part}")
        assert spec is not None
        assert spec.submodule_search_locations is not None
        files |= _files_of(Path(next(iter(spec.submodule_search_locations))), f"poolscore/{part}")
    number = version("poolscore")
    required = [f"Requires-Dist: {requirement}" for requirement in requires("poolscore") or ()]
    about = "\n".join(["Metadata-Version: 2.1", "Name: poolscore", f"Version: {number}", *required, ""])
    return files | {f"poolscore-{number}.dist-info/METADATA": about.encode()}


def _named(config: Config) -> Iterator[str]:
    """Top-level modules that the configuration names."""
    decoders = config.pool.named_inputs().values()
    names = [decode.function for decode in decoders if isinstance(decode, FunctionDecode)]
    if not config.model.is_file:
        names.append(config.model.source)
    for name in names:
        if (top := name.partition(":")[0].partition(".")[0]) not in ("", "poolscore"):
            yield top


def _module_in(path: Path, name: str) -> Path | None:
    """The package or file that Python would import from a folder."""
    if (path / name / "__init__.py").is_file():
        return path / name
    return next((place for place in (path / f"{name}.py", path / name) if place.exists()), None)


def _is_installed(place: Path) -> bool:
    """Whether Python here would take another module of that name, which is installed."""
    spec = find_spec(place.stem)
    return spec is not None and spec.origin is not None and not Path(spec.origin).is_relative_to(place.parent)


def _files_of(place: Path, name: str) -> dict[str, bytes]:
    """Name in the archive → bytes, of a file or of a folder without what Python leaves there."""
    if place.is_file():
        return {name: place.read_bytes()}
    files = sorted(path for path in place.rglob("*") if path.is_file())
    kept = (path for path in files if "__pycache__" not in path.parts and path.suffix != ".pyc")
    return {f"{name}/{path.relative_to(place).as_posix()}": path.read_bytes() for path in kept}


def _archive(path: Path, files: Mapping[str, bytes]) -> Path:
    with ZipFile(path, "w", ZIP_DEFLATED) as archive:
        for name in sorted(files):
            about = ZipInfo(name)  # of 1980, whenever it was written
            about.compress_type = ZIP_DEFLATED
            archive.writestr(about, files[name])
    return path
