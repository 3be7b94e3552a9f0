"""Figures of a benchmark in words, for the terminal and the page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from poolscore.jobs.show.terminal import duration

NAMES = {  # of what is in a result, as people say it; what is missing here is not told
    "about": "network",
    "device": "device",
    "precision": "precision",
    "masks": "masks",
    "threads": "threads of the model",
    "pool": "pool",
    "input": "input",
    "size": "its size",
    "picture": "pictures",
    "bytes_per_row": "bytes of a row",
    "shard_rows": "rows of a shard",
}


def facts_of(result: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What was measured, and on what machine."""
    subject, where = result["subject"], result["environment"]
    for key, name in NAMES.items():
        if (value := subject.get(key)) is not None:
            yield name, f"{value:,}" if isinstance(value, int) else str(value)
    yield "machine", f"{where['cpu']}, {where['cores']} cores"


def number(value: float) -> str:
    """With three digits at least, and thousands apart."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def in_hours(hours: float) -> str:
    """Or in what fits."""
    return duration(hours * 3600)


def share(value: float) -> str:
    """As percent, however small."""
    return f"{value:.0%}" if value >= 0.1 else f"{value * 100:.2g}%"


def by_bytes(value: float) -> str:
    """In the unit that fits."""
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{number(value)} {unit}"
        value /= 1000
    return f"{number(value)} TB"
