"""From YAML and `--set` to a validated configuration with absolute paths, or to one line about what is wrong."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from poolscore.engine.config.decode import Decode, TextDecode
from poolscore.engine.config.loop import LoopConfig
from poolscore.engine.config.section import Section
from poolscore.engine.config.whole import Config
from poolscore.engine.config_text import NOT_YAML, first_message, from_yaml, one_line
from poolscore.engine.errors import ConfigError
from poolscore.engine.scores import require_score
from poolscore.engine.selection.methods import require_method


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read, override, resolve and validate a configuration file.

    Args:
        path: YAML file. Relative paths in it are relative to its folder.
        overrides: "section.key=value" with the value in YAML, as `--set` takes them; paths among them are relative to
            the file as well.

    Raises:
        ConfigError: one line that names the file, the key and what to do.
    """
    path = Path(path)
    try:
        data = from_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except NOT_YAML as error:
        raise ConfigError(f"{path}: not valid YAML ({one_line(error)})") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected sections such as 'pool:' and 'model:'; `poolscore init` writes an example")
    return parse_config(data, base=path.parent, where=str(path), overrides=overrides)


def parse_config(
    data: Mapping[str, Any], base: str | Path = ".", where: str = "configuration", overrides: Sequence[str] = ()
) -> Config:
    """Validate a configuration given as nested mappings; relative paths are resolved against `base`.

    Args:
        overrides: see `load_config`.

    Raises:
        ConfigError: one line that names `where`, the key and what to do.
    """
    given = deepcopy(dict(data)) if overrides else dict(data)
    for override in overrides:
        _set(given, override)
    try:
        config = Config.model_validate(given)
        passes, task = config.passes, config.model.task
        require_score(config.selected_by, task, passes.count)
        require_method(config.select.method, task, passes.count, passes.masks == "shared")
        config.select.caps(config.pool, config.model)
        return _resolve(config, Path(base).resolve())
    except ValidationError as error:
        raise ConfigError(f"{where}: {first_message(error, given)}") from error
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def _set(data: dict[str, Any], override: str) -> None:
    name, equals, value = override.partition("=")
    keys = name.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(f"--set {override}: expected section.key=value, such as --set select.k=500")
    for key in keys[:-1]:
        if data.get(key) is None:
            data[key] = {}
        data = data[key]
        if not isinstance(data, dict):
            raise ConfigError(f"--set {override}: '{key}' is a value, not a section")
    try:
        data[keys[-1]] = from_yaml(value)
    except NOT_YAML as error:
        raise ConfigError(f"--set {override}: the value is not valid YAML ({one_line(error)})") from error


def with_paths(config: Config, change: Callable[[str], str]) -> Config:
    """A configuration with all its paths and URIs changed, those of the sections `submit` and `loop` apart."""

    def changed(section: Section, *names: str) -> Any:
        given = {name: getattr(section, name) for name in names}
        return section.model_copy(update={name: path and change(path) for name, path in given.items()})

    def decoded(decode: Decode) -> Any:
        return changed(decode, "tokenizer") if isinstance(decode, TextDecode) else decode

    pool = changed(config.pool, "uri")
    excluded = tuple(map(change, pool.exclude_lists))
    exclude = excluded[0] if isinstance(pool.exclude, str) else excluded or None
    inputs = {name: decoded(decode) for name, decode in pool.inputs.items()}
    return config.model_copy(
        update={
            "pool": pool.model_copy(update={"decode": decoded(pool.decode), "inputs": inputs, "exclude": exclude}),
            "model": changed(config.model, "path", "weights", *(["source"] if config.model.is_file else [])),
            "check": config.check and changed(config.check, "labelled"),
            "shortlist": changed(config.shortlist, "labelled"),
            "run": changed(config.run, "dir"),
        }
    )


def _resolve(config: Config, base: Path) -> Config:
    def absolute(path: str) -> str:
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", path):
            return path
        try:
            return str(base / Path(path).expanduser())
        except RuntimeError as error:
            raise ConfigError(f"'{path}': there is no such user") from error

    resolved, submit = with_paths(config, absolute), config.submit
    travels = {
        "working_dir": submit.working_dir and absolute(submit.working_dir),
        "py_modules": tuple(map(absolute, submit.py_modules)),
    }
    of_loop = config.loop and _with_loop_paths(config.loop, absolute)
    return resolved.model_copy(update={"submit": submit.model_copy(update=travels), "loop": of_loop})


def _with_loop_paths(loop: LoopConfig, change: Callable[[str], str]) -> LoopConfig:
    oracle = loop.label.oracle
    if oracle is not None and oracle.table is not None:
        oracle = oracle.model_copy(update={"table": change(oracle.table)})
    label = loop.label.model_copy(update={"oracle": oracle})
    return loop.model_copy(
        update={"dir": loop.dir and change(loop.dir), "labelled": change(loop.labelled), "label": label}
    )
