"""Evidence on a toy scale: the loop, what its curves come to, and that an interrupted one goes on."""

from __future__ import annotations

import gzip
import json
import struct
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "evidence"))

import curves
import loop
import repeated_mnist
from repeated_mnist import Setting, as_curve, report, subject_of, write_pool

EVIDENCE = Path(repeated_mnist.__file__).parent
TINY = Setting(images=30, passes=3, steps=2, labels=40, device="cpu")


def write_idx(file: Path, array: np.ndarray) -> None:
    head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    file.write_bytes(gzip.compress(head + array.astype(np.uint8).tobytes()))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a pool of 90 rows, made from files like those of MNIST."""
    folder, rng = tmp_path_factory.mktemp("tiny"), np.random.default_rng(0)
    for part, rows in (("train", 40), ("t10k", 20)):
        write_idx(folder / f"{part}-images-idx3-ubyte.gz", rng.integers(0, 256, (rows, 28, 28)))
        write_idx(folder / f"{part}-labels-idx1-ubyte.gz", np.arange(rows) % 10)
    write_pool(folder / "work", folder, TINY)
    return folder / "work"


def curve_of(work: Path, to: Path, until: int, method: str = "power") -> list[loop.Round]:
    rounds = loop.run_curve(subject_of(work, TINY), loop.METHODS[method], 1, 10, until, to)
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
            loop.run_curve(subject_of(tiny, TINY), loop.METHODS["power"], 1, 10, 40, tmp_path / "parts", stop)
    assert curve_of(tiny, tmp_path / "parts", 40) == whole
    shorter = curve_of(tiny, tmp_path / "longer", 30)
    assert curve_of(tiny, tmp_path / "longer", 40) == whole, "a longer curve begins like a shorter one"
    assert curve_of(tiny, tmp_path / "longer", 30) == shorter


def test_nothing_is_labelled_twice_and_batches_come_from_their_methods(tiny: Path, tmp_path: Path) -> None:
    picked, by = {}, {}
    for method in loop.METHODS:
        rounds = curve_of(tiny, tmp_path / method, 30, method)
        ids = subject_of(tiny, TINY).start(1) + [row for done in rounds for row in done.picked]
        assert len(set(ids)) == 30
        picked[method], by[method] = tuple(rounds[0].picked), set(rounds[0].methods)
    assert len({picked[method] for method in ("random", "bald", "power")}) == 3
    assert by == {"random": {"topk"}, "bald": {"topk"}, "power": {"power"}, "batchbald": {"batchbald"}}


def test_first_labels_are_balanced_and_copies_lie_where_they_are_counted(tiny: Path) -> None:
    x, y = np.load(tiny / "x.npy"), np.load(tiny / "y.npy")
    start = subject_of(tiny, TINY).start(5)
    assert np.bincount(y[start]).tolist() == [2] * 10
    assert start != subject_of(tiny, TINY).start(6)
    apart = x[: TINY.images] - x[TINY.images : 2 * TINY.images]  # two copies: noise of sigma 0.1 in both
    assert apart.std() == pytest.approx(0.1 * 2**0.5, rel=0.05)
    assert np.array_equal(y[: TINY.images], y[TINY.images : 2 * TINY.images])


def test_another_setting_is_refused(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="another setting"):
        write_pool(tiny, tmp_path, replace(TINY, passes=4))
    write_pool(tiny, tmp_path, replace(TINY, labels=50))


def test_copies_are_counted() -> None:
    rounds = [
        loop.Round(2, 0.5, [12, 3, 13], {"topk": 3}, 1, 2),  # 12 is image 2, as the labelled 22; 13 is image 3 again
        loop.Round(5, 0.6, [4, 9, 23], {"topk": 3}, 1, 2),  # 23 is image 3 again
        loop.Round(8, 0.7, [], {}, 1, 2),
    ]
    curve = as_curve([1, 22], rounds, images=10)
    assert curve["repeats"] == [2, 1, 0]
    assert curve["seconds"] == {"training": 3, "selecting": 6}


def test_labels_to_a_quality() -> None:
    curve = {"labels": [20, 30, 40], "quality": [0.7, 0.91, 0.89]}
    assert curves.labels_to(curve, 0.9) == 30
    assert curves.labels_to(curve, 0.95) == float("inf")
    never = {"labels": [20, 30, 40], "quality": [0.1, 0.1, 0.1]}
    seeds = {"0": never, "1": curve, "2": {**curve, "quality": [0.92, 0.9, 0.9]}}
    assert curves.quartiles_to(0.9, seeds) == [20, 30, None]
    assert curves.in_words([20, 30, None]) == "20 / 30 / not reached"


def test_the_report_fills_its_own_place_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    curve = {"labels": [20, 30], "quality": [0.7, 0.92], "repeats": [5, 0]}
    result = {
        "environment": {"date": "2026-11-23 01:00:00", "gpu": None, "cpu": "a CPU", "cores": 2},
        "minutes_of_work": 3,
        "setting": {"device": "cpu"},
        "authors": repeated_mnist.AUTHORS,
        "curves": {"bald": {"0": curve, "1": curve, "2": curve}},
    }
    (tmp_path / "result.json").write_text(json.dumps(result))
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- reduced -->\nold\n<!-- end of reduced -->\nafter\n")
    monkeypatch.setattr(repeated_mnist, "plot", lambda *arguments: None)
    for _ in range(2):
        report(tmp_path / "result.json", readme)
    lines = readme.read_text().splitlines()
    assert (lines[0], lines[-1]) == ("before", "after")
    assert "old" not in lines
    assert (
        "| bald | 30 / 30 / 30 | 270 / 290 / not reached | not reached / not reached / not reached |  | 50% |" in lines
    )


def test_the_readme_has_both_places() -> None:
    text = (EVIDENCE / "README.md").read_text()
    for form in ("reduced", "full"):
        assert text.count(f"<!-- {form} -->\n") == text.count(f"<!-- end of {form} -->") == 1
