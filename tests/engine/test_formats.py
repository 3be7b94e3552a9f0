"""A run directory of an older format is read for ever; one of a newer format is refused in one line.

tests/data/run_format_N was written by the code of its time (tests/data/write_small_run.py) and is never written anew.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import TESTS, scores_of_run
from typer.testing import CliRunner

from poolscore.engine import RunDirectory, read_selection, read_shortlist, thumbnails
from poolscore.engine.errors import ConfigError
from poolscore.jobs.cli import app

# Read from the files by the code that wrote them.
BATCH = ["digit-05", "digit-02", "digit-21", "digit-01", "digit-16"]
SCORES = [0.0012038, 0.0012034, 0.0011601, 0.0011086, 0.0010881]  # BALD, nats
BY_MARGIN = ["digit-32", "digit-39", "digit-23", "digit-25"]
COMMANDS = {
    "status": ["status", "{run}"],
    "select": ["select", "{run}", "--name", "next", "--k", "3"],
    "report": ["report", "{run}"],
    "explain": ["explain", "{run}", "digit-00"],
    "compare": ["compare", "{run}", "{run}"],
    "retry": ["retry", "{run}"],
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A copy of the run of format 1, which was written by poolscore 0.1.0."""
    return Path(shutil.copytree(TESTS / "data" / "run_format_1", tmp_path / "run"))


def poolscore(command: str, run: Path, *more: str) -> str:
    arguments = [argument.format(run=run) for argument in COMMANDS[command]]
    result = CliRunner().invoke(app, [*arguments, *more])
    if isinstance(result.exception, Exception):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_it_is_what_it_was(run: Path) -> None:
    old = RunDirectory(str(run))
    assert (old.info["format"], old.info["poolscore"], old.succeeded) == (1, "0.1.0", True)
    assert (old.totals().scored, old.totals().rejected, old.totals().excluded) == (38, 1, 1)
    batch = read_selection(old)
    assert batch["id"].to_pylist() == BATCH
    assert np.allclose(batch["score"].to_numpy(), SCORES, rtol=0, atol=5.1e-8)
    assert read_selection(old, "margin")["id"].to_pylist() == BY_MARGIN


def test_status(run: Path) -> None:
    found = json.loads(poolscore("status", run, "--json"))
    assert found["status"] == "done"
    assert "38" in poolscore("status", run)


def test_select_gives_the_batch_that_it_gave(run: Path) -> None:
    poolscore("select", run)
    old = RunDirectory(str(run))
    assert read_selection(old, "next")["id"].to_pylist() == BATCH[:3]
    scores = scores_of_run(str(run))
    assert scores.num_rows == 38
    assert set(scores["label"].to_pylist()) <= set(range(10))


def test_select_from_its_shortlist(run: Path) -> None:
    poolscore("select", run, "--method", "batchbald")
    chosen = read_selection(RunDirectory(str(run)), "next")
    assert chosen["step"].to_pylist() == [1, 2, 3]
    assert chosen["id"].to_pylist()[0] == BATCH[0]  # the joint information of one row is its BALD


def test_its_shortlist(run: Path) -> None:
    old = RunDirectory(str(run))
    shortlist = read_shortlist(old)
    assert shortlist.log_probs_NTC is not None
    assert shortlist.log_probs_NTC.shape == (8, 3, 10)
    assert np.allclose(np.exp(shortlist.log_probs_NTC).sum(axis=2), 1, atol=1e-5)
    assert shortlist.features_NF.shape[0] == 8
    assert shortlist.lacks(old.reports()) is None
    assert set(thumbnails(old, range(40))) == set(shortlist.rows["row_id"].to_pylist())


def test_report(run: Path) -> None:
    poolscore("report", run)
    assert BATCH[0] in (run / "report.html").read_text()


def test_explain(run: Path) -> None:
    (best,) = json.loads(CliRunner().invoke(app, ["explain", str(run), BATCH[0], "--json"]).output)
    assert best["became"] == "scored"
    (broken,) = json.loads(CliRunner().invoke(app, ["explain", str(run), "digit-07", "--json"]).output)
    assert broken["became"] == "rejected"


def test_compare(run: Path) -> None:
    found = json.loads(poolscore("compare", run, "--json"))
    assert (found["common"], found["only_a"], found["only_b"]) == (38, 0, 0)
    assert found["spearman"] == pytest.approx(1)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_newer_format_is_refused(command: str, run: Path) -> None:
    info = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**info, "format": 2, "poolscore": "9.0"}))
    with pytest.raises(ConfigError, match=r"run was written by poolscore 9\.0; upgrade poolscore to read it$"):
        poolscore(command, run)
    assert not (run / "selections" / "next.parquet").exists()
