"""A run whose workers have several numeric profiles: refused, or accepted and told of."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import scores_of_run
from typer.testing import CliRunner

from poolscore.engine.config import Config
from poolscore.engine.errors import ConfigError, InterruptedRun
from poolscore.engine.run.coordinator import State
from poolscore.engine.run.directory import RunDirectory
from poolscore.engine.run.mixed import mixed_in_words, profile_name, with_profile
from poolscore.engine.run.totals import Totals
from poolscore.engine.score import score_pool
from poolscore.engine.worker import worker
from poolscore.jobs.cli import app
from poolscore.jobs.report import write_report

Configure = Callable[..., Config]


def half(config: Config) -> None:
    """Score two shards."""

    def interrupt(state: State) -> None:
        if state.totals.shards >= 2:
            raise KeyboardInterrupt

    with pytest.raises(InterruptedRun):
        score_pool(config, on_progress=interrupt)


def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers are from now on of another kind."""
    here = worker.numeric_profile

    def there(*given: Any) -> Any:
        return here(*given) | {"device": "Tesla P4", "torch": "1.0"}

    monkeypatch.setattr(worker, "numeric_profile", there)


def test_a_run_is_not_resumed_on_machines_of_another_kind(
    digit_config: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = digit_config()
    half(config)
    elsewhere(monkeypatch)
    with pytest.raises(ConfigError, match=r"no worker has the numeric profile .* here Tesla P4\), torch .*allow_mixed"):
        score_pool(config)
    run = RunDirectory(config.run.dir)
    assert 2 <= len(run.reports()) <= 4
    monkeypatch.undo()
    assert score_pool(config).mixed is None
    assert run.totals().profiles == {profile_name(run.info["profile"]): 6}


def test_a_mixed_run_says_so_wherever_it_is_looked_at(digit_config: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    config = digit_config(run={"allow_mixed": True})
    half(config)
    first = RunDirectory(config.run.dir).info["profile"]
    elsewhere(monkeypatch)
    result = score_pool(config)
    run = RunDirectory(config.run.dir)
    assert run.info["profile"] == first  # for older readers
    assert sorted(run.info["profiles"]) == sorted(run.totals().profiles)
    second = run.info["profiles"].keys() - {profile_name(first)}
    assert {report.profile for report in run.reports().values()} == {profile_name(first), *second}
    assert len(scores_of_run(config.run.dir)) == 600
    assert result.mixed is not None
    assert "of 6 shards were scored in another numeric profile than the rest: " in result.mixed
    assert "Tesla P4" in result.mixed
    told = CliRunner().invoke(app, ["status", config.run.dir, "--json"])
    assert json.loads(told.stdout)["mixed"] == result.mixed
    assert "Tesla P4" in CliRunner().invoke(app, ["status", config.run.dir]).output
    assert "is mixed: " in CliRunner().invoke(app, ["select", config.run.dir, "--name", "again"]).output
    assert "This run is mixed: " in Path(write_report(run)).read_text()


def test_profiles_are_named_by_what_they_hold() -> None:
    assert profile_name({"a": 1, "b": "x"}) == profile_name({"b": "x", "a": 1})
    assert profile_name({"a": 1}) != profile_name({"a": 2})
    assert len(profile_name({})) == 8


def test_a_run_of_an_older_version_knows_its_first_profile() -> None:
    old, new = {"threads": 1}, {"threads": 2}
    info = with_profile({"profile": old}, new)
    assert info == {"profile": old, "profiles": {profile_name(old): old, profile_name(new): new}}
    assert with_profile({"profile": None, "profiles": {}}, old) == {
        "profile": old,
        "profiles": {profile_name(old): old},
    }
    assert mixed_in_words({}, {"a": 3}) is None
    assert mixed_in_words({}, Totals().profiles) is None
    assert (mixed_in_words({}, {"a": 1, "b": 3}) or "").startswith(
        "1 of 4 shards were scored in another numeric profile"
    )
