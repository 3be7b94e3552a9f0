"""Two results of `poolscore bench` side by side."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from poolscore.engine.errors import ConfigError
from poolscore.jobs.bench.sweep import FORMAT

ENVIRONMENT = ("cpu", "cores", "gpu", "python", "packages", "commit")
PARTS = ("prefix", "suffix", "reduce")


def read_result(path: Path) -> dict[str, Any]:
    """A result that `poolscore bench --out` wrote.

    Raises:
        ConfigError: it is none.
    """
    try:
        result = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"bench --compare: {path} cannot be read ({error})") from error
    if not isinstance(result, dict) or result.get("format") != FORMAT or "points" not in result:
        raise ConfigError(f"bench --compare: {path} is no result of `poolscore bench --out` of this version")
    return result


def compare(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    """Ratios of b to a at each point that both have, and what else differs.

    Raises:
        ConfigError: they have no point in common.
    """
    of_a = {_place(point): point for point in a["points"]}
    shared = [(of_a[_place(point)], point) for point in b["points"] if _place(point) in of_a]
    if not shared:
        raise ConfigError("bench --compare: the two results have no passes and batch size in common")
    return {
        "differs": dict(_differences(a, b)),
        "points": [
            {
                "passes": one["passes"],
                "batch": one["batch"],
                "rows_per_second": [one["rows_per_second"], other["rows_per_second"]],
                "ratio": round(other["rows_per_second"] / one["rows_per_second"], 3),
                "rounds_apart": _apart(one["rounds"], other["rounds"]),
                "time_of_parts": {
                    part: round(other["batch_ms"][part] / one["batch_ms"][part], 3)
                    for part in PARTS
                    if one["batch_ms"][part]
                },
            }
            for one, other in shared
        ],
    }


def _place(point: Mapping[str, Any]) -> tuple[int, int]:
    return point["passes"], point["batch"]


def _apart(a: list[float], b: list[float]) -> bool:
    """Whether every round of one was faster than every round of the other: otherwise the ratio may be chance."""
    return max(a) < min(b) or max(b) < min(a)


def _differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[tuple[str, list[Any]]]:
    for part, names in (("subject", {*a["subject"], *b["subject"]}), ("environment", ENVIRONMENT)):
        for name in sorted(names):
            one, other = a[part].get(name), b[part].get(name)
            if isinstance(one, dict) and isinstance(other, dict):
                for key in sorted({*one, *other}):
                    if one.get(key) != other.get(key):
                        yield f"{name}.{key}", [one.get(key), other.get(key)]
            elif one != other:
                yield name, [one, other]
