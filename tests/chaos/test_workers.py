"""Workers die, hang and answer late; the driver goes on by itself."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable

import pytest
from chaos.job import Driver, Job, Workshop, enough, send
from chaos.same import Outcome, same

SHARDS = 24


def _kill_at_random(workshop: Workshop, job: Job, reference: Outcome, rng: random.Random, kills: int) -> None:
    workshop.pace(0.01)
    with job.running() as driver:
        killed = 0
        while killed < kills and job.journalled() < SHARDS - 8:
            # Not at its end: a shard that kills its worker three times is held to be the culprit.
            victims = driver.until("a worker is at work", lambda: workshop.at_work(but=driver.pid))
            time.sleep(rng.uniform(0, 0.6))
            send(rng.choice(victims), signal.SIGKILL)
            killed += 1
        assert killed > kills // 2, f"only {killed} workers could be killed before the run was through"
        workshop.pace(0)
        driver.wait()
    same(job.run_dir, reference)


def test_workers_are_killed(
    workshop: Workshop, job: Callable[..., Job], reference: Outcome, rng: random.Random
) -> None:
    _kill_at_random(workshop, job(), reference, rng, kills=3)


@pytest.mark.chaos
@pytest.mark.parametrize("round_", range(5))
def test_workers_are_killed_many_times(
    workshop: Workshop, job: Callable[..., Job], reference: Outcome, rng: random.Random, round_: int
) -> None:
    _kill_at_random(workshop, job(workers=3), reference, rng, kills=10)


def _halt_one(workshop: Workshop, there: Job, driver: Driver) -> int:
    """Halt a worker that has finished a shard, while shards are left."""
    workers = driver.until("two workers", lambda: enough(workshop.at_work(but=driver.pid), 2))
    driver.until_journalled(there.journalled() + 6)
    send(workers[0], signal.SIGSTOP)
    return workers[0]


@pytest.mark.chaos
def test_a_worker_hangs(workshop: Workshop, job: Callable[..., Job], reference: Outcome) -> None:
    """What it has is handed out a second time."""
    there = job()
    workshop.pace(0.02)
    with there.running() as driver:
        _halt_one(workshop, there, driver)
        workshop.pace(0)
        driver.wait()
    same(there.run_dir, reference)


@pytest.mark.chaos
def test_a_shard_is_scored_twice(workshop: Workshop, job: Callable[..., Job], reference: Outcome) -> None:
    """A worker was halted for a while, and finishes what another has finished meanwhile."""
    there = job()
    workshop.pace(0.02)
    with there.running() as driver:
        halted = _halt_one(workshop, there, driver)
        workshop.pace(0)
        driver.until_journalled(SHARDS - 1)  # one of the two that it has
        send(halted, signal.SIGCONT)
        driver.wait()
    same(there.run_dir, reference)


@pytest.mark.chaos
def test_all_workers_hang(workshop: Workshop, job: Callable[..., Job], reference: Outcome) -> None:
    """Nobody is left to help: they are killed when their time is over, and replaced."""
    there = job(shard_timeout=15)
    workshop.pace(0.02)
    with there.running() as driver:
        _halt_one(workshop, there, driver)
        for pid in workshop.at_work(but=driver.pid):
            send(pid, signal.SIGSTOP)
        workshop.pace(0)
        driver.wait()
    same(there.run_dir, reference)
