"""`select` over one run and several, and `compare`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from test_compare import two_runs
from typer.testing import CliRunner

from poolscore.engine.errors import ConfigError
from poolscore.jobs.cli import app


def poolscore(*arguments: object) -> str:
    """What a command prints."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if isinstance(result.exception, Exception):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_select_by_chance_from_two_runs(tmp_path: Path) -> None:
    a, b, _, _ = two_runs(tmp_path)
    options = ("--name", "next", "--k", 12, "--method", "power", "--beta", 4, "--seed", 3)
    shown = poolscore("select", a.storage.root, b.storage.root, *options)
    assert "12 rows in" in shown
    table = pq.read_table(a.storage.path("selections/next.parquet"))
    assert table.num_rows == 12
    assert len(set(table["id"].to_pylist())) == 12
    assert set(table["method"].to_pylist()) == {"power"}
    assert set(table["run"].to_pylist()) <= {a.storage.root, b.storage.root}
    assert np.isfinite(table["perturbed_score"].to_numpy()).all()
    manifest = json.loads(a.storage.read("selections/next.json"))
    expected = {"method": "power", "score": "bald", "k": 12, "beta": 4.0, "seed": 3, "rows": 12, "exclude": None}
    assert manifest.items() >= expected.items()


def test_select_says_what_is_wrong(tmp_path: Path) -> None:
    a, b, _, _ = two_runs(tmp_path)
    with pytest.raises(ConfigError, match="--method best: there are topk"):
        poolscore("select", a.storage.root, "--name", "x", "--method", "best")
    with pytest.raises(ConfigError, match=r"k: 999 rows are asked for, 220 scored rows are left"):
        poolscore("select", a.storage.root, b.storage.root, "--name", "x", "--k", 999)
    assert a.storage.names("selections") == []


def test_select_under_caps_with_control_rows(tmp_path: Path) -> None:
    a, b, _, _ = two_runs(tmp_path)
    caps = ("--max-per-group", "camera=4", "--max-per-group", "prediction=5", "--quota", "1=2")
    both = ("select", a.storage.root, b.storage.root)
    shown = poolscore(*both, "--name", "next", "--k", 10, *caps, "--control", 0.2)
    assert "note: 2 rows of them drawn at random from all that are scored" in shown
    assert "of the best 10 gave way, for groups of theirs were full (max_per_group camera=4, " in shown
    table = pq.read_table(a.storage.path("selections/next.parquet"))
    assert sorted(table["method"].to_pylist()) == ["control"] * 2 + ["topk"] * 8
    for column, most in (("camera", 4), ("prediction", 5)):
        assert max(Counter(table[column].to_pylist()).values()) <= most
    expected = {"max_per_group": {"camera": 4, "prediction": 5}, "quotas": {"1": 2}, "control": 0.2, "control_rows": 2}
    assert json.loads(a.storage.read("selections/next.json")).items() >= expected.items()
    assert json.loads(table.schema.metadata[b"poolscore"]).items() >= expected.items()
    with pytest.raises(ConfigError, match=r"k: 30 rows are asked for, .* under the caps \(max_per_group camera=1\)"):
        poolscore(*both, "--name", "x", "--k", 30, "--max-per-group", "camera=1")
    for option, given in (("--max-per-group", "camera"), ("--quota", "=3"), ("--quota", "1=x"), ("--quota", "1=-1")):
        with pytest.raises(ConfigError, match=rf"^{option} "):
            poolscore("select", a.storage.root, "--name", "x", option, given)
    with pytest.raises(ConfigError, match="near_duplicates: a shortlist is of one run"):
        poolscore(*both, "--name", "x", "--max-per-group", "near_duplicates=1")
    with pytest.raises(ConfigError, match="has no shortlist"):
        poolscore("select", a.storage.root, "--name", "x", "--max-per-group", "near_duplicates=1")


def test_what_is_given_twice_or_taken_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = two_runs(tmp_path)[0].storage.root
    for option, given in (("--quota", "3"), ("--max-per-group", "camera")):
        with pytest.raises(ConfigError, match=rf"^{option} {given}=7: '{given}' is given twice"):
            poolscore("select", run, "--name", "x", option, f"{given}=5", option, f"{given}=7")
    poolscore("select", run, "--name", "x")
    monkeypatch.setattr("poolscore.engine.selection.batch.selected", None)  # nothing is selected any more
    with pytest.raises(ConfigError, match=r"--name x: exists in .*selections; choose another name"):
        poolscore("select", run, "--name", "x")


def test_none_takes_the_caps_of_the_configuration_off(tmp_path: Path) -> None:
    run = two_runs(tmp_path)[0]
    select = {"k": 10, "max_per_group": {"camera": 1}, "quotas": {"1": 1}}
    config = {**run.info["config"], "select": {**run.info["config"]["select"], **select}}
    run.update(config=config)
    off = ("--max-per-group", "none", "--quota", "none")
    poolscore("select", run.storage.root, "--name", "capped")
    poolscore("select", run.storage.root, "--name", "free", *off)
    rows = [pq.read_table(run.storage.path(f"selections/{name}.parquet")).num_rows for name in ("capped", "free")]
    assert rows[0] < rows[1] == 10
    assert "max_per_group" not in json.loads(run.storage.read("selections/free.json"))
    with pytest.raises(ConfigError, match="--quota none: expected NAME=ROWS"):
        poolscore("select", run.storage.root, "--name", "x", "--quota", "1=1", "--quota", "none")


def test_compare(tmp_path: Path) -> None:
    a, b, _, _ = two_runs(tmp_path)
    out = tmp_path / "only.parquet"
    shown = poolscore("compare", a.storage.root, b.storage.root, "--by", "camera", "--out", out)
    assert "Spearman's rank correlation over them: 0." in shown
    found = json.loads(poolscore("compare", a.storage.root, b.storage.root, "--by", "camera", "--json"))
    assert pq.read_table(out).num_rows == found["only_a"] + found["only_b"]
    assert {group["value"] for group in found["groups"]} == {"a", "b", "c"}


def test_selecting_comparing_and_following_import_neither_torch_nor_ray(tmp_path: Path) -> None:
    a, b, _, _ = two_runs(tmp_path)
    a.end("done", 0)
    code = f"""
import sys
from typer.testing import CliRunner
from poolscore.jobs.cli import app
for arguments in (["select", {a.storage.root!r}, "--name", "n", "--method", "softrank"],
                  ["compare", {a.storage.root!r}, {b.storage.root!r}],
                  ["status", {a.storage.root!r}, "--follow", "--json"]):
    assert CliRunner().invoke(app, arguments).exit_code == 0
sys.exit(bool({{"torch", "ray", "triton", "PIL"}} & set(sys.modules)))
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
