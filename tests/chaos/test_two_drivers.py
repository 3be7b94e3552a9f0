"""Two drivers of one run: a live one is left alone, one that was halted does no harm when it wakes up."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from chaos.job import Job, Workshop
from chaos.same import Outcome, same, same_results
from chaos.struck import in_child, said

ELSEWHERE = ("-m", "chaos.elsewhere")


def test_a_second_driver_is_refused_beside_a_live_one(
    workshop: Workshop, job: Callable[..., Job], reference: Outcome, tmp_path: Path
) -> None:
    """Even where that is halted: it is on this machine, and may go on."""
    there = job(executor="local")
    workshop.pace(0.005)
    with there.running() as first:
        first.until_journalled(3)
        first.send(signal.SIGSTOP)
        workshop.pace(0)
        before = there.journalled()
        for words in ([], ["--resume"], ["--fresh"]):
            assert in_child(["score", str(there.file), *words], there.run_dir, tmp_path / "calls") == 4
            assert "another driver works on this run" in said(tmp_path / "calls")
        assert there.journalled() == before
        first.send(signal.SIGCONT)
        first.wait()
    same(there.run_dir, reference)


@pytest.mark.chaos
@pytest.mark.parametrize("executor", ["local", "ray"])
def test_a_halted_driver_wakes_up_beside_the_one_that_took_over(
    workshop: Workshop, job: Callable[..., Job], reference: Outcome, executor: str
) -> None:
    """On Ray its workers go on meanwhile, and report late."""
    there = job(executor=executor)
    workshop.pace(0.01)
    with there.running(program=ELSEWHERE) as zombie:
        zombie.until_journalled(3)
        zombie.send(signal.SIGSTOP)
        with there.running("--resume") as heir:
            heir.until_journalled(8)
            zombie.send(signal.SIGCONT)
            zombie.wait(4)
            heir.wait()
    same(there.run_dir, reference)


@pytest.mark.chaos
@pytest.mark.parametrize("executor", ["local", "ray"])
def test_a_halted_driver_wakes_up_when_the_run_is_done(
    workshop: Workshop, job: Callable[..., Job], reference: Outcome, executor: str
) -> None:
    there = job(executor=executor)
    workshop.pace(0.005)
    with there.running(program=ELSEWHERE) as zombie:
        zombie.until_journalled(3)
        zombie.send(signal.SIGSTOP)
        there.finish("--resume")
        same_results(there.run_dir, reference)
        zombie.send(signal.SIGCONT)
        zombie.wait(4)
    same_results(there.run_dir, reference)  # what it wrote last lies there, and counts for nobody


@pytest.mark.chaos
def test_a_run_is_taken_over_from_a_machine_that_is_gone(
    workshop: Workshop, job: Callable[..., Job], reference: Outcome
) -> None:
    there = job(executor="local")
    workshop.pace(0.005)
    with there.running(program=ELSEWHERE) as driver:
        driver.until_journalled(3)
        driver.send(signal.SIGKILL)
    workshop.pace(0)
    there.finish("--resume")
    same(there.run_dir, reference)
