"""The commands that come after `score`: go on, try again, extend, verify, ask how far it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from poolscore.engine.config import Config
from poolscore.engine.errors import ConfigError
from poolscore.engine.run.directory import RunDirectory
from poolscore.jobs.cli import app

Write = Callable[..., Path]


@pytest.fixture
def write(digit_config: Callable[..., Config], tmp_path: Path) -> Write:
    """Writes a configuration file."""

    def to(name: str = "config.yaml", **sections: object) -> Path:
        path = tmp_path / name
        path.write_text(yaml.safe_dump(digit_config(**sections).model_dump(mode="json")))
        return path

    return to


def poolscore(*arguments: object, code: int = 0) -> str:
    """What a command prints."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if isinstance(result.exception, Exception):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output


def test_at_its_deadline_a_run_says_how_far_it_came(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    monkeypatch.setattr(
        "poolscore.engine.run.limits.Limits.reached", lambda self: seen.append(0) or ("late" if seen[4:] else None)
    )
    config, run = write(run={"deadline": "8h"}), tmp_path / "run"
    shown = poolscore("score", config, code=3)
    assert "finished, but not whole" in shown
    assert "% of the pool's rows, a random part of it" in shown
    assert "late; the same command with more of it goes on" in shown
    page = (run / "report.html").read_text()
    assert "The run ended at a limit and can be resumed. The batch is the best of a random part of it." in page
    assert "Stopped by: <bdi>late</bdi>" in page
    shown = poolscore("status", run)
    assert "incomplete: late" in shown
    assert "%, a random part of it); 0 rejected" in shown
    state = json.loads(poolscore("status", run, "--json"))
    assert (state["finished"], state["stopped_by"]) == (False, "late")
    assert state["deadline"] > state["created"]
    monkeypatch.undo()
    poolscore("score", config)
    assert json.loads(poolscore("status", run, "--json"))["finished"]


def test_shards_that_were_set_aside_are_tried_again(write: Write, tmp_path: Path) -> None:
    config, run, file = write(), tmp_path / "run", tmp_path / "pool" / "part-1.parquet"
    whole = file.read_bytes()
    footer = 8 + int.from_bytes(whole[-8:-4], "little")
    file.write_bytes(whole[:4] + bytes(len(whole) - 4 - footer) + whole[-footer:])
    assert "set aside: part-1.parquet cannot be read" in poolscore("score", config, code=3)
    assert "set aside: part-1.parquet cannot be read" in poolscore("status", run)
    file.write_bytes(whole)
    with pytest.raises(ConfigError, match=r"names code to run \(nets:cnn\)"):
        poolscore("retry", run)
    with pytest.raises(ConfigError, match="--set: changes a configuration; give --config"):
        poolscore("retry", run, "--set", "select.k=3")
    other = write("other.yaml", run={"dir": str(tmp_path / "elsewhere")})
    first = {report.scores for report in RunDirectory(str(run)).reports().values()}
    poolscore("retry", run, "--config", other)
    assert first < {report.scores for report in RunDirectory(str(run)).reports().values()}
    assert not (tmp_path / "elsewhere").exists()
    assert "is whole: there is nothing to try again" in poolscore("retry", run)


def test_a_run_may_be_tried_again_from_its_directory_alone_with_trust(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "poolscore.engine.run.limits.Limits.reached",
        lambda self: "late" if (tmp_path / "run/scores").exists() else None,
    )
    poolscore("score", write(run={"max_gpu_hours": 1.0}), code=3)
    monkeypatch.undo()
    poolscore("retry", tmp_path / "run", "--trust")


def test_what_came_is_scored_in_a_run_of_its_own(write: Write, digits: pa.Table, tmp_path: Path) -> None:
    poolscore("score", write())
    pq.write_table(digits.slice(600, 40), tmp_path / "pool" / "part-2.parquet")
    more = write("more.yaml", run={"dir": str(tmp_path / "more")})
    (tmp_path / "pool" / "part-1.parquet").rename(tmp_path / "gone.parquet")
    shown = poolscore("score", more, "--extend", tmp_path / "run")
    assert "note: part-1.parquet went since it was scored" in shown
    assert "40 rows" in shown
    assert ["extends", str(tmp_path / "run")] in map(str.split, poolscore("status", tmp_path / "more").splitlines())
    assert "as precision explains" in poolscore("verify", more, "--rows", "20")


def test_verify_tells_of_wrong_scores(write: Write, tmp_path: Path) -> None:
    config, run = write(), RunDirectory
    poolscore("score", config)
    shown = poolscore("verify", config, "--rows", "30")
    assert "30 rows scored again in float64: largest difference" in shown
    assert RunDirectory(str(tmp_path / "run")).info["verified"]["rows"] == 30
    for report in run(str(tmp_path / "run")).reports().values():
        path = tmp_path / "run" / report.scores
        table = pq.read_table(path)
        wrong = pa.array(table["entropy"].to_numpy() + np.float32(1e-3))
        pq.write_table(table.set_column(table.schema.get_field_index("entropy"), "entropy", wrong), path)
    shown = poolscore("verify", config, "--precision", "fp32", code=1)
    assert "1 finding that precision DOES NOT explain" in shown
    assert "WRONG SCORES: entropy of row" in shown
    poolscore("report", tmp_path / "run")
    assert "Scores came out otherwise when they were computed again." in (tmp_path / "run" / "report.html").read_text()
    with pytest.raises(ConfigError, match="there are float64 and fp32"):
        poolscore("verify", config, "--precision", "double")
    with pytest.raises(ConfigError, match=r"differs in passes\.count"):
        poolscore("verify", config, "--set", "passes.count=6")


def test_status_says_whether_anybody_works_on_a_run(write: Write, tmp_path: Path) -> None:
    poolscore("score", write())
    (tmp_path / "run" / "_SUCCESS").unlink()
    run = RunDirectory(str(tmp_path / "run"))
    run.update(status="running", events=[{"what": "lost", "worker": 3, "shard": 5, "why": "killed", "at": 0.0}])
    shown = poolscore("status", tmp_path / "run")
    assert "is gone; the same command goes on with the run" in shown
    assert "worker 3 lost, shard 5: killed" in shown
    (closed,) = (tmp_path / "run" / "_log").glob("*/closed.json")
    closed.unlink()  # and it is this very process
    assert "is at work" in poolscore("status", tmp_path / "run")
