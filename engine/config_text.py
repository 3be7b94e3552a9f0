"""The text of a configuration: YAML without its traps, and one line about what is wrong in it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml
from pydantic import ValidationError


class _Loader(yaml.SafeLoader):
    """YAML without two of its traps: a key given twice is an error, and 1e-3 is a number."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := [key for i, key in enumerate(keys) if key.value in [other.value for other in keys[:i]]]:
            problem = f"the key '{twice[0].value}' is given twice"
            raise yaml.constructor.ConstructorError(problem=problem, problem_mark=twice[0].start_mark)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)
NOT_YAML = (yaml.YAMLError, ValueError, RecursionError)  # ValueError: not UTF-8, or a date such as 2024-99-99


def from_yaml(text: str) -> Any:
    """What a YAML text says; raises one of NOT_YAML."""
    return yaml.load(text, _Loader)


def first_message(error: ValidationError, data: Any) -> str:
    """The first place that is wrong, with what every branch of a union has to say to it."""
    messages: dict[str, list[str]] = {}
    for entry in error.errors():
        message = re.sub("^Value error, ", "", entry["msg"]).replace("a valid tuple", "a list")
        if entry["type"] == "missing":
            message = "is required"
        elif entry["type"] == "model_type":
            message = f"expected a section, with settings of its own below it, got {_short(entry['input'])}"
        elif entry["type"] not in ("value_error", "kind"):
            message = f"{message}, got {_short(entry['input'])}"
        messages.setdefault(_place(entry, data), []).append(message)
    (where, first), *more = messages.items()
    others = f" (and {len(more)} more)" if more else ""
    return one_line(f"{where}: " * bool(where) + "; or: ".join(dict.fromkeys(first)) + others)


def _place(entry: Mapping[str, Any], data: Any) -> str:
    """The key as the user wrote it. Pydantic also names the branch of a union, which is no key."""
    keys: list[str] = []
    for i, part in enumerate(entry["loc"], start=1):
        listed = isinstance(data, list | tuple) and isinstance(part, int) and part < len(data)
        if listed or (isinstance(data, Mapping) and part in data):
            data = data[part]
        elif not (entry["type"] == "missing" and i == len(entry["loc"])):
            continue
        keys.append(str(part))
    return ".".join(keys)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}…"


def one_line(text: object) -> str:
    """`text` without its line breaks."""
    return " ".join(str(text).split())
