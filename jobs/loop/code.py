"""What a training does, as far as it is written in the user's own files. Needs no torch."""

from __future__ import annotations

import ast
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from importlib.util import resolve_name
from pathlib import Path
from types import ModuleType

_LIBRARIES = tuple(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "purelib", "platlib"))
_INSTALLED = {"site-packages", "dist-packages"}


def digest_of_files(module: str) -> str:
    """SHA-256, 32 digits, over the file of a module and those of the modules that it imports, and so on; comments and
    layout apart. What is loaded by now counts, so no module that a function imports once it is called; nor do
    libraries that are installed."""
    found: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        loaded = sys.modules.get(name)
        file = None if loaded is None else _file_of_user(loaded)
        if loaded is None or file is None or name in found:
            continue
        with suppress(OSError, SyntaxError, ValueError):
            tree = ast.parse(file.read_bytes())
            found[name] = ast.dump(tree)
            waiting += _imported(tree, loaded.__package__)
    return sha256("\0".join(f"{name}\0{found[name]}" for name in sorted(found)).encode()).hexdigest()[:32]


def _imported(tree: ast.Module, package: str | None) -> Iterator[str]:
    """Names of modules with those of their packages, and of what is in modules, as that may be one."""
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            with suppress(ImportError):  # of a file that tries first whether it lies in a package
                base = resolve_name("." * node.level + (node.module or ""), package)
                names = [f"{base}.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            yield from (".".join(parts[:end]) for end in range(1, len(parts) + 1))


def _file_of_user(module: ModuleType) -> Path | None:
    file = getattr(module, "__file__", None)
    if not file or not file.endswith(".py") or module.__name__.partition(".")[0] == "poolscore":
        return None
    path = Path(file).resolve()
    installed = not _INSTALLED.isdisjoint(path.parts) or any(path.is_relative_to(folder) for folder in _LIBRARIES)
    return None if installed else path
