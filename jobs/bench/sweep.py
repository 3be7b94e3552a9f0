"""`poolscore bench`: a network, built in or the user's own, measured over numbers of passes and batch sizes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from poolscore.engine.config import Config, load_config, parse_config
from poolscore.engine.config.run import AUTO
from poolscore.engine.errors import ConfigError
from poolscore.engine.run.directory import redacted
from poolscore.engine.worker.profile import choose_device
from poolscore.jobs.bench.environment import environment
from poolscore.jobs.bench.measure import measure
from poolscore.jobs.bench.point import Budget, Point
from poolscore.jobs.bench.pools import write_pool
from poolscore.jobs.bench.subjects import SUBJECTS, config_of, subject_of

FORMAT = 2
ROWS = {"cuda": 20_000, "cpu": 1024}  # of the pool of a built-in subject: of the largest batch 'auto', at least
ROWS_LIGHT = {"cuda": 2_000_000, "cpu": 65_536}  # where a row is a few hundred bytes
PICTURE = (375, 500)
SWEPT = ("passes.count", "run.batch_size", "passes.rows_per_call")  # in which points differ


@dataclass(frozen=True)
class Asked:
    """What to measure."""

    subject: str  # built-in network, or a configuration file
    passes: Sequence[int] = ()  # T; none: the configuration's
    batches: Sequence[int] = ()  # rows; none: the configuration's, or 'auto'
    precision: str | None = None
    device: str | None = None
    threads: int | None = None
    rows: int | None = None  # of a round, at least; None: as many as some seconds take
    rounds: int = 3
    size: int | None = None  # edge of a picture for the network, tokens, features
    picture: tuple[int, int] | None = None  # height and width of the JPEGs; default: PICTURE
    pixels: bool = False  # uint8 tensors instead of JPEGs
    price: float | None = None  # of an hour of a worker
    pool_rows: int | None = None
    workers: int | None = None
    overrides: Sequence[str] = ()  # of the configuration


def run_bench(asked: Asked, on_result: Callable[[dict[str, Any]], None] = lambda result: None) -> dict[str, Any]:
    """Measure every combination of passes and batch sizes.

    Args:
        on_result: called with the result as far as it is there: before the first point, and with each.

    Returns:
        format, environment, subject, points; see Point.to_json.

    Raises:
        ConfigError: a setting is wrong.
        StoppedError: a shard could not be scored.
    """
    built_in = asked.subject in SUBJECTS or not _is_file(asked.subject)
    with tempfile.TemporaryDirectory(prefix="poolscore-bench-") as folder:
        config, about = (_built_in if built_in else _of_user)(asked, Path(folder))
        subject = {"name": asked.subject, **about, **_settings(config)}
        points: list[dict[str, Any]] = []

        def result() -> dict[str, Any]:
            return {"format": FORMAT, "environment": environment(), "subject": subject, "points": points}

        on_result(result())
        for passes in dict.fromkeys(asked.passes or [config.passes.count]):
            for batch in dict.fromkeys(asked.batches or [config.run.batch_size]):
                point = measure(_at(config, passes, batch), asked.rows, asked.rounds, made_up=built_in)
                subject["job"] = redacted({k: v for k, v in point.identity.items() if k not in SWEPT})
                points.append(point.to_json(_budget(asked, config, None if built_in else point)))
                if batch == AUTO and point.batch != points[0]["batch"]:
                    points[-1]["notes"].append(
                        f"'auto' chose batches of {point.batch} here, of {points[0]['batch']} at T = "
                        f"{points[0]['passes']}; give --batch to compare numbers of passes by themselves"
                    )
                on_result(result())
        return result()


def _is_file(name: str) -> bool:
    return Path(name).suffix in (".yaml", ".yml") or Path(name).is_file()


def _settings(config: Config) -> dict[str, Any]:
    """What decides of the speed and is no part of a job's identity; and what a reader asks first."""
    device = choose_device(config)
    passes, run = config.passes, config.run
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "precision": passes.precision,
        "masks": passes.masks,
        "threads": run.threads,
        "decode_threads": run.decode_threads,
        "read_ahead": run.read_ahead,
        "shard_rows": run.shard_rows,
    }


def _budget(asked: Asked, config: Config, own: Point | None) -> Budget:
    price = config.prices.gpu_hour if asked.price is None else asked.price
    rows = own.pool_rows if asked.pool_rows is None and own is not None else asked.pool_rows
    return Budget(price, rows, asked.workers or (own and config.run.workers) or 1)


def _at(config: Config, passes: int, batch: int) -> Config:
    return config.model_copy(
        update={
            "passes": config.passes.model_copy(update={"count": passes}),
            "run": config.run.model_copy(update={"batch_size": batch}),
        }
    )


def _of_user(asked: Asked, folder: Path) -> tuple[Config, dict[str, Any]]:
    if asked.size is not None or asked.pixels or asked.picture is not None:
        raise ConfigError(
            "bench: --size, --picture and --pixels are for built-in networks; the configuration says what rows are"
        )
    config = load_config(asked.subject, _overrides(asked))
    run = config.run.model_copy(update={"dir": str(folder / "run"), "executor": "local"})
    select = config.select.model_copy(update={"k": 1})  # nothing is selected here
    kinds = sorted({decode.kind for decode in config.pool.named_inputs().values()})
    about = {"about": config.model.source, "input": ", ".join(kinds), "pool": redacted(config.pool.uri)}
    return config.model_copy(update={"run": run, "select": select}), about


def _built_in(asked: Asked, folder: Path) -> tuple[Config, dict[str, Any]]:
    subject = subject_of(asked.subject, asked.size, asked.pixels)
    if asked.picture is not None and subject.kind != "jpeg":
        raise ConfigError(f"bench --picture: {asked.subject} takes {subject.kind} here, no JPEGs; leave it out")
    if asked.workers is not None and asked.pool_rows is None:
        raise ConfigError("bench --workers: they count for the hours of a pool; give --pool-rows, too")
    pool = folder / "pool"
    config = parse_config(
        config_of(subject, str(pool), str(folder / "run")), folder, f"bench {asked.subject}", _overrides(asked)
    )
    height, width = asked.picture or PICTURE
    rows = (ROWS_LIGHT if subject.kind == "features" else ROWS)[choose_device(config).type]
    each = write_pool(pool, subject, max(rows, *asked.batches, config.run.batch_size), height, width)
    about: dict[str, Any] = {"about": subject.about, "input": subject.kind, "size": subject.size}
    if subject.kind == "jpeg":
        about["picture"] = f"{width}x{height}"
    return config, {**about, "bytes_per_row": round(each)}


def _overrides(asked: Asked) -> list[str]:
    """Of the configuration: what `--set` says, then the options that have its settings."""
    named: Mapping[str, object] = {
        "passes.precision": asked.precision,
        "run.device": asked.device,
        "run.threads": asked.threads,
    }
    return [*asked.overrides, *(f"{key}={value}" for key, value in named.items() if value is not None)]
