"""Nodes of a cluster die, come and go; the job is attached to it by address."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from chaos.job import Job, Workshop, descendants, enough, send, until
from chaos.same import Outcome, same

from poolscore.engine.run.directory import RunDirectory

CPUS = 2  # of a node: one worker, with its decoding thread
STORE = 80_000_000  # bytes


class Nodes:
    """A Ray cluster on this machine: a head that does no work, and nodes of one worker each."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self._cluster: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": STORE})
        self.address: str = self._cluster.address

    def add(self, **environment: str) -> Any:
        return self._cluster.add_node(num_cpus=CPUS, object_store_memory=STORE, env_vars=environment or None)

    def kill(self, node: Any) -> None:
        """As when the machine loses power: the raylet and all its children."""
        raylet = self.raylet(node)
        for pid in [raylet, *descendants(raylet)]:
            send(pid, signal.SIGKILL)
        self._wait(node)

    @staticmethod
    def _wait(node: Any) -> None:
        for started in node.all_processes.values():
            for one in started:
                one.process.kill()
                one.process.wait()

    def remove(self, node: Any) -> None:
        """As when it is taken out of the cluster in good order."""
        self._cluster.remove_node(node, allow_graceful=True)

    def drain(self, node: Any) -> None:
        """Its end is announced, as a spot market does."""
        from ray._raylet import GcsClient
        from ray.core.generated.autoscaler_pb2 import DRAIN_NODE_REASON_PREEMPTION

        deadline = int((time.time() + 60) * 1000)
        accepted, why_not = GcsClient(address=self.address).drain_node(
            node.node_id, DRAIN_NODE_REASON_PREEMPTION, "the machine is wanted back", deadline
        )
        assert accepted, why_not

    @staticmethod
    def raylet(node: Any) -> int:
        return int(node.all_processes["raylet"][0].process.pid)

    def close(self) -> None:
        everything = [self._cluster.head_node, *self._cluster.worker_nodes]
        self._cluster.shutdown()
        for node in everything:
            self._wait(node)


@pytest.fixture
def nodes(workshop: Workshop) -> Iterator[Nodes]:
    on_sigterm = signal.getsignal(signal.SIGTERM)  # Ray puts its own in place
    made = Nodes()
    yield made
    made.close()
    signal.signal(signal.SIGTERM, on_sigterm)


def test_a_node_dies_and_another_joins(
    workshop: Workshop, job: Callable[..., Job], reference: Outcome, nodes: Nodes
) -> None:
    there = job(address=nodes.address)
    first, _ = nodes.add(), nodes.add()
    workshop.pace(0.01)
    with there.running() as driver:
        driver.until("a worker on each node", lambda: enough(workshop.at_work(but=driver.pid), 2))
        workshop.hold(2, but=driver.pid)
        nodes.kill(first)
        workshop.pace(0.01)
        driver.until_journalled(3)  # the other goes on
        workshop.hold(1)
        third = nodes.add()
        driver.until("a worker on the new node", lambda: _works_on(workshop, nodes.raylet(third)))
        workshop.pace(0)
        driver.wait()
    same(there.run_dir, reference)


def _works_on(workshop: Workshop, raylet: int) -> bool:
    return bool(set(workshop.at_work(but=0)) & set(descendants(raylet)))


@pytest.mark.chaos
def test_a_node_of_another_kind_is_not_used(
    workshop: Workshop, job: Callable[..., Job], reference: Outcome, nodes: Nodes
) -> None:
    """Its processor has fewer instructions: its scores would differ in their last bits."""
    there = job(address=nodes.address)
    nodes.add()
    workshop.pace(0.02)
    with there.running() as driver:
        driver.until_journalled(1)
        odd = nodes.add(ATEN_CPU_CAPABILITY="default")
        driver.until("its worker is refused", lambda: "another numeric profile" in there.log())
        workshop.pace(0)
        driver.wait()
        assert not _works_on(workshop, nodes.raylet(odd))
    (refused,) = [event for event in RunDirectory(there.run_dir).info["events"] if event["what"] == "refused"]
    assert "another numeric profile than this run: instructions (" in refused["why"]
    assert "here DEFAULT)" in refused["why"]
    same(there.run_dir, reference)


@pytest.mark.chaos
def test_a_node_is_removed_in_good_order(
    workshop: Workshop, job: Callable[..., Job], reference: Outcome, nodes: Nodes
) -> None:
    there = job(address=nodes.address)
    first, _ = nodes.add(), nodes.add()
    workshop.pace(0.01)
    with there.running() as driver:
        driver.until("a worker on each node", lambda: enough(workshop.at_work(but=driver.pid), 2))
        driver.until_journalled(3)
        nodes.remove(first)
        workshop.pace(0)
        driver.wait()
    same(there.run_dir, reference)


@pytest.mark.chaos
def test_the_job_takes_what_the_cluster_has_down_to_nothing(
    workshop: Workshop, job: Callable[..., Job], reference: Outcome, nodes: Nodes
) -> None:
    """No number of workers is given."""
    there = job(address=nodes.address, workers=None)
    first = nodes.add()
    workshop.pace(0.02)
    with there.running() as driver:
        driver.until("a worker", lambda: _works_on(workshop, nodes.raylet(first)))
        second = nodes.add()
        driver.until("one on a node that came", lambda: _works_on(workshop, nodes.raylet(second)))
        nodes.kill(first)
        gone = there.journalled()
        driver.until_journalled(gone + 2)
        nodes.kill(second)
        third = nodes.add()
        driver.until("one where there was none", lambda: _works_on(workshop, nodes.raylet(third)))
        workshop.pace(0)
        driver.wait()
    same(there.run_dir, reference)
    assert [event["what"] for event in RunDirectory(there.run_dir).info["events"]].count("joined") == 3


@pytest.mark.chaos
def test_a_node_that_is_drained_finishes_what_it_is_at(
    workshop: Workshop, job: Callable[..., Job], reference: Outcome, nodes: Nodes
) -> None:
    there = job(address=nodes.address, workers=None)
    going, staying = nodes.add(), nodes.add()
    workshop.pace(0.02)
    with there.running() as driver:
        for node in (going, staying):
            driver.until("a worker on each node", lambda node=node: _works_on(workshop, nodes.raylet(node)))
        nodes.drain(going)
        driver.until("its worker is let go", lambda: not _works_on(workshop, nodes.raylet(going)))
        workshop.pace(0)
        driver.wait()
    same(there.run_dir, reference)
    told = RunDirectory(there.run_dir).info["events"]
    (leaving,) = [event for event in told if event["what"] == "leaving"]
    (lost,) = [event for event in told if event["what"] == "lost"]
    assert lost["worker"] == leaving["worker"]
    assert (lost["why"], lost.get("shard")) == ("its node is being drained", None)


@pytest.mark.chaos
def test_all_nodes_die_and_one_comes_back(
    workshop: Workshop, job: Callable[..., Job], reference: Outcome, nodes: Nodes
) -> None:
    there = job(address=nodes.address)
    both = [nodes.add(), nodes.add()]
    workshop.pace(0.01)
    with there.running() as driver:
        driver.until_journalled(5)
        for node in both:
            nodes.kill(node)
        time.sleep(3)
        assert driver.process.poll() is None, there.log()
        nodes.add()
        workshop.pace(0)
        driver.wait()
    same(there.run_dir, reference)


@pytest.mark.chaos
@pytest.mark.timeout(600)
def test_nodes_come_and_go_at_random(
    workshop: Workshop, job: Callable[..., Job], reference: Outcome, nodes: Nodes, rng: random.Random
) -> None:
    there = job(address=nodes.address, workers=3)
    alive = [nodes.add() for _ in range(3)]
    workshop.pace(0.02)
    with there.running() as driver:
        driver.until_journalled(2)
        for _ in range(4):
            nodes.kill(alive.pop(rng.randrange(len(alive))))
            time.sleep(rng.uniform(0, 2))
            alive.append(nodes.add())
            if there.journalled() > 16:
                break
        workshop.pace(0)
        driver.wait()
    same(there.run_dir, reference)


@pytest.mark.chaos
def test_a_node_falls_silent_and_its_worker_answers_late(
    workshop: Workshop, job: Callable[..., Job], reference: Outcome, nodes: Nodes
) -> None:
    """Its raylet alone is halted, so that the cluster takes the node for dead while the worker goes on."""
    there = job(address=nodes.address)
    first, _ = nodes.add(), nodes.add()
    workshop.pace(0.01)
    with there.running() as driver:
        driver.until("a worker on each node", lambda: enough(workshop.at_work(but=driver.pid), 2))
        os.kill(nodes.raylet(first), signal.SIGSTOP)
        driver.until_journalled(20)
        workshop.pace(0)
        driver.wait()
        os.kill(nodes.raylet(first), signal.SIGCONT)
    same(there.run_dir, reference)


@pytest.mark.chaos
def test_the_driver_dies_and_the_cluster_stays(
    workshop: Workshop, job: Callable[..., Job], reference: Outcome, nodes: Nodes
) -> None:
    """Its workers are orphans until Ray finds them; halted, they write their parts long after the next driver began."""
    there = job(address=nodes.address)
    first, _ = nodes.add(), nodes.add()
    nodes.add()
    workshop.pace(0.005)
    with there.running() as driver:
        driver.until_journalled(3)
        workshop.hold(2, but=driver.pid)
        driver.send(signal.SIGKILL)
    workshop.pace(0.01)
    there.finish("--resume")
    until("no worker is left", lambda: not set(workshop.at_work(but=0)) & set(descendants(nodes.raylet(first))))
    same(there.run_dir, reference)
