"""`explain` at the command line, over a run whose pool and model are gone; and what is said of near-duplicates."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from poolscore.engine import RunDirectory, score_pool
from poolscore.engine.config import Config
from poolscore.engine.errors import ConfigError
from poolscore.engine.explain.find import Standing
from poolscore.engine.explain.picked import Membership
from poolscore.engine.selection.batch import select_batch
from poolscore.jobs.cli import app
from poolscore.jobs.explain import membership_in_words
from poolscore.jobs.report import write_report


def poolscore(*arguments: object) -> str:
    """What a command prints."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if isinstance(result.exception, Exception):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def run(tmp_path: Path, digit_config: Callable[..., Config]) -> RunDirectory:
    """A finished run; its pool and its weights are gone."""
    pool = tmp_path / "pool"
    config = digit_config(select={"k": 20}, shortlist={"rows": 50})
    score_pool(config)
    shutil.rmtree(pool)
    (tmp_path / "weights.pt").unlink()
    return RunDirectory(config.run.dir)


def test_a_row_is_explained_from_the_run_directory_alone(run: RunDirectory, tmp_path: Path) -> None:
    said = json.loads(run.storage.read("run.json"))["near_duplicates"]
    assert (said["rows"], said["known"]) == (20, 20)
    shown = poolscore("select", run.storage.root, "--name", "next", "--k", 60)
    assert f" of the {said['known'] + 30:,} rows that are on a shortlist (" in shown
    manifest = json.loads(run.storage.read("selections/next.json"))["near_duplicates"]
    assert (manifest["rows"], manifest["known"]) == (60, 50)
    write_report(run)
    assert f"Near-duplicates: {said['repeated']} of 20 rows" in run.storage.read("report.html").decode()

    picture = tmp_path / "out.png"
    best = json.loads(poolscore("explain", run.storage.root, "--row-id", _row_ids(run)[0], "--json"))[0]
    shown = poolscore("explain", run.storage.root, best["id"], "--thumbnail", picture)
    assert f"row {best['id']}" in shown
    assert "selection.parquet: rank 1 of 20, by topk, bald " in shown
    assert "what its 5 passes said" in shown
    assert "nearest rows of the batch" in shown
    assert best["scores"]["bald"]["rank"] == 1
    first = best["shortlist"]["passes"]["columns"][0]
    assert first["number"] == best["prediction"]
    assert first["mean"] == pytest.approx(best["confidence"], abs=1e-6)
    assert len(best["shortlist"]["nearest"]) == 5
    assert best["kept"].keys() == {"label"}
    with Image.open(io.BytesIO(picture.read_bytes())) as thumbnail:
        assert thumbnail.size == (8, 8)

    last = json.loads(poolscore("explain", run.storage.root, "--row-id", _row_ids(run)[-1], "--json"))[0]
    assert last["shortlist"] is None
    shown = poolscore("explain", run.storage.root, last["id"])
    assert "selection.parquet: not in it, place 600 by bald, and it has 20 rows" in shown
    assert "the row is not on the shortlist" in shown
    with pytest.raises(ConfigError, match="--thumbnail: there is none of this row"):
        poolscore("explain", run.storage.root, last["id"], "--thumbnail", picture)
    with pytest.raises(ConfigError, match="no scored or rejected row has the id 'digit-99999'") as unknown:
        poolscore("explain", run.storage.root, "digit-99999")
    assert unknown.value.exit_code == 2


def _row_ids(run: RunDirectory) -> list[int]:
    return [int(row_id) for row_id in select_batch(run, run.config, k=600)["row_id"].to_pylist()]


def test_why_a_row_is_or_is_not_in_a_selection() -> None:
    standings = (Standing("bald", 0.5, 7, 100),)
    why = {"rank": 1200, "method": "batchbald", "score_name": "bald", "score": 0.5, "step": 4, "gain": 0.25}
    control = {"rank": 3, "method": "control", "score_name": "bald", "score": 0.5}
    by_gain = "rank 1,200 of 2,000, by batchbald, bald 0.5000, step 4, gain 0.2500"
    cases = [
        (Membership("s", 2000, "bald", "batchbald", why), by_gain),
        (Membership("s", 2000, "bald", "topk", control), "rank 3 of 2,000, drawn at random from all rows, bald 0.5000"),
        (Membership("s", 5, "bald", "topk", None), "not in it, place 7 by bald, and it has 5 rows"),
        (Membership("s", 9, "bald", "topk", None, "left out by x"), "7 by bald, and it has 9 rows: left out by x"),
        (Membership("s", 9, "bald", "power", None), "place 7 by bald, and it has 9 rows, chosen by power"),
        (Membership("s", 9, "margin", "kcenter", None, "no candidate"), "s: not in it, no candidate"),
        (Membership("s", 0, None, None, None), "not in it, it has 0 rows"),
    ]
    for membership, words in cases:
        assert membership_in_words(membership, standings).endswith(words)
