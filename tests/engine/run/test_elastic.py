"""How many workers there are to be, by the machines that there are."""

from __future__ import annotations

import pytest
from fake_fleet import FakeClock
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from poolscore.engine.config import RunConfig
from poolscore.engine.errors import ConfigError, StoppedError
from poolscore.engine.machine.cores import Node
from poolscore.engine.run.elastic import LONGEST_PAUSE, MAX_DEATHS_AT_START, Ask, Elastic

GPU = Node(cpus=8, gpus=2)
CPU = Node(cpus=4)
HEAD = Node(cpus=0)


def elastic(nodes: list[Node], attached: bool = True, clock: FakeClock | None = None, **run: object) -> Elastic:
    config = RunConfig.model_validate({"dir": "run", **run})
    return Elastic(config, nodes, attached, clock or FakeClock())


def test_there_is_a_worker_for_each_gpu_and_they_come_and_go() -> None:
    fleet = elastic([HEAD, GPU])
    assert [fleet.wanted(nodes) for nodes in ([HEAD, GPU], [HEAD, GPU, GPU], [GPU], [HEAD])] == [2, 4, 2, 1]


def test_without_gpus_there_is_one_for_each_place() -> None:
    fleet = elastic([CPU], threads=2)
    assert fleet.wanted([CPU]) == 2
    assert fleet.wanted([CPU, CPU, Node(3)]) == 5
    assert fleet.wanted([CPU, GPU]) == 6  # the numbers of this run come from CPUs: a GPU's are others


def test_a_fixed_number_is_kept_whatever_the_cluster_has() -> None:
    fleet = elastic([CPU], workers=3)
    assert [fleet.wanted(nodes) for nodes in ([CPU], [CPU, CPU], [])] == [3, 3, 3]


def test_an_attached_cluster_is_asked_for_all_that_may_be() -> None:
    """Workers without a place are what makes an autoscaler add machines."""
    assert elastic([HEAD, GPU], max_workers=10).wanted([GPU]) == 10
    assert elastic([GPU], attached=False, max_workers=10).wanted([GPU]) == 2
    assert elastic([GPU], attached=False, max_workers=1).wanted([GPU]) == 1


def test_a_cluster_that_grows_may_begin_with_nothing() -> None:
    assert elastic([HEAD], device="cuda", max_workers=4).ask([HEAD]) == Ask(cpus=1, gpus=1)
    with pytest.raises(ConfigError, match=r"run.device: 'cuda' is asked for, but the Ray cluster has no GPU"):
        elastic([HEAD], device="cuda")
    with pytest.raises(ConfigError, match=r"run.threads and run.decode_threads: 6 are asked for, no node"):
        elastic([CPU], threads=2, decode_threads=4)


def test_where_no_machine_may_be_used_no_worker_can_be_hoped_for() -> None:
    assert elastic([GPU]).may_come([GPU])
    assert not elastic([GPU]).may_come([HEAD, CPU])
    assert not elastic([CPU], threads=2).may_come([HEAD, Node(1)])
    assert elastic([GPU], max_workers=4).may_come([])


def test_both_numbers_of_workers_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"give one of them"):
        elastic([CPU], workers=2, max_workers=3)


def test_cores_are_shared_by_those_that_find_a_place() -> None:
    assert elastic([GPU]).ask([GPU]) == Ask(cpus=4, gpus=1)
    assert elastic([HEAD, GPU], max_workers=100).ask([HEAD, GPU]) == Ask(cpus=4, gpus=1)
    assert elastic([GPU]).ask([GPU, Node(2, 1)]) == Ask(cpus=2, gpus=1)  # so that the small machine has a place, too
    assert elastic([GPU], decode_threads=1).ask([GPU]) == Ask(cpus=2, gpus=1)
    assert elastic([CPU], workers=1).ask([CPU]) == Ask(cpus=4, gpus=0)


def test_no_worker_for_too_long_stops_the_job() -> None:
    clock = FakeClock()
    fleet = elastic([GPU], clock=clock, wait_for_workers=600)
    clock.now = 500.0
    fleet.require_workers(1, [GPU])
    clock.now = 1100.0
    fleet.require_workers(0, [])
    clock.now = 1101.0
    message = r"no free place for a worker \(1 CPUs and 1 GPU\) for 600 s \(run.wait_for_workers\); the same command"
    with pytest.raises(StoppedError, match=message):
        fleet.require_workers(0, [])


def test_workers_that_die_at_start_stop_the_job_unless_others_work() -> None:
    fleet = elastic([CPU])
    for _ in range(10):
        fleet.died_at_start("boom", others=True)
    with pytest.raises(StoppedError, match=r"11 workers in a row died while they started: boom"):
        fleet.died_at_start("boom", others=False)
    fleet.started()
    for _ in range(MAX_DEATHS_AT_START - 1):
        fleet.died_at_start("boom", others=False)
    with pytest.raises(StoppedError):
        fleet.died_at_start("boom", others=False)


@given(st.integers(2, 100))
def test_workers_that_die_at_start_are_not_started_again_and_again(deaths: int) -> None:
    clock = FakeClock()
    fleet = elastic([CPU], clock=clock)
    fleet.died_at_start("boom", others=True)
    assert fleet.may_start()
    started = 1
    while started < deaths:
        if fleet.may_start():
            fleet.died_at_start("boom", others=True)
            started += 1
        clock.now += 1.0
    assert clock() >= sum(min(LONGEST_PAUSE, 2.0**death) for death in range(2, deaths))
    fleet.started()
    clock.now += LONGEST_PAUSE
    assert fleet.may_start()
