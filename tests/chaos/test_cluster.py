"""A cluster of several machines, played on one: they come, are drained, and die with all that runs on them."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from chaos.job import Job, Workshop, descendants, send
from chaos.same import Outcome, same

from poolscore.engine.run.directory import RunDirectory


class Machines:
    """Ray nodes with a place for one worker each."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 0, "object_store_memory": 80_000_000, "include_dashboard": False}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self.address: str = self._cluster.address

    def add(self) -> Any:
        """A machine joins."""
        return self._cluster.add_node(num_cpus=2, object_store_memory=80_000_000)

    def kill(self, node: Any) -> None:
        """A machine dies at once."""
        raylet = node.all_processes["raylet"][0].process.pid
        for pid in [raylet, *descendants(raylet)]:
            send(pid, signal.SIGKILL)
        self.remove(node)

    def remove(self, node: Any) -> None:
        """Clear away what is left of a machine."""
        with contextlib.suppress(KeyError):
            self._cluster.remove_node(node, allow_graceful=False)

    def drain(self, node: Any) -> None:
        """A machine's end is announced, as a spot market does."""
        from ray._raylet import GcsClient
        from ray.core.generated.autoscaler_pb2 import DRAIN_NODE_REASON_PREEMPTION

        deadline = int((time.time() + 60) * 1000)
        accepted, why_not = GcsClient(address=self.address).drain_node(
            node.node_id, DRAIN_NODE_REASON_PREEMPTION, "the machine is wanted back", deadline
        )
        assert accepted, why_not

    def close(self) -> None:
        """All of them go."""
        self._cluster.shutdown()


@pytest.fixture(scope="module")
def machines(_workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    """A head without workers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        patch.delenv("RAY_ADDRESS", raising=False)
        found = Machines()
        try:
            yield found
        finally:
            found.close()


def at_work(workshop: Workshop, node: Any, but: int) -> list[int]:
    """Processes of a machine that have decoded a row."""
    return sorted(set(descendants(node.all_processes["raylet"][0].process.pid)) & set(workshop.at_work(but=but)))


def events(job: Job) -> list[dict[str, Any]]:
    """What its run tells of its workers."""
    told: list[dict[str, Any]] = RunDirectory(job.run_dir).info["events"]
    return told


def test_machines_come_and_die_down_to_none(
    machines: Machines, workshop: Workshop, job: Callable[..., Job], reference: Outcome
) -> None:
    run = job(address=machines.address, workers=None)
    first = machines.add()
    workshop.pace(0.02)
    with run.running() as driver:
        driver.until("the first machine works", lambda: at_work(workshop, first, driver.pid))
        second = machines.add()
        driver.until("one that came works, too", lambda: at_work(workshop, second, driver.pid))
        machines.kill(first)
        seen = run.journalled()
        driver.until_journalled(seen + 2)
        machines.kill(second)
        third = machines.add()
        driver.until("one that came when there was none works", lambda: at_work(workshop, third, driver.pid))
        workshop.pace(0)
        driver.wait()
        machines.remove(third)
    same(run.run_dir, reference)
    assert [event["what"] for event in events(run) if event["what"] != "copied"].count("joined") == 3


def test_a_machine_that_is_drained_finishes_what_it_is_at(
    machines: Machines, workshop: Workshop, job: Callable[..., Job], reference: Outcome
) -> None:
    run = job(address=machines.address, workers=None)
    going, staying = machines.add(), machines.add()
    workshop.pace(0.02)
    with run.running() as driver:
        for node in (going, staying):
            driver.until("both machines work", lambda node=node: at_work(workshop, node, driver.pid))
        machines.drain(going)
        driver.until("its worker is let go", lambda: not at_work(workshop, going, driver.pid))
        workshop.pace(0)
        driver.wait()
    machines.remove(going)
    machines.remove(staying)
    same(run.run_dir, reference)
    told = events(run)
    (leaving,) = [event for event in told if event["what"] == "leaving"]
    (lost,) = [event for event in told if event["what"] == "lost"]
    assert lost["worker"] == leaving["worker"]
    assert (lost["why"], lost.get("shard")) == ("its node is being drained", None)
