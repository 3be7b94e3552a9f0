"""Two results of `poolscore bench` side by side."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from poolscore.engine.config_text import one_line
from poolscore.engine.errors import ConfigError
from poolscore.jobs.bench.point import PARTS
from poolscore.jobs.bench.sweep import FORMAT

ENVIRONMENT = ("cpu", "cores", "gpu", "python", "packages", "commit")
FOLLOWING = {"price_per_million_rows": ("price_per_hour",), "hours": ("pool_rows", "workers")}  # of equal ones

Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Point(BaseModel):
    """What of a point is compared or shown beside it."""

    passes: int
    batch: int
    rows_per_second: Rate
    rounds: Annotated[list[Rate], Field(min_length=1)]
    stage_rows_per_second: dict[str, Rate]
    idle_share: float
    batch_ms: dict[str, Annotated[float, Field(ge=0)]]
    shard_rows: int
    price_per_hour: float | None
    price_per_million_rows: float | None
    pool_rows: int | None
    workers: int
    hours: float | None


class _Result(BaseModel):
    environment: dict[str, Any]
    subject: dict[str, Any]
    points: list[_Point]


def read_result(path: Path) -> dict[str, Any]:
    """A result that `poolscore bench --out` wrote.

    Raises:
        ConfigError: it is none.
    """
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"bench --compare: {path} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise ConfigError(f"bench --compare: {path} is no JSON ({one_line(error)})") from error
    no_result = f"bench --compare: {path} is no result of `poolscore bench --out` of this version"
    if not isinstance(result, dict) or result.get("format") != FORMAT:
        raise ConfigError(f"{no_result}; measure again")
    try:
        _Result.model_validate(result)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{no_result} ({'.'.join(map(str, first['loc']))}: {first['msg']})") from error
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
    return {"differs": dict(_differences(a, b)), "points": [_compared(one, other) for one, other in shared]}


def _place(point: Mapping[str, Any]) -> tuple[int, int]:
    return point["passes"], point["batch"]


def _compared(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    both = {name: [a[name], b[name]] for name in ("rows_per_second", "idle_share", "shard_rows")}
    stages = a["stage_rows_per_second"], b["stage_rows_per_second"]
    parts = a["batch_ms"], b["batch_ms"]
    return {
        "passes": a["passes"],
        "batch": a["batch"],
        **both,
        "ratio": round(b["rows_per_second"] / a["rows_per_second"], 3),
        "rounds_apart": _apart(a["rounds"], b["rounds"]),
        "stages": {name: [rate, stages[1][name]] for name, rate in stages[0].items() if name in stages[1]},
        "time_of_parts": {
            part: round(parts[1][part] / parts[0][part], 3) for part in PARTS if parts[0].get(part) and part in parts[1]
        },
        **{
            name: [a[name], b[name]]
            for name, given in FOLLOWING.items()
            if None not in (a[name], b[name]) and all(a[one] == b[one] for one in given)
        },
    }


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
                        yield key if name == "job" else f"{name}.{key}", [one.get(key), other.get(key)]
            elif one != other:
                yield name, [one, other]
