"""Evidence on a toy scale: the loop, what its curves come to, and that an interrupted one goes on."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from idx_files import write_idx

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "evidence"))

import curves
import experiment
import loop
import repeated_mnist
from experiment import prepare
from repeated_mnist import EXPERIMENT, RepeatedSetting, repeats
from report import README, report

NAMES = ("repeated_mnist", "mnist_acquisition", "vehicles", "relevance", "uci_regression", "uci_paper", "intents",
         "softmax_not_enough", "calibration")  # fmt: skip
TINY = RepeatedSetting(labels=40, step=10, device="cpu", images=30, passes=3, steps=2)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a pool of 90 rows, made from files like those of MNIST."""
    folder, rng = tmp_path_factory.mktemp("tiny"), np.random.default_rng(0)
    for part, rows in (("train", 40), ("t10k", 20)):
        write_idx(folder / f"{part}-images-idx3-ubyte.gz", rng.integers(0, 256, (rows, 28, 28)))
        write_idx(folder / f"{part}-labels-idx1-ubyte.gz", np.arange(rows) % 10)
    prepare(EXPERIMENT, folder / "work", folder, TINY)
    return folder / "work"


def subject_of(work: Path) -> loop.Subject:
    return repeated_mnist.subject(work, TINY, "power", 1)


def curve_of(work: Path, to: Path, until: int, method: str = "power") -> list[loop.Round]:
    rounds = loop.run_curve(subject_of(work), EXPERIMENT.methods[method], 1, 10, until, to)
    return [replace(done, training=0, selecting=0) for done in rounds]


class Interrupted(Exception):
    pass


def test_a_curve_goes_on_where_it_was_interrupted(tiny: Path, tmp_path: Path) -> None:
    whole = curve_of(tiny, tmp_path / "whole", 40)
    assert [done.labels for done in whole] == [20, 30, 40]
    assert [len(done.picked) for done in whole] == [10, 10, 0]

    def stop(done: loop.Round) -> None:
        raise Interrupted

    for _ in range(2):
        with pytest.raises(Interrupted):
            loop.run_curve(subject_of(tiny), EXPERIMENT.methods["power"], 1, 10, 40, tmp_path / "parts", stop)
    assert curve_of(tiny, tmp_path / "parts", 40) == whole
    shorter = curve_of(tiny, tmp_path / "longer", 30)
    assert curve_of(tiny, tmp_path / "longer", 40) == whole, "a longer curve begins like a shorter one"
    assert curve_of(tiny, tmp_path / "longer", 30) == shorter


def test_nothing_is_labelled_twice_and_batches_come_from_their_methods(tiny: Path, tmp_path: Path) -> None:
    picked, by = {}, {}
    for method in EXPERIMENT.methods:
        rounds = curve_of(tiny, tmp_path / method, 30, method)
        ids = subject_of(tiny).start(1) + [row for done in rounds for row in done.picked]
        assert len(set(ids)) == 30
        picked[method], by[method] = tuple(rounds[0].picked), set(rounds[0].methods)
    assert len({picked[method] for method in ("random", "bald", "power")}) == 3
    assert by == {"random": {"topk"}, "bald": {"topk"}, "power": {"power"}, "batchbald": {"batchbald"}}


def test_first_labels_are_balanced_and_copies_lie_where_they_are_counted(tiny: Path) -> None:
    x, y = np.load(tiny / "x.npy"), np.load(tiny / "y.npy")
    start = subject_of(tiny).start(5)
    assert np.bincount(y[start]).tolist() == [2] * 10
    assert start != subject_of(tiny).start(6)
    apart = x[: TINY.images] - x[TINY.images : 2 * TINY.images]  # two copies: noise of sigma 0.1 in both
    assert apart.std() == pytest.approx(0.1 * 2**0.5, rel=0.05)
    assert np.array_equal(y[: TINY.images], y[TINY.images : 2 * TINY.images])


def test_another_setting_is_refused(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="another setting"):
        prepare(EXPERIMENT, tiny, tmp_path, replace(TINY, passes=4))
    prepare(EXPERIMENT, tiny, tmp_path, replace(TINY, labels=50))


def test_copies_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "y.npy", np.zeros(30))
    monkeypatch.setattr(repeated_mnist, "balanced", lambda y, each, seed: [1, 22])
    rounds = [
        loop.Round(2, 0.5, [12, 3, 13], {"topk": 3}, 1, 2),  # 12 is image 2, as the labelled 22; 13 is image 3 again
        loop.Round(5, 0.6, [4, 9, 23], {"topk": 3}, 1, 2),  # 23 is image 3 again
        loop.Round(8, 0.7, [], {}, 1, 2),
    ]
    assert repeats(tmp_path, replace(TINY, images=10), "bald", 0, rounds) == {"repeats": [2, 1, 0]}
    assert experiment.as_curve(rounds)["seconds"] == {"training": 3, "selecting": 6}


def test_what_is_put_together_says_what_is_missing(tmp_path: Path) -> None:
    np.save(tmp_path / "y.npy", np.repeat(np.arange(10), 9))
    rounds = [loop.Round(n, 0.5, [n, n + 1], {"topk": 2}, 1, 2) for n in (20, 30, 40)]
    for name, upto in (("power-0", 3), ("random-0", 2)):
        (tmp_path / name).mkdir()
        loop.write_rounds(tmp_path / name / "rounds.jsonl", rounds[:upto])
    result = experiment.gather(EXPERIMENT, tmp_path, TINY, ["power", "random", "bald"], 1)
    assert list(result["curves"]) == ["power", "random"]
    assert result["curves"]["power"]["0"]["labels"] == [20, 30, 40]
    assert result["missing"] == ["random seed 0: to 30 of 40 labels", "bald seed 0: not begun"]


def test_labels_to_a_quality() -> None:
    curve = {"labels": [20, 30, 40], "quality": [0.7, 0.91, 0.89]}
    assert curves.labels_to(curve, 0.9) == 30
    assert curves.labels_to(curve, 0.95) == float("inf")
    never = {"labels": [20, 30], "quality": [0.1, 0.1]}
    seeds = {"0": never, "1": curve, "2": {**curve, "quality": [0.92, 0.9, 0.9]}}
    assert curves.reached(0.9, seeds) == "20 / 30 / > 30"
    many = {str(n): {"labels": [n], "quality": [1.0]} for n in range(9)}
    assert curves.reached(0.9, many) == "2 / 4 / 6"
    assert curves.in_words([20, 30, None]) == "20 / 30 / not reached"


def test_labels_of_the_mean_curve() -> None:
    lucky = {"labels": [20, 30, 40], "quality": [0.95, 0.7, 0.91]}
    late = {"labels": [20, 30, 40, 50], "quality": [0.6, 0.8, 0.89, 0.99]}
    assert curves.reached(0.9, {"0": lucky, "1": late}) == "20 / 50"
    assert curves.reached_by_mean(0.9, {"0": lucky, "1": late}) == "40"
    assert curves.reached_by_mean(0.95, {"0": late, "1": lucky}) == "> 40", "as far as both have come"


def test_differences_from_random_are_those_of_one_seed() -> None:
    def curve(*quality: float) -> dict[str, list[float]]:
        return {"labels": list(range(20, 20 + 10 * len(quality), 10)), "quality": list(quality)}

    of = {
        "a/bald": {"0": curve(0.1, 0.4), "1": curve(0.8, 1.3), "2": curve(0.5)},
        "a/random": {"0": curve(0.1, 0.2), "1": curve(0.8, 0.9), "2": curve(0.5, 0.9)},
        "b/random": {"0": curve(0.9, 0.9)},
        "b/other": {"3": curve(0.9, 0.9)},
    }
    lines = curves.columns_table(of, curves.minus_random(of, ".2f")).splitlines()
    assert lines[0] == "| | minus random, per seed |"
    assert lines[2:] == ["| a/bald | +0.15 (+0.10 to +0.20) |", "| a/random |  |", "| b/random |  |", "| b/other |  |"]
    alone = {"random": of["a/random"], "bald": of["a/bald"]}
    assert curves.minus_random(alone, ".1f")[1]("bald", of["a/bald"]) == "+0.1 (+0.1 to +0.2)"


def test_the_quality_on_the_way() -> None:
    seeds = {
        "0": {"labels": [20, 30], "quality": [0.7, 0.9]},
        "1": {"labels": [20, 30], "quality": [0.5, 0.8]},
        "2": {"labels": [20], "quality": [0.6]},
    }
    head, cell = curves.quality_at(30, ".2f")
    assert (head, cell("bald", seeds)) == ("30 labels", "0.85 (0.80-0.90)")
    assert curves.mean_quality(".2f")[1]("bald", seeds) == "0.68 (0.60-0.80)"
    lines = curves.columns_table({"bald": seeds}, curves.quality_at(20, ".1f"), curves.quality_at(40))
    assert lines.splitlines() == ["| | 20 labels | 40 labels |", "|---|---|---|", "| bald | 0.6 (0.5-0.7) |  |"]


def test_the_report_fills_its_own_place_alone(tmp_path: Path) -> None:
    curve = {"labels": [20, 30], "quality": [0.7, 0.92], "repeats": [5, 0]}
    result = {
        "environment": {"date": "2026-11-23 01:00:00", "gpu": None, "cpu": "a CPU", "cores": 2},
        "minutes_of_work": 3,
        "form": "full",
        "missing": ["bald seed 2: not begun"],
        "authors": repeated_mnist.AUTHORS,
        "curves": {"bald": {"0": curve, "1": curve}},
    }
    (tmp_path / "result.json").write_text(json.dumps(result))
    readme = tmp_path / "README.md"
    places = [f"<!-- x {form} -->\n{form}\n<!-- end of x {form} -->\n" for form in ("reduced", "full")]
    readme.write_text(f"before\n{''.join(places)}after\n")
    for _ in range(2):
        report("x", repeated_mnist.table, lambda result, out: None, tmp_path / "result.json", readme)
    lines = readme.read_text().splitlines()
    assert (lines[:3], lines[-1]) == (["before", "<!-- x reduced -->", "reduced"], "after")
    assert "full" not in lines
    assert "**Not whole.** Still to be run: bald seed 2: not begun." in lines
    assert "| bald | 30 / 30 | 30 | 270 / 290 / not reached | > 30 / > 30 | > 30 |  | 50% |" in lines
    with pytest.raises(SystemExit, match="no place for 'y full'"):
        report("y", repeated_mnist.table, None, tmp_path / "result.json", readme)


def test_the_readme_has_a_place_for_every_result() -> None:
    text = README.read_text()
    for name in NAMES:
        for form in ("reduced", "full"):
            begin, end = f"<!-- {name} {form} -->\n", f"<!-- end of {name} {form} -->"
            assert (text.count(begin), text.count(end)) in (((1, 1),) if form == "reduced" else ((1, 1), (0, 0))), name


def test_one_command_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*words: str | Path) -> dict[str, Any]:
        monkeypatch.setattr(sys, "argv", ["x.py", *map(str, words)])
        out = tmp_path / "result.json"
        experiment.obey(experiment.command("", "mnist"), "x", lambda given: {"dir": str(given.dir)}, str, None)
        return dict(json.loads(out.read_text())) if out.exists() else {}

    with pytest.raises(SystemExit):
        said("--out", tmp_path / "result.json")
    assert "--dir is needed to run" in capsys.readouterr().err
    monkeypatch.chdir(tmp_path)
    result = said("--dir", "work", "--note", "a note", "--out", tmp_path / "result.json")
    assert (result["dir"], result["note"]) == (str(tmp_path / "work"), "a note")
    assert result["environment"]["cores"] > 0
    monkeypatch.setattr(experiment, "report", lambda name, table, plot, file: print("told of", name, file))
    said("--report", "other.json")
    assert "told of x other.json" in capsys.readouterr().out


def test_methods_that_are_extra_run_when_they_are_named() -> None:
    assert replace(EXPERIMENT, extra=["power"]).usual == ["batchbald", "bald", "random"]
    assert EXPERIMENT.usual == list(EXPERIMENT.methods)
