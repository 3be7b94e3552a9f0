"""Deadlines and hours of workers: how they are written, and when they are reached."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
import yaml

from poolscore.engine.config import Config
from poolscore.engine.errors import ConfigError
from poolscore.engine.run.limits import Limits, moment_of, parse_deadline

NOW = datetime(2026, 11, 22, 21, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("8h", 28_800), ("1h30m", 5_400), ("1h 30m", 5_400), ("90 min", 5_400), ("1.5h", 5_400), ("2d", 172_800)],
)
def test_a_duration_counts_from_now(text: str, seconds: int) -> None:
    assert moment_of(parse_deadline(text), NOW) == NOW + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("06:00Z", datetime(2026, 11, 23, 6, tzinfo=UTC)),
        ("22:15+00:00", datetime(2026, 11, 22, 22, 15, tzinfo=UTC)),
        ("21:30Z", datetime(2026, 11, 23, 21, 30, tzinfo=UTC)),
        ("2026-11-24T06:00+02:00", datetime(2026, 11, 24, 4, tzinfo=UTC)),
    ],
)
def test_a_time_of_day_is_the_next_one(text: str, moment: datetime) -> None:
    assert moment_of(parse_deadline(text), NOW) == moment


@pytest.mark.parametrize("text", ["soon", "8", "0h", "8hx", "8h 5", "2026-11-23", "25:00", "-1h"])
def test_what_is_no_deadline_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"a duration such as '8h'.*got '{text}'"):
        parse_deadline(text)


def test_yaml_reads_dates_as_they_are_meant(digit_config: Callable[..., Config]) -> None:
    assert digit_config(run={"deadline": datetime(2099, 1, 1, 6)}).run.deadline == "2099-01-01T06:00:00"
    with pytest.raises(ConfigError, match=r"run\.deadline: must be a duration .*, got 'tomorrow'"):
        digit_config(run={"deadline": "tomorrow"})
    with pytest.raises(ConfigError, match=r"run\.deadline: must be a duration .*, in quotes, got 1080"):
        digit_config(run={"deadline": yaml.safe_load("18:00")})
    with pytest.raises(ConfigError, match=r"run\.deadline: must be a duration .*, in quotes, got 2026-11-23"):
        digit_config(run={"deadline": yaml.safe_load("2026-11-23")})


def test_a_duration_goes_by_a_clock_that_cannot_jump_and_a_time_of_day_by_the_time_of_day() -> None:
    clock, ticks = [NOW.timestamp()], [0.0]
    duration, morning = (Limits(text, None, 0.0, lambda: clock[0], lambda: ticks[0]) for text in ("8h", "06:00Z"))
    assert duration.until == morning.until - timedelta(minutes=30)
    ticks[0] += 8 * 3600 - 1
    clock[0] += 86_400  # somebody sets the clock
    assert duration.reached() is None
    assert morning.reached() == "run.deadline (06:00Z) was reached"
    clock[0] -= 2 * 86_400
    assert morning.reached() is None
    ticks[0] += 1
    assert duration.reached() == "run.deadline (8h) was reached"


def test_hours_of_workers_are_added_up() -> None:
    ticks = [0.0]
    hours = Limits(None, 2.0, spent=3600.0, monotonic=lambda: ticks[0])
    for workers, minutes in ((0, 10), (2, 15), (1, 29)):
        hours.count(workers)
        ticks[0] += 60 * minutes
    hours.count(1)
    assert hours.reached() is None  # 1 h before, 2 · 15 min and 29 min now
    ticks[0] += 61
    hours.count(1)
    assert hours.reached() == "run.max_gpu_hours (2) are spent"


def test_a_limit_that_is_reached_before_the_start_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"run\.deadline: 2020-01-01T00:00 has passed, it is .*; give a later one"):
        Limits("2020-01-01T00:00", None)
    with pytest.raises(ConfigError, match=r"has taken 3\.00 hours of workers, and 2 are allowed in all; raise it"):
        Limits(None, 2.0, spent=3 * 3600)
