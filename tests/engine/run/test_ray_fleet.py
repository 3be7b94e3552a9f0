"""The fleet of Ray actors, with a Ray that does what a test says; on a real one in test_score.py and tests/chaos."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_fleet import PROFILE, make_shards, report
from fake_ray import Actor, FakeRay
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayActorError

from poolscore.engine.config import parse_config
from poolscore.engine.errors import StoppedError
from poolscore.engine.machine.cores import Node
from poolscore.engine.run import ray_fleet
from poolscore.engine.run.fleet import Done, Event, Joined, Leaving, Lost
from poolscore.engine.run.ray_fleet import SPOT, RayFleet
from poolscore.engine.run.task import ScoreShard
from poolscore.engine.worker.job import Job

A, B, C = TASKS = [ScoreShard(shard) for shard in make_shards(3)]


class World:
    """A fleet, its Ray and the time; each wait is a second later."""

    def __init__(self, patch: pytest.MonkeyPatch, folder: Path, ray: FakeRay, **run: Any) -> None:
        self.ray, self.now = ray, 1000.0
        patch.setattr(ray_fleet, "ray", ray)
        patch.setattr(ray_fleet, "machines", lambda: dict(ray.machines))
        patch.setattr(ray_fleet, "draining", lambda: set(ray.draining))
        config = parse_config(
            {
                "pool": {"uri": "pool", "input": "image"},
                "model": {"source": "nets:cnn", "task": "multiclass"},
                "select": {"k": 5},
                "run": {"dir": "run", "decode_threads": 1, "device": "cpu", **run},
            },
            base=folder,
        )
        job: Any = Job(config, "pool", None, {}, None, "", "", None, None)  # type: ignore[arg-type]
        self.fleet = RayFleet(job, clock=lambda: self.now)

    def wait(self, seconds: int = 1) -> list[Event]:
        """Events of so many seconds."""
        events: list[Event] = []
        for _ in range(seconds):
            self.now += 1.0
            events += self.fleet.wait(1.0)
        return events

    @property
    def pending(self) -> list[Actor]:
        """Actors that nobody killed and that have no place."""
        return [actor for actor in self.ray.actors if not actor.killed and not actor.calls[1].is_ready]

    def work(self, *nodes: str) -> list[Actor]:
        """Let actors that have no place become workers on these machines."""
        while len(self.pending) < len(nodes):
            self.wait()
        found = self.pending[: len(nodes)]
        for actor, node in zip(found, nodes, strict=True):
            actor.place(node)
            actor.ready(PROFILE)
        self.wait()
        return found


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., World]:
    """On a head and the machines that are named, with a place for one worker each."""

    def make(*machines: str, **run: Any) -> World:
        ray = FakeRay(head=Node(0), **{name: Node(2) for name in machines})
        return World(monkeypatch, tmp_path, ray, **run)

    return make


def test_a_worker_joins_and_brings_back_the_very_task(world: Callable[..., World]) -> None:
    here = world("one")
    (actor,) = here.pending
    assert here.fleet.free() == []
    actor.place("one")
    assert here.wait() == []
    actor.ready(PROFILE)
    assert here.wait() == [Joined(0, PROFILE)]
    here.fleet.submit(0, A)
    actor.tasks[0].put(report(0))
    (done,) = here.wait()
    assert isinstance(done, Done)
    assert done.task is A


def test_machines_that_come_get_a_worker_and_those_that_go_are_not_waited_for(world: Callable[..., World]) -> None:
    here = world("one")
    here.work("one")
    here.ray.machines["two"] = Node(2)
    here.wait()
    here.work("two")
    here.fleet.submit(1, A)
    del here.ray.machines["two"]
    assert here.wait() == [Lost(1, None, (A,), "its node is gone")]
    here.wait(5)
    assert here.pending == []
    assert here.fleet.free() == [0]


def test_a_shard_is_blamed_once_many_machines_died_under_it(world: Callable[..., World]) -> None:
    here = world("one")
    here.work("one")
    blamed = []
    for number in range(1, SPOT + 2):
        name = f"spot {number}"
        here.ray.machines[name] = Node(2)
        here.wait()
        here.work(name)
        here.fleet.submit(number, A)
        del here.ray.machines[name]
        (lost,) = here.wait()
        assert isinstance(lost, Lost)
        blamed.append(lost.running)
    assert blamed == [None] * SPOT + [A]


def test_a_worker_without_a_place_is_not_kept_for_a_machine_that_is_gone(world: Callable[..., World]) -> None:
    """Its place was thought to be there a moment longer."""
    here = world("one", "two")
    one, _ = here.work("one", "two")
    one.die()
    here.fleet.submit(0, A)
    here.wait(2)
    assert len(here.pending) == 1
    del here.ray.machines["one"]
    here.wait(2)
    assert here.pending == []


def test_without_any_machine_one_worker_waits_and_the_job_stops_in_time(world: Callable[..., World]) -> None:
    here = world("one", wait_for_workers=30)
    (actor,) = here.work("one")
    del here.ray.machines["one"]
    actor.die()
    here.wait(20)
    assert len(here.pending) == 1  # it is what brings back a machine, where somebody adds them
    assert len(here.ray.actors) <= 3
    here.ray.machines["two"] = Node(2)
    here.work("two")
    assert here.fleet.free() != []
    del here.ray.machines["two"]
    with pytest.raises(StoppedError, match=r"no free place for a worker \(2 CPUs\) for 30 s \(run.wait_for_workers\)"):
        here.wait(40)


def test_all_that_may_come_are_asked_for_once(world: Callable[..., World]) -> None:
    here = world("one", max_workers=4)
    here.wait(50)
    assert len(here.ray.actors) == len(here.pending) == 4


def test_a_drained_machine_is_left(world: Callable[..., World]) -> None:
    here = world("one", "two")
    one, _ = here.work("one", "two")
    here.fleet.submit(0, A)
    here.ray.draining.add("one")
    assert here.wait() == [Leaving(0, "its node is being drained")]
    assert here.fleet.free() == [1]
    one.tasks[0].put(report(0))
    assert [type(event) for event in here.wait()] == [Done]
    assert here.wait() == [Lost(0, None, (), "its node is being drained")]
    assert one.killed
    assert here.pending == []  # the cluster has no place for another


def test_what_a_worker_was_at_is_not_blamed_if_its_machine_was_taken_away(world: Callable[..., World]) -> None:
    for error in (ActorDiedError(), RayActorError(preempted=True), RayActorError(error_msg="… receives a SIGTERM.")):
        here = world("one")
        (actor,) = here.work("one")
        here.fleet.submit(0, A)
        if type(error) is ActorDiedError:
            here.ray.draining.add("one")
            here.wait()
        actor.die(error)
        (lost,) = here.wait()
        assert isinstance(lost, Lost)
        assert (lost.running, lost.waiting) == (None, (A,))


def test_one_shard_is_blamed_and_of_two_neither(world: Callable[..., World]) -> None:
    here = world("one")
    (actor,) = here.work("one")
    here.fleet.submit(0, A)
    actor.die()
    (lost,) = here.wait()
    assert isinstance(lost, Lost)
    assert (lost.running, lost.waiting) == (A, ())
    (actor,) = here.work("one")
    for task in (B, C):
        here.fleet.submit(1, task)
    actor.die()
    (lost,) = here.wait()
    assert isinstance(lost, Lost)
    assert (lost.running, lost.waiting) == (None, (B, C))
    (actor,) = here.work("one")
    here.fleet.submit(2, B)
    assert here.fleet.free() == []  # it is scored alone


def test_a_worker_that_is_killed_is_lost_with_the_reason_and_replaced(world: Callable[..., World]) -> None:
    here = world("one")
    (actor,) = here.work("one")
    here.fleet.submit(0, A)
    here.fleet.kill(0, "it hangs")
    here.fleet.kill(0, "it hangs")
    assert actor.killed
    assert here.wait() == [Lost(0, A, (), "it hangs")]
    assert len(here.pending) == 1


def test_no_worker_is_started_on_a_machine_whose_worker_was_refused(world: Callable[..., World]) -> None:
    here = world("one", "two", workers=2)
    here.work("one", "two")
    assert here.fleet.refuse(0)
    assert here.wait() == []
    (actor,) = here.pending
    assert actor.options["label_selector"] == {"ray.io/node-id": "!in(one)"}
    assert not here.fleet.refuse(1)


def test_workers_that_die_at_start_stop_the_job_unless_their_machines_did(world: Callable[..., World]) -> None:
    here = world("one")
    for error in (ActorUnavailableError("gone", b"0" * 16), RayActorError(error_msg="because its node has died.")):
        for _ in range(5):
            here.pending[0].die(error)
            here.wait(2)
    with pytest.raises(StoppedError, match=r"3 workers in a row died while they started"):
        for _ in range(20):
            for actor in here.pending:
                actor.die()
            here.wait()


def test_a_worker_that_hangs_at_start_is_given_up(world: Callable[..., World]) -> None:
    here = world("one", "two")
    stuck, fine = here.pending
    stuck.place("one")
    fine.place("two")
    fine.ready(PROFILE)
    here.wait(2)
    here.now += ray_fleet.START_SECONDS
    (lost,) = here.wait()
    assert lost == Lost(0, None, (), "it was not ready after 1800 s")
    assert stuck.killed
    assert len(here.pending) == 1


def test_all_workers_are_let_go_at_the_end_although_one_is_dead(world: Callable[..., World]) -> None:
    here = world("one", "two")
    one, two = here.work("one", "two")
    one.die()
    here.fleet.close()
    assert two.killed
