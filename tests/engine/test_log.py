"""Lines of the log: text or JSON, each with the run's id and epoch."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from poolscore.engine import log
from poolscore.engine.errors import ConfigError
from poolscore.engine.run.events import LONGEST_WHY, RunEvent, log_event


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    """Logging is the process's."""
    handlers, level, propagate = list(log.LOG.handlers), log.LOG.level, log.LOG.propagate
    yield
    log.LOG.handlers[:], log.LOG.propagate = handlers, propagate
    log.LOG.setLevel(level)


def test_each_line_is_a_json_object_with_the_run_and_what_happened(capsys: pytest.CaptureFixture[str]) -> None:
    log.set_up("json", run_id="ab12")
    log.bind(epoch=3)
    log_event(RunEvent("lost", 7, 5, "killed\nby the kernel"))
    logging.getLogger("poolscore").info("the model has %d layers", 2)
    out, err = capsys.readouterr()
    first, second = map(json.loads, err.splitlines())
    assert out == ""
    assert first.pop("time").endswith("Z")
    assert first == {
        "level": "warning",
        "message": "worker 7 lost, shard 5: killed by the kernel",
        "run_id": "ab12",
        "epoch": 3,
        "event": "lost",
        "worker": 7,
        "shard": 5,
        "why": "killed\nby the kernel",
    }
    assert (second["level"], second["message"], second["run_id"]) == ("info", "the model has 2 layers", "ab12")


def test_text_is_one_line_for_people_and_grep(capsys: pytest.CaptureFixture[str]) -> None:
    log.set_up("json")
    log.set_up("text", run_id="ab12", epoch=1)  # set up again: not twice
    log_event(RunEvent("set_aside", shard=5, why="x" * 10_000))
    (line,) = capsys.readouterr().err.splitlines()
    assert "Z WARNING run_id=ab12 epoch=1 set aside, shard 5: xxx" in line
    assert len(line) < LONGEST_WHY + 100


def test_the_level_is_kept_to(capsys: pytest.CaptureFixture[str]) -> None:
    log.set_up("text", logging.WARNING)
    log_event(RunEvent("joined", 1))
    log_event(RunEvent("killed", 1))
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_the_environment_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(log.VARIABLE, raising=False)
    assert log.asked_for() is None
    monkeypatch.setenv(log.VARIABLE, "json")
    assert log.asked_for() == "json"
    monkeypatch.setenv(log.VARIABLE, "xml")
    with pytest.raises(ConfigError, match="POOLSCORE_LOG=xml: it is text or json"):
        log.asked_for()
