"""A run again out of its directory: what it names is run only for whom the user trusts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import scores_of_run

from poolscore.engine.config import Config
from poolscore.engine.errors import DONE, ConfigError
from poolscore.engine.retry import config_of_run, retry_run
from poolscore.engine.run.directory import RunDirectory, write_json
from poolscore.engine.score import score_pool

Configure = Callable[..., Config]


@pytest.fixture
def run(finished_run: str, tmp_path: Path) -> RunDirectory:
    import shutil

    shutil.copytree(finished_run, tmp_path / "run")
    return RunDirectory(str(tmp_path / "run"))


def changed(run: RunDirectory, section: str, **values: object) -> RunDirectory:
    run.info["config"][section] |= values
    write_json(run.storage, "run.json", run.info)
    return RunDirectory(run.storage.root)


def test_a_run_that_names_code_needs_trust(run: RunDirectory) -> None:
    with pytest.raises(ConfigError, match=r"names code to run \(nets:cnn\); give .*--config CONFIG, or --trust"):
        config_of_run(run)
    config = config_of_run(run, trust=True)
    assert (config.model.source, config.run.dir) == ("nets:cnn", run.storage.root)


FILE = {"source": "/models/net.onnx", "weights": None, "args": {}}


def test_a_file_is_no_code_unless_it_is_unpickled_or_rows_go_through_a_function(run: RunDirectory) -> None:
    config = config_of_run(changed(run, "model", **FILE))
    assert config.model.path != run.info["config"]["model"]["path"]  # nothing is imported from there
    with pytest.raises(ConfigError, match=r"\(/models/net.pt2 with model.trust\)"):
        config_of_run(changed(run, "model", source="/models/net.pt2", trust=True))
    changed(run, "model", source="/models/net.pt2", trust=False)
    with pytest.raises(ConfigError, match=r"\(evil:decode\)"):
        config_of_run(changed(run, "pool", decode={"kind": "function", "function": "evil:decode"}))


def test_the_cluster_of_a_foreign_run_is_not_asked(run: RunDirectory) -> None:
    changed(run, "model", **FILE)
    run = changed(run, "run", address="ray://elsewhere:10001")
    assert config_of_run(run).run.address is None
    assert config_of_run(run, address="ray://mine:10001").run.address == "ray://mine:10001"
    assert config_of_run(run, trust=True).run.address == "ray://elsewhere:10001"


def test_a_run_that_misses_a_shard_is_made_whole(digit_config: Configure) -> None:
    config = digit_config()
    score_pool(config)
    scores = scores_of_run(config.run.dir)
    (Path(config.run.dir) / "_SUCCESS").unlink()
    sorted((Path(config.run.dir) / "_log").glob("*/[0-9]*.json"))[-1].unlink()
    with pytest.raises(ConfigError, match="names code"):
        retry_run(config.run.dir)
    elsewhere = config.model_copy(update={"run": config.run.model_copy(update={"dir": "/nowhere"})})
    assert retry_run(config.run.dir, elsewhere).exit_code == DONE
    assert scores_of_run(config.run.dir).equals(scores)


def test_a_secret_that_was_taken_out_is_asked_for(run: RunDirectory) -> None:
    run = changed(run, "model", args={"api_key": "[redacted]"})
    with pytest.raises(ConfigError, match=r"a secret was taken out of its run\.json; give your own --config CONFIG"):
        config_of_run(run, trust=True)
