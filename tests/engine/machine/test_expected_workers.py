"""How many workers a run will have is known before it starts, where no cluster is to be asked."""

from typing import Any

import pytest

from poolscore.engine.config import RunConfig
from poolscore.engine.machine import cores


@pytest.mark.parametrize(
    ("given", "gpus", "expected"),
    [
        ({}, 0, 8),
        ({"threads": 2, "decode_threads": 1}, 0, 2),
        ({"threads": 9}, 0, 1),
        ({}, 3, 3),
        ({"workers": 5}, 3, 5),
        ({"executor": "local"}, 3, 1),
        ({"address": "ray://there:10001"}, 0, None),
        ({"address": "ray://there:10001", "workers": 4}, 0, 4),
    ],
)
def test_workers(monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], gpus: int, expected: int | None) -> None:
    monkeypatch.setattr(cores, "usable_cores", lambda: 8)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert cores.expected_workers(RunConfig(dir="r", **given), gpus) == expected


def test_a_cluster_in_the_environment_is_to_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    assert cores.expected_workers(RunConfig(dir="r"), 2) is None
