"""The driver of a job on Ray is killed while its workers work, and the run is resumed."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from chaos.job import Job, Workshop
from chaos.same import Outcome, same

from poolscore.engine.run.directory import SELECTION, SUCCESS


def test_the_driver_is_killed_mid_shard(workshop: Workshop, job: Callable[..., Job], reference: Outcome) -> None:
    there = job()
    workshop.pace(0.005)
    with there.running() as driver:
        driver.until_journalled(3)
        workshop.hold(2, but=driver.pid)
        driver.send(signal.SIGKILL)
        done = there.journalled()
    assert 3 <= done < 24
    workshop.pace(0)
    there.finish("--resume")
    same(there.run_dir, reference)


@pytest.mark.chaos
def test_the_driver_is_killed_while_it_plans(workshop: Workshop, job: Callable[..., Job], reference: Outcome) -> None:
    there = job()
    workshop.say("hold 0")
    with there.running() as driver:
        assert workshop.hold(1) == [driver.pid]
        driver.send(signal.SIGKILL)
    workshop.pace(0)
    there.finish()
    same(there.run_dir, reference)


@pytest.mark.chaos
@pytest.mark.parametrize("thing", ["plan.parquet", "run.json", "_log", "scores", SELECTION, SUCCESS, "report.html"])
def test_the_driver_is_killed_when_something_appears(
    thing: str, workshop: Workshop, job: Callable[..., Job], reference: Outcome
) -> None:
    there = job()
    with there.running() as driver:
        driver.until(thing, lambda: (Path(there.run_dir) / thing).exists())
        driver.send(signal.SIGKILL)
    there.finish()
    same(there.run_dir, reference)


@pytest.mark.chaos
@pytest.mark.parametrize("round_", range(3))
def test_the_driver_is_killed_at_random(
    workshop: Workshop, job: Callable[..., Job], reference: Outcome, rng: random.Random, round_: int
) -> None:
    there = job()
    workshop.pace(0.005)
    for _ in range(4):
        with there.running() as driver:
            end = time.monotonic() + rng.uniform(2, 14)
            driver.until("its time", lambda end=end: time.monotonic() > end or driver.process.poll() is not None)
            driver.send(signal.SIGKILL)
    workshop.pace(0)
    there.finish()
    same(there.run_dir, reference)
