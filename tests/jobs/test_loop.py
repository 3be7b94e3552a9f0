"""The loop with an oracle: rounds, arms, seeds and stopping rules, and what is written of them."""

from __future__ import annotations

import csv
import io
import json
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from loop_workshop import FIRST, ROWS, K, Workshop, train_here

from poolscore.engine.config.loop import StopConfig, TargetConfig
from poolscore.engine.errors import ConfigError
from poolscore.jobs.loop import Point, picture, run, run_loop, training
from poolscore.jobs.loop.curve import as_csv, in_words, labels_to
from poolscore.jobs.loop.page import Told, html
from poolscore.jobs.loop.stop import after_scoring, after_training


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    """Its trainings run in this process, which is quicker; test_loop_stopped.py has them in their own."""
    monkeypatch.setattr(training, "run_logged", train_here)
    return Workshop.make(tmp_path)


def rows_of(curve: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(curve)))


def test_rounds_add_what_is_selected_and_nothing_twice(shop: Workshop) -> None:
    told: list[str] = []
    result = run_loop(shop.config(), on_progress=told.append)
    assert result.exit_code == 0
    assert result.ended == {"bald/seed-0": "all of loop.stop.rounds=2 are done"}
    assert [(point.round, point.labels) for point in result.points] == [(0, FIRST), (1, FIRST + K), (2, FIRST + 2 * K)]
    assert [row["labels"] for row in rows_of(shop.curve)] == ["6", "11", "16"]
    assert list(rows_of(shop.curve)[0]) == ["arm", "seed", "round", "labels", "accuracy", "loss"]
    for number in (1, 2):
        before, batch = shop.ids(number - 1, "labelled.parquet"), shop.ids(number - 1, "run/selection.parquet")
        assert sorted(shop.ids(number, "labelled.parquet")) == sorted(before + batch)
        assert shop.ids(number, "excluded.parquet") == [*shop.ids(number - 1, "excluded.parquet"), *batch]
    last = pq.read_table(shop.round(2) / "labelled.parquet")
    assert last.column_names == ["id", "label", "round", "a", "b"]
    assert all(shop.truth[row["id"]] == row["label"] for row in last.to_pylist())
    assert last["round"].to_pylist() == [None] * FIRST + [0] * K + [1] * K
    pool = {row["id"]: (row["a"], row["b"]) for row in pq.read_table(shop.folder / "pool").to_pylist()}
    assert all(pool[row["id"]] == (row["a"], row["b"]) for row in last.to_pylist())
    assert shop.trained == ["bald 0 6", "bald 1 11", "bald 2 16"]
    assert "bald, seed 0, round 0: 5 of 5 rows labelled" in told


def test_the_same_command_again_does_nothing_and_more_rounds_go_on(shop: Workshop) -> None:
    shop.loop()
    curve, written = shop.curve, (shop.round(0) / "run" / "run.json").read_bytes()
    shop.loop()
    assert (shop.curve, len(shop.trained)) == (curve, 3)
    assert (shop.round(0) / "run" / "run.json").read_bytes() == written
    longer = shop.loop({"stop": {"rounds": 3}})
    assert shop.curve.startswith(curve)
    assert (len(longer.points), len(shop.trained)) == (4, 4)


def test_arms_and_seeds_begin_alike_and_differ(shop: Workshop) -> None:
    result = shop.loop({"seeds": [3, 4], "control": "random"})
    assert list(result.ended) == ["bald/seed-3", "bald/seed-4", "random/seed-3", "random/seed-4"]
    table = rows_of(shop.curve)
    assert [(row["arm"], row["seed"], row["round"]) for row in table[::3]] == [
        (arm, seed, "0") for arm in ("bald", "random") for seed in ("3", "4")
    ]
    assert table[0]["accuracy"] == table[6]["accuracy"]  # same seed, same labels, same weights
    batches = {
        tuple(shop.ids(0, "run/selection.parquet", arm=arm, seed=seed)) for arm in ("bald", "random") for seed in (3, 4)
    }
    assert len(batches) == 4
    assert "random 3001 11" in shop.trained


@pytest.mark.parametrize("oracle", [{"label": "truth"}, {"table": "truth.csv", "id": "name", "label": "class"}])
def test_an_oracle_in_the_pool_or_a_csv(shop: Workshop, oracle: dict[str, str]) -> None:
    lines = [f"{name},{label}" for name, label in shop.truth.items()]
    (shop.folder / "truth.csv").write_text("\n".join(["name,class", *lines]))
    shop.loop({"label": {"oracle": oracle}, "stop": {"rounds": 1}})
    table = pq.read_table(shop.round(1) / "labelled.parquet")
    assert len(table) == FIRST + K
    assert all(shop.truth[row["id"]] == row["label"] for row in table.to_pylist())


def test_first_labels_for_each_seed(shop: Workshop) -> None:
    table = pq.read_table(shop.folder / "first.parquet")
    pq.write_table(table.slice(0, 4), shop.folder / "first-1.parquet")
    pq.write_table(table.slice(1, 5), shop.folder / "first-2.parquet")
    shop.loop({"labelled": "first-{seed}.parquet", "seeds": [1, 2], "stop": {"rounds": 1}})
    assert [row["labels"] for row in rows_of(shop.curve)] == ["4", "9", "5", "10"]


def test_labels_without_inputs_from_a_csv_and_a_kept_column(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    first = pq.read_table(shop.folder / "first.parquet", columns=["id", "label"])
    pa.csv.write_csv(first, shop.folder / "first.csv")
    way = {"oracle": {"label": "truth"}}
    with pytest.raises(ConfigError, match="raised KeyError"):  # the training wants columns a and b
        shop.loop({"labelled": "first.csv", "label": way})
    table = pq.read_table(shop.round(0) / "labelled.parquet")
    assert table.drop_columns(["round"]).to_pydict() == first.to_pydict()


def test_a_sample_is_drawn_anew(shop: Workshop) -> None:
    result = shop.loop(pool={"sample": 30}, select={"k": 18})  # of which 12 would be left
    assert [point.labels for point in result.points] == [6, 24, 42]


def test_scores_of_the_last_rounds_are_kept(shop: Workshop) -> None:
    def kept() -> list[bool]:
        return [(shop.round(n) / "run" / "scores").exists() for n in range(4)]

    shop.loop({"stop": {"rounds": 3}})
    curve = shop.curve
    assert kept() == [True, True, True, False], "all, if nothing is said; for the last model nothing is scored"
    for number in range(3):
        (shop.round(number) / "round.json").unlink()
    shop.loop({"stop": {"rounds": 3}, "keep": "last"})
    assert (kept(), shop.curve) == ([False, False, True, False], curve)
    shop.loop({"stop": {"rounds": 4}, "keep": "last"})
    assert (kept(), len(shop.ids(4, "labelled.parquet"))) == ([False, False, False, True], FIRST + 4 * K)
    assert (shop.round(0) / "run" / "selection.parquet").exists()


def test_a_budget_that_the_first_labels_use_up_is_told(shop: Workshop) -> None:
    told: list[str] = []
    result = run_loop(shop.config({"stop": {"budget": FIRST}}), on_progress=told.append)
    (line,) = [line for line in told if line.startswith("loop.stop.budget=6 counts the first labels")]
    assert "seed 0 has 6 of them" in line
    assert len(result.points) == 1
    run_loop(shop.config({"stop": {"budget": FIRST + 1}}), on_progress=told.append)
    first = pq.read_table(shop.folder / "first.parquet")  # of one row a second person says the same
    pq.write_table(pa.concat_tables([first, first.slice(0, 1)]), shop.folder / "first.parquet")
    run_loop(shop.config({"stop": {"budget": FIRST + 1}, "dir": "other"}), on_progress=told.append)
    assert sum("counts the first labels" in line for line in told) == 1


def test_a_training_without_metrics_is_told(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(shop.folder))
    (shop.folder / "silent.py").write_text("import loop_parts\ndef train(*given):\n    loop_parts.train(*given)\n")
    told: list[str] = []
    run_loop(shop.config({"train": "silent:train"}), on_progress=told.append)
    (line,) = [line for line in told if "returned no metrics" in line]
    assert line.startswith("bald, seed 0, round 0: silent:train returned no metrics")
    assert list(rows_of(shop.curve)[0]) == ["arm", "seed", "round", "labels"]


def test_curves_that_are_there_and_not_asked_for_are_told(shop: Workshop) -> None:
    told: list[str] = []
    run_loop(shop.config({"seeds": [0, 1], "stop": {"rounds": 1}}), on_progress=told.append)
    assert not [line for line in told if "has other curves" in line]
    run_loop(shop.config({"seeds": [0], "stop": {"rounds": 1}}), on_progress=told.append)
    (line,) = [line for line in told if "has other curves" in line]
    assert "(bald/seed-1)" in line
    assert {row["seed"] for row in rows_of(shop.curve)} == {"0"}


def test_first_labels_from_elsewhere_are_told(shop: Workshop) -> None:
    told: list[str] = []
    run_loop(shop.config({"stop": {"rounds": 1}}), on_progress=told.append)
    assert "bald, seed 0, round 0: 6 ids with first labels leave out 6 rows of the pool" in told
    first = pq.read_table(shop.folder / "first.parquet")
    first = first.set_column(0, "id", pa.array([f"x{i}" for i in range(FIRST)]))
    pq.write_table(first, shop.folder / "first.parquet")
    run_loop(shop.config({"stop": {"rounds": 1}, "dir": "other"}), on_progress=told.append)
    assert any("leave out 0 rows of the pool, as it should be where" in line for line in told)


def test_other_code_of_the_training_is_told(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(shop.folder))
    mine = "import helper, loop_parts\ndef train(*given):\n    return loop_parts.train(*given)\n"
    (shop.folder / "mine.py").write_text(mine)

    def lines(rounds: int, helper: str) -> int:
        (shop.folder / "helper.py").write_text(helper)
        for name in ("mine", "helper"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        told: list[str] = []
        run_loop(shop.config({"train": "mine:train", "stop": {"rounds": rounds}}), on_progress=told.append)
        return sum("the files with the code of mine:train have changed" in line for line in told)

    def code(number: int) -> Any:
        return json.loads((shop.round(number) / "round.json").read_text())["trained"]["code"]

    assert lines(1, "RATE = 1") == 0
    assert lines(2, "RATE = 1  # a word about it") == 0
    assert lines(4, "RATE = 2") == 1, "once, for the rounds 3 and 4"
    assert code(0) == code(2) != code(3) == code(4)
    scored = json.loads((shop.round(3) / "round.json").read_text())["scored"]
    assert len(scored["model_code"]) == 32


def test_earlier_runs_may_be_taken_away(shop: Workshop) -> None:
    shop.loop()
    for number in (0, 1):
        (shop.round(number) / "run" / "selection.parquet").rename(shop.folder / f"{number}.parquet")
    (shop.folder / "1.parquet").rename(shop.round(1) / "run" / "selection.parquet")
    assert shop.loop({"stop": {"rounds": 3}}).points[-1].labels == FIRST + 3 * K


@pytest.mark.parametrize(
    ("stop", "why", "labels"),
    [
        ({"budget": 13}, "the budget of 13 labels is used up", [6, 11, 13]),
        ({"rounds": 1, "budget": 50}, "all of loop.stop.rounds=1 are done", [6, 11]),
        (
            {"rounds": 9, "target": {"metric": "loss", "at_most": 0.305}},
            "the target is reached: loss of at most 0.305, with 0.3015 on 11 labels",
            [6, 11],
        ),
        ({"budget": 1000}, "the pool has no rows left", [6, 46, ROWS]),
    ],
)
def test_stopping_rules(shop: Workshop, stop: dict[str, Any], why: str, labels: list[int]) -> None:
    k = 40 if why.startswith("the pool") else K
    result = shop.loop({"stop": stop}, select={"k": k})
    if k == 40:
        labels = [6, 46, 86, ROWS]
    assert result.ended == {"bald/seed-0": why}
    assert [point.labels for point in result.points] == labels
    assert json.loads((shop.round(len(labels) - 1) / "round.json").read_text())["stopped"] == why


def test_score_mass(shop: Workshop) -> None:
    result = shop.loop({"stop": {"rounds": 9, "score_mass": 0.999}})
    (why,) = result.ended.values()
    assert why is not None
    assert why.startswith("the pool's bald has fallen to ")
    last = result.points[-1].round
    masses = [json.loads((shop.round(n) / "scored.json").read_text())["mass"] for n in range(last + 1)]
    assert masses[-1] < 0.999 * masses[0] <= min(masses[:-1])
    parts = [pq.read_table(path)["bald"] for path in (shop.round(0) / "run" / "scores").glob("*.parquet")]
    values = [float(v) for part in parts for v in part.to_pylist()]
    assert masses[0] == pytest.approx(sum(values) / len(values))
    assert not (shop.round(last) / "labels.parquet").exists()
    shop.loop({"stop": {"rounds": last + 1}})  # another rule: the batch that is there is labelled
    assert (shop.round(last) / "labels.parquet").exists()


def test_the_end_of_a_sample(shop: Workshop) -> None:
    """Drawn among all rows, the labelled ones too: a batch is what of it is left."""
    result = shop.loop({"stop": {"rounds": 4}}, select={"k": 8}, pool={"sample": 10})
    labels = [point.labels for point in result.points]
    assert all(0 < after - before <= 8 for before, after in pairwise(labels))
    assert min(after - before for before, after in pairwise(labels)) < 8


def test_rules_in_words() -> None:
    stop = StopConfig(rounds=5, target=TargetConfig(metric="f1", at_least=0.9), score_mass=0.1)
    assert after_training(stop, 4, 10, {"f1": 0.89}) is None
    assert after_training(stop, 5, 10, {"f1": 0.89}) == "all of loop.stop.rounds=5 are done"
    assert (
        after_training(stop, 1, 10, {"f1": 0.9}) == "the target is reached: f1 of at least 0.9, with 0.9 on 10 labels"
    )
    assert after_scoring(stop, "bald", 0.1, 1.0) is None
    assert after_scoring(stop, "bald", 0.09, 1.0) == (
        "the pool's bald has fallen to 9.0% of the first round's (loop.stop.score_mass=0.1)"
    )
    assert after_scoring(stop, "random", None, None) is None
    with pytest.raises(ConfigError, match="train returned no metric 'f1'; it returned: accuracy, loss"):
        after_training(stop, 0, 10, {"accuracy": 1, "loss": 2})


def points(arm: str, seed: int, *accuracies: float) -> list[Point]:
    return [Point(arm, seed, i, 10 * (i + 1), {"accuracy": a}) for i, a in enumerate(accuracies)]


def test_labels_to_a_target() -> None:
    target = TargetConfig(metric="accuracy", at_least=0.9)
    found = [*points("bald", 0, 0.8, 0.9, 0.7), *points("bald", 1, 0.95), *points("random", 0, 0.1, 0.2)]
    labels = labels_to(found, target, (0, 1))
    assert labels == {"bald": [20, 10], "random": [None]}
    assert in_words(labels, target) == "labels to accuracy of at least 0.9: bald 10 / 20, random not reached"


def test_metrics_that_are_not_always_there() -> None:
    found = [Point("a", 0, 0, 5, {"x": 0.5}), Point("a", 0, 1, 9, {"y": 0.25})]
    assert as_csv(found) == b"arm,seed,round,labels,x,y\na,0,0,5,0.5,\na,0,1,9,,0.25\n"


def test_the_page_escapes_and_leads_to_the_rounds(shop: Workshop) -> None:
    shop.loop({"control": "random", "stop": {"rounds": 2, "target": {"metric": "accuracy", "at_least": 0.999}}})
    page = (shop.folder / "loop" / "loop_report.html").read_text()
    assert '<a href="bald/seed-0/round-001/run/report.html">report</a>' in page
    assert (shop.round(1) / "run" / "report.html").exists()
    assert "Labels to accuracy of at least 0.999: bald not reached, random not reached" in page
    assert page.count("<polyline") >= 2 * 2  # two arms, two metrics
    evil = "<script>alert(1)</script>"
    written = html(Told(shop.folder, points(evil, 0, 0.5), {evil: evil}, evil, evil, evil))
    assert "<script" not in written
    assert "&lt;script&gt;" in written


def test_a_picture_where_matplotlib_is_installed(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(run, "can_draw", lambda: False)
    monkeypatch.setattr(picture, "can_draw", lambda: False)
    result = run_loop(shop.config({"stop": {"rounds": 1}}), on_progress=told.append)
    assert result.picture is None
    assert sum("no curve.png: matplotlib is not installed" in line for line in told) == 1
    pytest.importorskip("matplotlib")
    drawn = picture.draw(shop.folder, result.points)
    assert drawn is not None
    assert Path(drawn).read_bytes().startswith(b"\x89PNG")


def test_a_round_with_shards_that_could_not_be_scored_is_told(shop: Workshop) -> None:
    from dataclasses import replace

    from poolscore.jobs.loop.run import score_and_report

    result = run_loop(shop.config(), score=lambda config: replace(score_and_report(config), exit_code=3))
    assert (result.exit_code, result.to_look_at[0]) == (3, "bald/seed-0/round-000/run")
