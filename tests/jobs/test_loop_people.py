"""The loop with a labelling program, and with people: it hands a batch over, stops, and goes on when labels came."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import TESTS
from loop_parts import answer
from loop_workshop import FIRST, K, Workshop
from typer.testing import CliRunner

from poolscore.engine.errors import ConfigError, StoppedError
from poolscore.jobs.cli import app
from poolscore.jobs.label import import_labels
from poolscore.jobs.tasks import read_tasks


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    return Workshop.make(tmp_path)


def command(shop: Workshop, **truth: int) -> dict[str, Any]:
    """The labelling program of loop_parts.py, which skips one row of each batch, and leaves one out."""
    return {"command": {"run": f"{sys.executable} {TESTS / 'loop_parts.py'} {shop.write_truth(**truth)}"}}


def test_a_command_labels_what_it_can(shop: Workshop) -> None:
    result = shop.loop({"label": command(shop)})
    assert [point.labels for point in result.points] == [FIRST, FIRST + K - 2, FIRST + 2 * (K - 2)]
    batch = json.loads((shop.round(0) / "round.json").read_text())["batch"]
    assert batch == {"rows": K, "labelled": K - 2, "skipped": 1, "disputed": 0, "pending": 1}
    both = [*shop.ids(0, "run/selection.parquet"), *shop.ids(1, "run/selection.parquet")]
    assert len(set(both)) == 2 * K  # what was skipped or is pending is not asked for again
    assert set(shop.ids(2, "excluded.parquet")) == {*both, *shop.ids(0, "labelled.parquet")}
    assert "round 1, seed 1" in (shop.round(1) / "label.log").read_text()
    (shop.round(1) / "round.json").unlink()  # as if it had been killed before that
    (shop.round(1) / "label.log").unlink()
    assert shop.loop({"label": command(shop)}).points == result.points
    assert not (shop.round(1) / "label.log").exists(), "it is not called again for labels that are there"
    labels = pq.read_table(shop.round(1) / "labels.parquet")
    assert labels["round"].to_pylist() == [1] * (K - 2)
    assert all(shop.truth[row["id"]] == row["label"] for row in labels.to_pylist())


def test_a_command_that_fails_is_called_again(shop: Workshop) -> None:
    with pytest.raises(StoppedError, match=r"exit code 7 in bald, seed 0, round 0 \(no connection\); see .*label.log"):
        shop.loop({"label": command(shop, fail=1)})
    with pytest.raises(ConfigError, match=r"loop.label.command: it wrote no .*answers.csv"):
        shop.loop({"label": command(shop, silent=1)})
    with pytest.raises(ConfigError, match=r"cannot be started .*/nowhere/label: No such file"):
        shop.loop({"label": {"command": {"run": ["/nowhere/label"]}}})
    with pytest.raises(ConfigError, match="the label '7' is no class"):
        shop.loop({"label": command(shop, **dict.fromkeys(shop.truth, 7))})
    assert len(shop.loop({"label": command(shop), "stop": {"rounds": 1}}).points) == 2
    assert shop.trained == ["bald 0 6", "bald 1 9"]


def studio(shop: Workshop, number: int, rows: slice, skipped: int = 0) -> Path:
    """Label Studio's JSON export for some of a round's tasks; the first are cancelled."""
    tasks = json.loads((shop.round(number) / "tasks" / "labelstudio.json").read_text())[rows]
    done = []
    for i, task in enumerate(tasks):
        value = {"choices": [str(shop.truth[task["data"]["pool_id"]])]}
        result = [{"from_name": "label", "to_name": "values", "type": "choices", "value": value}]
        annotation = {"completed_by": "ann@example.com", "result": result, "was_cancelled": i < skipped}
        done.append({"id": i + 1, "data": task["data"], "annotations": [annotation]})
    path = shop.folder / f"project-{number}-{rows.start}.json"
    path.write_text(json.dumps(done))
    return path


def come(shop: Workshop, number: int, answers: Path) -> None:
    at = shop.round(number)
    import_labels(str(at / "tasks"), str(answers), str(at / "labels.parquet"), round_number=number)


def test_people_answer_in_label_studio_in_parts(shop: Workshop) -> None:
    loop = {"label": {"pause": {"to": "labelstudio"}}, "stop": {"rounds": 1}}
    waiting = shop.loop(loop)
    assert waiting.exit_code == 4
    assert waiting.ended == {"bald/seed-0": None}
    assert waiting.waiting is not None
    assert waiting.waiting.lines == [
        "bald, seed 0, round 0 waits for people: 0 of 5 rows answered",
        f"they label what is in {shop.round(0) / 'tasks'} (labelstudio.json, labelstudio.xml)",
        f"then: poolscore label import {shop.round(0) / 'tasks'} ANSWERS --labels {shop.round(0) / 'labels.parquet'} "
        "--round 0",
        "and the same command goes on",
    ]
    assert read_tasks(str(shop.round(0) / "tasks")).options["files_at"] == (
        "/data/local-files/?d=loop/bald/seed-0/round-000/tasks/"
    )
    come(shop, 0, studio(shop, 0, slice(0, 3), skipped=1))
    waiting = shop.loop(loop)
    assert waiting.waiting is not None
    assert "3 of 5 rows answered" in waiting.waiting.lines[0]
    come(shop, 0, studio(shop, 0, slice(3, 5)))
    result = shop.loop(loop)
    assert (result.exit_code, [point.labels for point in result.points]) == (0, [FIRST, FIRST + K - 1])
    assert shop.trained == ["bald 0 6", "bald 1 10"]


def test_some_of_a_batch_may_be_enough_and_the_rest_comes_later(shop: Workshop) -> None:
    loop = {"label": {"pause": {"to": "csv", "answered": 0.6}}, "stop": {"rounds": 2}}
    shop.loop(loop)
    tasks, answers = shop.round(0) / "tasks", shop.folder / "answers.csv"
    how = (tasks / "how-to-label.txt").read_text()
    assert f"poolscore label import {tasks} ANSWERS --labels {shop.round(0) / 'labels.parquet'} --round 0" in how
    assert "  class numbers, from 0 to 2\n" in how
    answer(tasks, answers, shop.truth, left_out=1)
    come(shop, 0, answers)
    assert [point.labels for point in shop.loop(loop).points] == [FIRST, FIRST + K - 2]
    answer(tasks, answers, {i: (c + 1) % 3 for i, c in shop.truth.items()})  # corrected, and with the last row
    import_labels(str(tasks), str(answers), str(shop.round(0) / "labels.parquet"), replace_old=True)
    answer(shop.round(1) / "tasks", answers, shop.truth)
    come(shop, 1, answers)
    assert [point.labels for point in shop.loop(loop).points] == [FIRST, FIRST + K - 2, FIRST + 2 * (K - 1)]
    table = pq.read_table(shop.round(2) / "labelled.parquet")
    assert sorted(table["round"].to_pylist(), key=str) == [0] * 4 + [1] * 4 + [None] * FIRST
    for row in table.to_pylist():
        assert row["label"] == (shop.truth[row["id"]] + (row["round"] == 0)) % 3
    pool = {row["id"]: row["a"] for row in pq.read_table(shop.folder / "pool").to_pylist()}
    assert all(pool[row["id"]] == row["a"] for row in table.to_pylist())


def test_a_label_that_the_model_has_not_is_refused(shop: Workshop) -> None:
    first, names = pq.read_table(shop.folder / "first.parquet"), ["x", "y", "z"]
    named = pa.array([names[label] for label in first["label"].to_pylist()])
    pq.write_table(first.set_column(3, "label", named), shop.folder / "first.parquet")
    loop, model = {"label": {"pause": {"to": "csv"}}, "stop": {"rounds": 1}}, {"classes": names}
    shop.loop(loop, model=model)
    assert pq.read_table(shop.round(0) / "labelled.parquet")["label"].to_pylist() == named.to_pylist()
    answers = shop.folder / "answers.csv"
    answer(shop.round(0) / "tasks", answers, dict.fromkeys(shop.truth, "new"))
    with pytest.raises(ConfigError, match="the label 'new' is no class"):
        come(shop, 0, answers)
    at = shop.round(0)
    import_labels(str(at / "tasks"), str(answers), str(at / "labels.parquet"), classes=[*names, "new"])
    with pytest.raises(ConfigError, match=r"labels.parquet \('r\d+'\): the label 'new' is no class; .* x, y, z"):
        shop.loop(loop, model=model)


def test_what_a_tool_cannot_ask_is_told_first(shop: Workshop) -> None:
    with pytest.raises(ConfigError, match=r"model.classes: name the classes, or give their number, to ask for them"):
        shop.loop({"label": {"pause": {"to": "cvat"}}}, model={"classes": None})
    assert not (shop.folder / "loop").exists()


def test_the_command_line(shop: Workshop) -> None:
    config = shop.folder / "c.yaml"
    config.write_text(json.dumps(shop.data({"label": {"pause": {"to": "csv"}}, "stop": {"rounds": 1}})))
    shown = CliRunner().invoke(app, ["loop", str(config)])
    assert shown.exit_code == 4, shown.output
    assert "bald, seed 0, round 0: accuracy 0." in shown.output
    assert "waits for people: 0 of 5 rows answered" in shown.output
    at, answers = shop.round(0), shop.folder / "answers.csv"
    answer(at / "tasks", answers, shop.truth)
    words = ["label", "import", str(at / "tasks"), str(answers), "--labels", str(at / "labels.parquet"), "--round", "0"]
    assert CliRunner().invoke(app, words).exit_code == 0
    shown = CliRunner().invoke(app, ["loop", str(config), "--json"])
    assert shown.exit_code == 0, shown.output
    result = json.loads(shown.stdout)
    assert result["exit_code"] == 0
    assert result["ended"] == {"bald/seed-0": "all of loop.stop.rounds=1 are done"}
    assert [point["labels"] for point in result["points"]] == [6, 10]
    config.write_text(json.dumps({k: v for k, v in shop.data().items() if k != "loop"}))
    shown = CliRunner().invoke(app, ["loop", str(config)])
    assert "has no section 'loop:'" in str(shown.exception)
