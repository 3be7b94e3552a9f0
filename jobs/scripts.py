"""`--json`: the result of a command as one JSON value on standard output, everything else on standard error.

The option itself is `AsJson` in jobs/cli/options.py, which sends to standard error what people read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def result(value: Any, indent: int | None = 2) -> None:
    """The result, on standard output."""
    print(json.dumps(_plain(value), indent=indent, allow_nan=False, default=str), flush=True)


def _plain(value: Any) -> Any:
    """As JSON has it: it knows neither NaN nor infinity, which become null; nor numbers of numpy."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
