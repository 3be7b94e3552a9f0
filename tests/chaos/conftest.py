"""The pool that is scored while things break, and what it comes to when nothing does."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from chaos.job import Job, Workshop
from chaos.same import Outcome, outcome

ROWS = 1200


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Jobs are started and resumed many times here, perhaps on a busy machine."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(1200))


@pytest.fixture(scope="session")
def _workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop.make(tmp_path_factory.mktemp("chaos"), ROWS)


@pytest.fixture
def workshop(_workshop: Workshop) -> Workshop:
    """The pool, read at full speed."""
    _workshop.pace(0)
    return _workshop


@pytest.fixture
def job(workshop: Workshop, tmp_path: Path) -> Callable[..., Job]:
    """A job on Ray with a run directory of its own; entries of `run` can be changed."""

    def make(**run: Any) -> Job:
        return Job(tmp_path, workshop.config(str(tmp_path / "run"), **run))

    return make


@pytest.fixture(scope="session")
def finished(_workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the undisturbed run, on one worker in the driver's own process."""
    _workshop.pace(0)
    folder = tmp_path_factory.mktemp("reference")
    Job(folder, _workshop.config(str(folder / "run"), executor="local")).finish()
    return folder / "run"


@pytest.fixture(scope="session")
def reference(finished: Path) -> Outcome:
    """What the undisturbed run came to."""
    return outcome(str(finished))


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """Random choices that `--chaos-seed` reproduces, as far as processes keep time."""
    return random.Random(f"{request.config.getoption('--chaos-seed')} {request.node.nodeid}")
