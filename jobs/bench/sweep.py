"""`poolscore bench`: a network, built in or the user's own, measured over numbers of passes and batch sizes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from poolscore.engine.config import Config, load_config, parse_config
from poolscore.engine.errors import ConfigError
from poolscore.engine.profile import choose_device
from poolscore.jobs.bench.environment import environment
from poolscore.jobs.bench.measure import measure
from poolscore.jobs.bench.pools import write_pool
from poolscore.jobs.bench.subjects import config_of, subject_of

FORMAT = 1
ROWS = {"cuda": 20_000, "cpu": 400}  # of a round of a built-in subject
ROWS_LIGHT = {"cuda": 2_000_000, "cpu": 40_000}  # where a row is a few hundred bytes


@dataclass(frozen=True)
class Asked:
    """What to measure."""

    subject: str  # built-in network, or a configuration file
    passes: Sequence[int] = ()  # T; none: the configuration's
    batches: Sequence[int] = ()  # rows; none: the configuration's, or 'auto'
    precision: str | None = None
    device: str | None = None
    threads: int | None = None
    rows: int | None = None  # of a round
    rounds: int = 3
    size: int | None = None  # edge of a picture for the network, tokens, features
    picture: tuple[int, int] = (375, 500)  # height and width of the JPEGs
    pixels: bool = False  # uint8 tensors instead of JPEGs
    price: float | None = None  # of an hour of a worker
    pool_rows: int | None = None
    workers: int = 1
    overrides: Sequence[str] = ()  # of the configuration


def run_bench(asked: Asked, on_point: Callable[[dict[str, Any]], None] = lambda point: None) -> dict[str, Any]:
    """Measure every combination of passes and batch sizes.

    Args:
        on_point: called with each point as it is there.

    Returns:
        format, environment, subject, points; see Point.to_json.

    Raises:
        ConfigError: a setting is wrong.
        StoppedError: a shard could not be scored.
    """
    if Path(asked.subject).suffix in (".yaml", ".yml"):
        about, jobs = _of_user(asked)
    else:
        about, jobs = _built_in(asked)
    points = []
    with jobs as (config, rows):
        for passes in asked.passes or [config.passes.count]:
            for batch in asked.batches or [config.run.batch_size]:
                point = measure(_at(config, passes, batch), rows, asked.rounds)
                points.append(point.to_json(asked.price or config.prices.gpu_hour, asked.pool_rows, asked.workers))
                on_point(points[-1])
        device = str(choose_device(config))
        settings = {"precision": config.passes.precision, "masks": config.passes.masks, "threads": config.run.threads}
    return {
        "format": FORMAT,
        "environment": environment(),
        "subject": {"name": asked.subject, **about, "device": device, **settings},
        "points": points,
    }


def _at(config: Config, passes: int, batch: int) -> Config:
    return config.model_copy(
        update={
            "passes": config.passes.model_copy(update={"count": passes}),
            "run": config.run.model_copy(update={"batch_size": batch}),
        }
    )


def _of_user(asked: Asked) -> tuple[dict[str, Any], Any]:
    if asked.size is not None or asked.pixels:
        raise ConfigError("bench: --size and --pixels are for built-in networks; the configuration says what rows are")
    config = load_config(asked.subject, asked.overrides)

    @contextmanager
    def jobs() -> Iterator[tuple[Config, int]]:
        with tempfile.TemporaryDirectory(prefix="poolscore-bench-") as folder:
            run = {"dir": str(Path(folder) / "run"), "executor": "local", **_given(asked)}
            changed: dict[str, Any] = {"run": config.run.model_copy(update=run)}
            if asked.precision:
                changed["passes"] = config.passes.model_copy(update={"precision": asked.precision})
            mine = config.model_copy(update=changed)
            yield mine, asked.rows or ROWS[choose_device(mine).type]

    return {"about": "the user's own", "pool": config.pool.uri}, jobs()


def _built_in(asked: Asked) -> tuple[dict[str, Any], Any]:
    subject = subject_of(asked.subject, asked.size, asked.pixels)
    about: dict[str, Any] = {"about": subject.about, "input": subject.kind, "size": subject.size}

    @contextmanager
    def jobs() -> Iterator[tuple[Config, int]]:
        with tempfile.TemporaryDirectory(prefix="poolscore-bench-") as folder:
            pool, run_dir = Path(folder) / "pool", str(Path(folder) / "run")

            def parsed(rows: int) -> Config:
                data = config_of(subject, str(pool), run_dir, rows)
                data["run"] |= {"batch_size": "auto", **_given(asked)}
                data["passes"] = {"precision": asked.precision or "fp32"}
                return parse_config(data)

            device = choose_device(parsed(1)).type
            light = subject.kind == "features"
            rows = asked.rows or (ROWS_LIGHT if light else ROWS)[device]
            about["bytes_per_row"] = round(write_pool(pool, subject, rows, *asked.picture))
            about["picture"] = f"{asked.picture[1]}x{asked.picture[0]}" if subject.kind == "jpeg" else None
            yield parsed(rows), rows

    return about, jobs()


def _given(asked: Asked) -> dict[str, Any]:
    named = {"device": asked.device, "threads": asked.threads}
    return {name: value for name, value in named.items() if value is not None}
