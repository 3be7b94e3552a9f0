"""Which profile becomes the run's, and who is refused for another."""

from __future__ import annotations

import pytest
from fake_fleet import PROFILE, FakeClock

from poolscore.engine.run.admission import SETTLE, Admission
from poolscore.engine.run.mixed import Profile

OTHER = PROFILE | {"threads": 2}


def admission(
    expected: int, profile: Profile | None = None, allow_mixed: bool = False
) -> tuple[Admission, list[Profile], FakeClock]:
    clock, seen = FakeClock(), list[Profile]()
    return Admission(profile, allow_mixed, expected, seen.append, clock), seen, clock


@pytest.mark.parametrize("odd", range(3))
def test_one_odd_machine_is_refused_whenever_it_joins(odd: int) -> None:
    gate, seen, _ = admission(expected=3)
    for worker in range(3):
        assert gate.judge() == {}
        gate.join(worker, OTHER if worker == odd else PROFILE)
    told = "threads (1, here 2) (2 of the first 3 workers have the run's)"
    assert gate.judge() == {worker: told if worker == odd else None for worker in range(3)}
    assert seen == [PROFILE]
    assert gate.waiting == {}
    gate.join(7, PROFILE)
    gate.join(8, OTHER)
    gate.join(9, OTHER)
    assert gate.judge() == {7: None, 8: "threads (1, here 2)", 9: "threads (1, here 2)"}  # chosen once


def test_of_as_many_the_first_wins() -> None:
    gate, seen, _ = admission(expected=4)
    for worker, profile in enumerate((OTHER, PROFILE, PROFILE, OTHER)):
        gate.join(worker, profile)
    assert [worker for worker, different in gate.judge().items() if different is None] == [0, 3]
    assert seen == [OTHER]


def test_nobody_is_waited_for_longer_than_some_seconds() -> None:
    gate, seen, clock = admission(expected=8)
    clock.sleep(1000.0)  # until the first one is there
    gate.join(0, PROFILE)
    clock.sleep(SETTLE - 1)
    assert gate.judge() == {}
    gate.lose(0)  # it died
    gate.join(1, OTHER)
    clock.sleep(SETTLE - 1)
    assert gate.judge() == {}
    clock.sleep(1)
    assert gate.judge() == {1: None}
    assert seen == [OTHER]


def test_a_run_that_has_a_profile_keeps_it_against_any_number() -> None:
    gate, seen, _ = admission(expected=3, profile=PROFILE)
    gate.join(0, OTHER)
    assert gate.judge() == {0: "threads (1, here 2)"}
    gate.join(1, OTHER)
    gate.join(2, PROFILE)
    assert gate.judge() == {1: "threads (1, here 2)", 2: None}
    assert seen == []


def test_where_all_are_taken_nobody_waits() -> None:
    gate, seen, _ = admission(expected=3, allow_mixed=True)
    gate.join(0, OTHER)
    assert gate.judge() == {0: None}
    gate.join(1, PROFILE)
    assert gate.judge() == {1: None}
    assert seen == [OTHER, PROFILE]
