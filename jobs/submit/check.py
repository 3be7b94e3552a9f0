"""The first step of a job on the cluster, before pool and model are looked at: is all that it names there?"""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from glob import glob
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from pyarrow import fs

from poolscore.engine.config import Config, FunctionDecode, TextDecode
from poolscore.engine.errors import ConfigError
from poolscore.engine.imports import add_to_path, import_name
from poolscore.engine.run.directory import require_usable
from poolscore.engine.storage.filesystem import locate, reason, require_bucket, require_reachable
from poolscore.engine.storage.uri import local_path
from poolscore.jobs.submit.follow import CHECKED


def prepare_path(config: Config) -> None:
    """Import from what is installed, what travelled, and model.path: as the workers do (engine/run/ray_fleet.py)."""
    cwd = Path.cwd()
    if Path(config.model.path).resolve() != cwd.resolve():
        sys.path[:] = [folder for folder in sys.path if folder != str(cwd)]
    add_to_path(config.model.path)


def require_inputs(config: Config) -> None:
    """Check, in a moment, that results can be written and that files and modules are there.

    Raises:
        ConfigError: something is not there.
        StoppedError: another driver works on the run.
    """
    require_usable(config.run.dir)
    for key, uri in _files(config):
        require_there(key, uri)
    for key, name in _code(config):
        if find_spec(name.partition(":")[0].partition(".")[0]) is None:
            import_name(name, key)  # which says it


def check_here(config: Config) -> str:
    """Import the user's code.

    Returns:
        What was checked, in one line that `follow.py` waits for.

    Raises:
        ConfigError: it cannot be imported.
    """
    for key, name in _code(config):
        try:
            import_name(name, key)
        except ConfigError as error:
            if not isinstance(error.__cause__, ModuleNotFoundError):
                raise
            raise ConfigError(f"{error}; what it imports travels by submit.working_dir or submit.py_modules") from error
    names = [f"{name} imports" for _, name in _code(config)]
    told = [f"poolscore {version('poolscore')}", *names, "what it reads is there", "run.dir can be written"]
    return f"{CHECKED}{socket.gethostname()}: {', '.join(told)}"


def require_there(key: str, uri: str) -> None:
    """Refuse a file, folder or glob that this machine does not see.

    Raises:
        ConfigError: there is none, or storage does not answer.
    """
    path = local_path(uri)
    if path is not None:
        if path.exists() or glob(str(path)):  # noqa: PTH207 (patterns with roots)
            return
        raise ConfigError(
            f"{key}: there is no {uri} on the cluster's machine {socket.gethostname()}; give object storage, a folder "
            "that all machines share, or (files that are not large) put it into submit.working_dir"
        )
    require_reachable(uri)
    require_bucket(uri)
    if "*" in uri or key == "pool.uri":
        return  # a prefix, which is listed next
    at = locate(uri)
    try:
        found = at.filesystem.get_file_info(at.path).type
    except OSError as error:
        raise ConfigError(f"{key}: {uri} cannot be read ({reason(error)})") from error
    if found == fs.FileType.NotFound:
        raise ConfigError(f"{key}: there is no {uri}")


def _files(config: Config) -> Iterator[tuple[str, str]]:
    """All that the job reads, by its key."""
    model = config.model
    wanted = {
        "pool.uri": config.pool.uri,
        "model.source": model.source if model.is_file else None,
        "model.weights": model.weights,
        "check.labelled": config.check.labelled if config.check is not None else None,
        "shortlist.labelled": config.shortlist.labelled,
    }
    for decode in config.pool.named_inputs().values():
        if isinstance(decode, TextDecode):
            wanted[f"tokenizer of {decode.column}"] = decode.tokenizer
    yield from (("pool.exclude", uri) for uri in config.pool.exclude_lists)
    yield from ((key, uri) for key, uri in wanted.items() if uri is not None)


def _code(config: Config) -> Iterator[tuple[str, str]]:
    """What the job imports of the user's, by its key."""
    if not config.model.is_file:
        yield "model.source", config.model.source
    for decode in config.pool.named_inputs().values():
        if isinstance(decode, FunctionDecode):
            yield "decode.function", decode.function
