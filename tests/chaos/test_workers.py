"""Workers die, hang and answer late; the driver goes on by itself."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable

import pytest
from chaos.job import Job, Workshop, send
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
