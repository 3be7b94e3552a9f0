"""`--json`: standard output is one JSON value and nothing else, with the same names always."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from poolscore.engine.config import Config
from poolscore.jobs import scripts
from poolscore.jobs.cli import COMMANDS, app
from poolscore.jobs.show.terminal import console

STATUS = {
    *("status", "exit_code", "finished", "stage", "run", "id", "epoch", "shards", "rows", "rejected_by_stage"),
    *(
        "workers",
        "rows_per_second",
        "eta_seconds",
        "rows_per_worker_second",
        "stage_seconds",
        "idle_share",
        "set_aside",
        "mixed",
    ),
    *("stopped_by", "deadline", "extends", "driver", "events", "verified", "created", "updated"),
}
SCORED = STATUS | {"finished_before", "seconds", "selection", "report", "shortlist", "near_duplicates", "notes"}
PLANNED = {
    *(
        "pool",
        "shards",
        "model",
        "passes",
        "frontier",
        "repeated_because",
        "cost",
        "dropout",
        "stays_off",
        "batch_size",
    ),
    *("batch_seconds", "rows_per_second", "seconds", "findings", "check", "advised", "preview"),
}
ASKED_ELSEWHERE = {"submit", "stop", "list", "bench", "loop"}  # in test_submit.py, test_bench.py, test_loop.py


def value_of(*arguments: object, code: int = 0) -> Any:
    """What a command gives to a script."""
    result = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    assert result.exit_code == code, result.stderr
    assert not console.stderr, "the next command is for people again"
    return json.loads(result.stdout, parse_constant=pytest.fail)


def test_every_command_that_a_script_may_ask_gives_json_alone(
    digit_config: Callable[..., Config], tmp_path: Path
) -> None:
    config = digit_config(check={"labelled": str(tmp_path / "pool"), "label": "label"}, shortlist={"rows": 20})
    (path := tmp_path / "config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    run, page = tmp_path / "run", tmp_path / "preview.html"
    values = {"plan": value_of("plan", path, "--preview", "20", "--page", page), "score": value_of("score", path)}
    values |= {name: value_of(name, run) for name in ("status", "report", "retry")}
    values["verify"] = value_of("verify", path, "--rows", "10")
    values["select"] = value_of("select", run, "--name", "more", "--k", "3")
    values["compare"] = value_of("compare", run, run)
    values["explain"] = value_of("explain", run, "--row-id", "7")
    values["export-tasks"] = value_of("export-tasks", run, "--to", "csv", "--out", tmp_path / "tasks")
    values["doctor"] = value_of("doctor", tmp_path / "pool")
    asked = {name for name, command in COMMANDS.items() if "as_json" in inspect.signature(command).parameters}
    assert values.keys() == asked - ASKED_ELSEWHERE
    assert values["plan"].keys() == PLANNED
    assert values["plan"]["preview"]["rows"] == 20
    assert 0 <= values["plan"]["check"]["quality"] <= 1
    assert values["status"].keys() == values["retry"].keys() == STATUS
    assert values["score"].keys() == SCORED
    done = values["score"]
    assert (done["status"], done["exit_code"], done["rows"]["scored"]) == ("done", 0, 600)
    assert Path(done["selection"]).exists()
    assert Path(done["report"]).exists()
    assert values["select"]["rows"] == 3
    assert values["verify"]["rows"] == 10
    assert {event["what"] for event in done["events"]} == {"claimed", "joined", "ended"}


def test_a_run_that_is_not_whole_says_so_in_the_exit_code_too(
    digit_config: Callable[..., Config], tmp_path: Path
) -> None:
    config = digit_config()
    (path := tmp_path / "config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    file = tmp_path / "pool" / "part-1.parquet"
    whole = file.read_bytes()
    footer = 8 + int.from_bytes(whole[-8:-4], "little")
    file.write_bytes(whole[:4] + bytes(len(whole) - 4 - footer) + whole[-footer:])
    value = value_of("score", path, code=3)
    assert (value["status"], value["exit_code"], value["shards"]["set_aside"]) == ("incomplete", 3, 3)
    events = [event["what"] for event in value["events"]]
    assert (events.count("failed"), events.count("set_aside"), events[-1]) == (9, 3, "ended")
    assert value_of("status", tmp_path / "run")["exit_code"] == 3


def test_what_goes_wrong_is_a_line_on_standard_error(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "poolscore.jobs", "status", str(tmp_path), "--json"]
    for form, said in (
        (None, f"poolscore: {tmp_path} is no run directory"),
        ("json", '"level": "error", "message": "'),
    ):
        environment = {**os.environ, "HOME": str(tmp_path), **({"POOLSCORE_LOG": form} if form else {})}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (2, "")
        assert said in done.stderr
        assert len(done.stderr.splitlines()) == 1
    wrong = subprocess.run(command, env={**os.environ, "POOLSCORE_LOG": "loud"}, capture_output=True, text=True)
    assert (wrong.returncode, wrong.stderr) == (2, "poolscore: POOLSCORE_LOG=loud: it is text or json\n")


def test_no_value_breaks_json(capsys: pytest.CaptureFixture[str]) -> None:
    scripts.result(
        {"a": float("nan"), "b": [float("inf"), np.float32(0.5)], 3: (np.int64(1), Path("x"), date(2026, 11, 23), True)}
    )
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [None, 0.5], "3": [1, "x", "2026-11-23", True]}
