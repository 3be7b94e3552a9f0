"""What a training does, as far as it is written in the user's own files. Needs no torch."""

from __future__ import annotations

import ast
import inspect
import sys
import sysconfig
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

_LIBRARIES = tuple(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "purelib", "platlib"))


def digest_of_files(function: Any) -> str:
    """SHA-256, 32 digits, over the file of a function and those of the modules that it imports, and so on; comments and
    layout apart. What is imported inside of a function, and installed libraries, do not count."""
    found: dict[str, str] = {}
    waiting = [inspect.getmodule(function)]
    while waiting:
        module = waiting.pop()
        file = None if module is None else _file_of_user(module)
        if module is None or file is None or module.__name__ in found:
            continue
        try:
            found[module.__name__] = ast.dump(ast.parse(file.read_bytes()))
        except (OSError, SyntaxError):
            continue
        waiting += [_home(value) for value in vars(module).values()]
    return sha256("\0".join(f"{name}\0{found[name]}" for name in sorted(found)).encode()).hexdigest()[:32]


def _home(value: Any) -> ModuleType | None:
    """The module that a name in a module is, or is from."""
    if isinstance(value, ModuleType):
        return value
    return sys.modules.get(value.__module__) if inspect.isfunction(value) or inspect.isclass(value) else None


def _file_of_user(module: ModuleType) -> Path | None:
    file = getattr(module, "__file__", None)
    if not file or not file.endswith(".py") or module.__name__.startswith("poolscore."):
        return None
    path = Path(file).resolve()
    installed = "site-packages" in path.parts or any(path.is_relative_to(folder) for folder in _LIBRARIES)
    return None if installed else path
