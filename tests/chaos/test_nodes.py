"""Nodes of a cluster die, come and go; the job is attached to it by address."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from chaos.job import Job, Workshop, enough, until
from chaos.nodes import Nodes, at_work, raylet
from chaos.same import Outcome, same

from poolscore.engine.run.directory import RunDirectory


@pytest.fixture(scope="module")
def _nodes(_workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    on_sigterm = signal.getsignal(signal.SIGTERM)  # Ray puts its own in place
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        patch.delenv("RAY_ADDRESS", raising=False)
        made = Nodes()
        try:
            yield made
        finally:
            made.close()
            signal.signal(signal.SIGTERM, on_sigterm)


@pytest.fixture
def nodes(_nodes: Nodes, workshop: Workshop) -> Iterator[Nodes]:
    """A cluster of a head without workers."""
    yield _nodes
    _nodes.clear()


def _events(job: Job) -> list[dict[str, Any]]:
    """What its run tells of its workers."""
    told: list[dict[str, Any]] = RunDirectory(job.run_dir).info["events"]
    return told


def test_nodes_come_and_die_down_to_none(
    nodes: Nodes, workshop: Workshop, job: Callable[..., Job], reference: Outcome
) -> None:
    run = job(address=nodes.address, workers=None)
    first = nodes.add()
    workshop.pace(0.02)
    with run.running() as driver:
        driver.until("the first node works", lambda: at_work(workshop, first))
        workshop.hold(1)  # the run must not end before all this has happened
        second = nodes.add()
        driver.until("one that came works, too", lambda: at_work(workshop, second))
        nodes.kill(first)
        workshop.pace(0.02)
        driver.until_journalled(run.journalled() + 2)
        workshop.hold(1)
        nodes.kill(second)
        third = nodes.add()
        driver.until("one that came when there was none works", lambda: at_work(workshop, third))
        workshop.pace(0)
        driver.wait()
    same(run.run_dir, reference)
    assert [event["what"] for event in _events(run) if event["what"] != "copied"].count("joined") == 3


@pytest.mark.chaos
def test_a_node_that_is_drained_finishes_what_it_is_at(
    nodes: Nodes, workshop: Workshop, job: Callable[..., Job], reference: Outcome
) -> None:
    run = job(address=nodes.address, workers=None)
    going, staying = nodes.add(), nodes.add()
    workshop.pace(0.02)
    with run.running() as driver:
        driver.until("both nodes work", lambda: at_work(workshop, going) and at_work(workshop, staying))
        nodes.drain(going)
        driver.until("its worker is let go", lambda: not at_work(workshop, going))
        workshop.pace(0)
        driver.wait()
    same(run.run_dir, reference)
    (leaving,) = [event for event in _events(run) if event["what"] == "leaving"]
    joined = {event["worker"] for event in _events(run) if event["what"] == "joined"}  # no earlier test's
    (lost,) = [event for event in _events(run) if event["what"] == "lost" and event["worker"] in joined]
    assert lost["worker"] == leaving["worker"]
    assert (lost["why"], lost.get("shard")) == ("its node is being drained", None)


@pytest.mark.chaos
def test_a_node_of_another_kind_is_not_used(
    nodes: Nodes, workshop: Workshop, job: Callable[..., Job], reference: Outcome
) -> None:
    """Its processor has fewer instructions: its scores would differ in their last bits."""
    run = job(address=nodes.address)
    nodes.add()
    workshop.pace(0.02)
    with run.running() as driver:
        driver.until_journalled(1)
        workshop.hold(1)
        odd = nodes.add(ATEN_CPU_CAPABILITY="default")
        driver.until("its worker is refused", lambda: "another numeric profile" in run.log())
        workshop.pace(0)
        driver.wait()
        assert not at_work(workshop, odd)
    (refused,) = [event for event in _events(run) if event["what"] == "refused"]
    assert "another numeric profile than this run: instructions (" in refused["why"]
    assert "here DEFAULT)" in refused["why"]
    same(run.run_dir, reference)


@pytest.mark.chaos
def test_a_node_dies_in_a_job_of_a_fixed_size(
    nodes: Nodes, workshop: Workshop, job: Callable[..., Job], reference: Outcome
) -> None:
    run = job(address=nodes.address, workers=2)
    first, _ = nodes.add(), nodes.add()
    workshop.pace(0.01)
    with run.running() as driver:
        driver.until("a worker on each node", lambda: enough(workshop.at_work(but=driver.pid), 2))
        workshop.hold(2, but=driver.pid)
        nodes.kill(first)
        workshop.pace(0.01)
        driver.until_journalled(3)  # the other goes on
        workshop.hold(1)
        third = nodes.add()
        driver.until("a worker on the new node", lambda: at_work(workshop, third))
        workshop.pace(0)
        driver.wait()
    same(run.run_dir, reference)


@pytest.mark.chaos
def test_a_node_is_removed_in_good_order(
    nodes: Nodes, workshop: Workshop, job: Callable[..., Job], reference: Outcome
) -> None:
    run = job(address=nodes.address)
    first, _ = nodes.add(), nodes.add()
    workshop.pace(0.01)
    with run.running() as driver:
        driver.until("a worker on each node", lambda: enough(workshop.at_work(but=driver.pid), 2))
        driver.until_journalled(3)
        nodes.remove(first)
        workshop.pace(0)
        driver.wait()
    same(run.run_dir, reference)


@pytest.mark.chaos
@pytest.mark.parametrize("round_", range(2))
def test_nodes_come_and_go_at_random(
    nodes: Nodes, workshop: Workshop, job: Callable[..., Job], reference: Outcome, rng: random.Random, round_: int
) -> None:
    run = job(address=nodes.address, workers=3)
    alive = [nodes.add() for _ in range(3)]
    workshop.pace(0.02)
    with run.running() as driver:
        driver.until_journalled(2)
        for _ in range(4):
            nodes.kill(alive.pop(rng.randrange(len(alive))))
            time.sleep(rng.uniform(0, 2))
            alive.append(nodes.add())
            if run.journalled() > 16:
                break
        workshop.pace(0)
        driver.wait()
    same(run.run_dir, reference)


@pytest.mark.chaos
def test_a_node_falls_silent_and_its_worker_answers_late(
    nodes: Nodes, workshop: Workshop, job: Callable[..., Job], reference: Outcome
) -> None:
    """Its raylet alone is halted, so that the cluster takes the node for dead while its worker goes on."""
    run = job(address=nodes.address)
    first, _ = nodes.add(), nodes.add()
    workshop.pace(0.02)
    with run.running() as driver:
        driver.until("a worker on each node", lambda: enough(workshop.at_work(but=driver.pid), 2))
        os.kill(raylet(first), signal.SIGSTOP)
        workshop.hold(2, but=driver.pid)
        third = nodes.add()
        driver.until("the node is taken for dead, and replaced", lambda: at_work(workshop, third))
        workshop.pace(0)
        driver.wait()
        os.kill(raylet(first), signal.SIGCONT)
    same(run.run_dir, reference)


@pytest.mark.chaos
def test_the_driver_dies_and_the_cluster_stays(
    nodes: Nodes, workshop: Workshop, job: Callable[..., Job], reference: Outcome
) -> None:
    """Its workers are orphans until Ray finds them, and may write parts beside the next driver's."""
    run = job(address=nodes.address)
    for _ in range(3):
        nodes.add()
    workshop.pace(0.02)
    with run.running() as driver:
        driver.until("two workers", lambda: enough(workshop.at_work(but=driver.pid), 2))
        driver.until_journalled(3)
        orphans = workshop.at_work(but=driver.pid)
        driver.send(signal.SIGKILL)
    run.finish("--resume")
    until("no orphan is left", lambda: not set(workshop.at_work(but=0)) & set(orphans))
    same(run.run_dir, reference)
