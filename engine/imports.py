"""Names given as `package.module:attribute`."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from poolscore.engine.errors import ConfigError


def add_to_path(folder: str) -> None:
    """Let modules be imported from `folder`, behind everything that is installed."""
    if folder not in sys.path:
        sys.path.append(folder)
        importlib.invalidate_caches()


def import_name(name: str, key: str) -> Any:
    """The object that `package.module:attribute` names.

    Args:
        name: what to import.
        key: the configuration key it was given under, for the error.

    Raises:
        ConfigError: the form is wrong, the module does not import, or it has no such attribute.
    """
    module_name, colon, attribute = name.partition(":")
    if not (module_name and colon and attribute):
        raise ConfigError(f"{key}: '{name}' is not of the form package.module:name")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(
            f"{key}: cannot import '{module_name}' ({error}); looked in model.path and sys.path"
        ) from error
    except Exception as error:
        raise ConfigError(f"{key}: importing '{module_name}' fails: {type(error).__name__}: {error}") from error
    if not hasattr(module, attribute):
        raise ConfigError(f"{key}: module '{module_name}' has no '{attribute}'")
    return getattr(module, attribute)
