"""Values as text for people, and text as HTML. What comes from pool, configuration or journal passes through `esc`."""

from __future__ import annotations

import html
import math
from typing import Any

import pyarrow as pa

from poolscore.engine.words import amount

NBSP = "\u00a0"
LIMIT = 200  # characters of one value; ids and messages may be of any length

# Control characters, and those that turn the direction of the text around them.
_UNSEEN = dict.fromkeys([*range(32), *range(127, 160), 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)])
_REPLACED = str.maketrans({**dict.fromkeys(_UNSEEN, "�"), 9: " ", 10: " ", 13: " "})


def esc(value: object, limit: int = LIMIT) -> str:
    """`value` as HTML text or attribute, shortened in its middle to `limit` characters."""
    return html.escape(shortened(str(value), limit).translate(_REPLACED), quote=True)


def key(kind: str, name: str) -> str:
    """A colour of a drawing and what it stands for; both are our own words."""
    return f'<span class="named"><span class="key {kind}"></span>{NBSP}{name}</span>'


def shortened(text: str, limit: int) -> str:
    """Beginning and end of a long text: paths differ at their end, messages at their beginning."""
    if len(text) <= limit:
        return text
    head = (limit - 1) * 2 // 3
    return f"{text[:head]}…{text[len(text) - (limit - 1 - head) :]}"


def column_texts(column: pa.ChunkedArray[Any] | pa.Array[Any]) -> list[str]:
    """A column as text, not yet escaped: bytes, and text that is not valid UTF-8, as hex; null as '–'.

    Args:
        column: of any type; short, because it becomes Python objects.
    """
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    known_text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    if pa.types.is_string(column.type):
        column = column.cast(pa.binary())  # Arrow does not check what a file calls text, Python does
    elif pa.types.is_large_string(column.type):
        column = column.cast(pa.large_binary())
    elif pa.types.is_temporal(column.type):
        column = column.cast(pa.string())  # as Python objects, nanoseconds would need pandas
    return [_text(value, known_text) for value in column]


def _text(scalar: pa.Scalar[Any], known_text: bool) -> str:
    try:
        value: Any = scalar.as_py()
    except ValueError:  # bad text somewhere inside a list or struct
        return "(not valid text)"
    if value is None:
        return "–"
    if isinstance(value, bytes):
        if known_text:
            try:
                return value.decode()
            except UnicodeDecodeError:
                pass
        return f"0x{value[:LIMIT].hex()}"
    return number(value) if isinstance(value, float) else str(value)


def number(value: float) -> str:
    """Four significant digits."""
    if not math.isfinite(value):
        return str(value)
    if value == 0:
        return "0"
    return f"{value:#.4g}".rstrip(".") if 1e-4 <= abs(value) < 1e5 else f"{value:.3e}"


def count(value: int) -> str:
    """1234567 as 1,234,567."""
    return f"{value:,}"


def short(value: int) -> str:
    """A round number: '10,000', '1 M'."""
    return f"{value // 10**6:,}{NBSP}M" if value >= 10**6 else count(value)


def rows(value: int) -> str:
    """'1 row', '1,234 rows'."""
    return amount(value, "row")


def percent(part: float, whole: float) -> str:
    """A share; what is more than nothing is not shown as nothing."""
    if not whole:
        return "–"
    share = 100 * part / whole
    if 0 < share < 0.1:
        return f"< 0.1{NBSP}%"
    return f"{share:.1f}{NBSP}%"


def duration(seconds: float) -> str:
    """'0.41 s', '3 min 20 s', '7 h 05 min'."""
    if seconds < 60:
        return f"{seconds:.2g}{NBSP}s" if seconds < 10 else f"{seconds:.0f}{NBSP}s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def size(number_of_bytes: int) -> str:
    """'160 kB', '2.4 GB'."""
    value = float(number_of_bytes)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f}{NBSP}{unit}" if unit == "bytes" or value >= 10 else f"{value:.1f}{NBSP}{unit}"
        value /= 1000
    return f"{value:.1f}{NBSP}TB"
