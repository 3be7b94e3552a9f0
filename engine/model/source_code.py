"""What a model computes, as far as it is written in the user's own Python: repr tells its layers, not its forward."""

from __future__ import annotations

import ast
import inspect
import sys
import sysconfig
import textwrap
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

_LIBRARIES = tuple(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "purelib", "platlib"))


def code_digest(model: nn.Module) -> str:
    """SHA-256, 32 digits, over the source of the classes of its modules and of the functions and classes of the user's
    that they name, and so on; comments and layout apart. Installed libraries do not count: they have versions."""
    found: dict[str, str] = {}
    waiting: list[Any] = [type(module) for module in model.modules()]
    while waiting:
        code = waiting.pop()
        name = f"{code.__module__}.{code.__qualname__}"
        if name in found or _is_library(code):
            continue
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(code)))
        except (OSError, TypeError, SyntaxError):  # made without a file
            continue
        found[name] = ast.dump(tree)
        waiting += _named(tree, vars(sys.modules.get(code.__module__, ast)))
        waiting += getattr(code, "__bases__", ())
    return sha256("\0".join(f"{name}\0{found[name]}" for name in sorted(found)).encode()).hexdigest()[:32]


def _named(tree: ast.AST, names: dict[str, Any]) -> Iterator[Any]:
    """Classes and functions that the code names, also as `module.function`."""
    for node in ast.walk(tree):
        value: Any = None
        if isinstance(node, ast.Name):
            value = names.get(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module = names.get(node.value.id)
            value = getattr(module, node.attr, None) if isinstance(module, ModuleType) else None
        if inspect.isclass(value) or inspect.isfunction(value):
            yield value


def _is_library(code: Any) -> bool:
    try:
        file = Path(inspect.getfile(code)).resolve()
    except (OSError, TypeError):  # built in
        return True
    return any(file.is_relative_to(folder) for folder in _LIBRARIES) or "site-packages" in file.parts
