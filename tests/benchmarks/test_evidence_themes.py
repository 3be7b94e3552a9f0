"""Every experiment on made-up data of its own format: two rounds with nothing labelled twice, and its figures."""

from __future__ import annotations

import csv
import gzip
import io
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from idx_files import write_idx
from PIL import Image
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "evidence"))

import calibration
import intents
import loop
import many_networks
import mnist_acquisition
import relevance
import softmax_not_enough
import uci_paper
import uci_regression
import vehicles
from experiment import Experiment, as_curve, prepare
from many_networks import Hyper, ManyNetworks, log_likelihood, train_many
from measures import auroc, average_precision, calibration_error, reliability
from scoring import scores_of
from training import Epochs, Steps, train
from uci_data import read_uci

RNG = np.random.default_rng(0)


def mnist(folder: Path) -> None:
    for part, rows in (("train", 300), ("t10k", 30)):
        write_idx(folder / f"{part}-images-idx3-ubyte.gz", RNG.integers(0, 256, (rows, 28, 28)))
        write_idx(folder / f"{part}-labels-idx1-ubyte.gz", np.arange(rows) % 10)


def roads(folder: Path) -> None:
    riders = ["cyclist"] * 3 + ["motorcyclist"] * 20 + ["neither"] * 20

    def picture() -> bytes:
        file = io.BytesIO()
        Image.fromarray(RNG.integers(0, 256, (60, 60, 3), np.uint8)).save(file, "JPEG")
        return file.getvalue()

    columns = {
        "image": [picture() for _ in riders * 2],
        "rider": riders * 2,
        "split": [part for part in ("pool", "test") for _ in riders],
    }
    pq.write_table(pa.table(columns), folder / "vehicles.parquet")


def letor(folder: Path) -> None:
    for part in ("train", "test"):
        with gzip.open(folder / f"{part}.txt.gz", "wt") as file:
            for row, values in enumerate(RNG.random((80, 46))):
                words = " ".join(f"{i + 1}:{value:.6f}" for i, value in enumerate(values))
                file.write(f"{row % 3} qid:{row // 8} {words} #docid = D{row} inc = 1 prob = 0.5\n")


def uci(folder: Path) -> None:
    for name in uci_regression.SETS:
        (folder / name).mkdir()
        x = RNG.random((60, 3))
        with gzip.open(folder / name / "data.txt.gz", "wt") as file:
            np.savetxt(file, np.c_[x, x.sum(1) * 10])
        (folder / name / "index_features.txt").write_text("0\n1\n2\n")
        (folder / name / "index_target.txt").write_text("3\n")
        with gzip.open(folder / name / "test_splits.txt.gz", "wt") as file:
            file.write("0.0 1.0 2.0 3.0 4.0 5.0\n6.0 7.0 8.0 9.0 10.0 11.0\n")


def banking(folder: Path) -> None:
    names = [f"intent {i}" for i in range(intents.CLASSES)]
    (folder / "categories.json").write_text(json.dumps(names))
    for part, each in (("train", 4), ("test", 1)):
        with gzip.open(folder / f"{part}.csv.gz", "wt", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["text", "category"])
            rows.writerows([f"What about\nword{i} number {i % 7}?", name] for i, name in enumerate(names * each))


CASES: dict[str, tuple[Experiment, Callable[[Path], None], dict[str, object]]] = {
    "mnist": (mnist_acquisition.EXPERIMENT, mnist, {"subset": 100, "passes": 3, "epochs": 1, "labels": 30}),
    "vehicles": (vehicles.EXPERIMENT, roads, {"passes": 3, "steps": 2, "labels": 31, "step": 10}),
    "relevance": (relevance.EXPERIMENT, letor, {"passes": 3, "steps": 2, "labels": 60, "step": 20}),
    "uci": (uci_regression.EXPERIMENT, uci, {"passes": 3, "steps": 2, "labels": 30, "step": 10}),
    "intents": (intents.EXPERIMENT, banking, {"passes": 3, "steps": 2, "labels": 164, "step": 10}),
}


@pytest.mark.parametrize("name", CASES)
def test_two_rounds(name: str, tmp_path: Path) -> None:
    experiment, write, setting = CASES[name]
    small = replace(experiment.reduced, **setting)  # type: ignore[arg-type]
    (tmp_path / "data").mkdir()
    write(tmp_path / "data")
    work = tmp_path / "work"
    prepare(experiment, work, tmp_path / "data", small)
    method = next(iter(experiment.methods))
    subject = experiment.subject(work, small, method, 1)
    rounds = loop.run_curve(subject, experiment.methods[method], 1, small.step, small.labels, work / "curve")
    ids = subject.start(1) + rounds[0].picked
    assert [done.labels for done in rounds] == [small.labels - small.step, small.labels]
    assert len(set(ids)) == small.labels
    assert all(np.isfinite(done.quality) for done in rounds)
    curve = as_curve(rounds) | experiment.more(work, small, method, 1, rounds)
    shown = experiment.table({"curves": {method: {"1": curve}}, "authors": experiment.authors})
    assert f"| {method} |" in shown
    if name == "uci":
        assert not set(range(6, 12)) & set(ids), "a row of the test split was labelled"
    if name == "vehicles":
        y = np.load(work / "pool.npz")["y"]
        assert y[subject.start(1)].tolist() == [0] + [1] * 10 + [2] * 10
        assert curve["found"] == [0, (y[rounds[0].picked] == 0).sum() / 2]


def test_poolscore_sees_what_the_networks_learned_from(tmp_path: Path) -> None:
    """Texts and pictures are decoded alike: the scores of one pass are those of the network itself."""
    banking(tmp_path)
    intents.prepare(tmp_path, tmp_path, intents.REDUCED)
    subject = intents.subject(tmp_path, replace(intents.REDUCED, steps=3, passes=4), "bald", 0)
    subject.train(range(100), 0, tmp_path / "weights.safetensors")
    scores = scores_of(subject.config, tmp_path / "weights.safetensors", tmp_path / "run", 0)
    weights = load_file(tmp_path / "weights.safetensors")
    model = intents.IntentNet(len(weights["words.weight"]), intents.CLASSES)
    model.load_state_dict(weights)
    x = torch.from_numpy(np.load(tmp_path / "train.npz")["x"])
    sure = model.eval()(x).softmax(1).max(1).values.detach().numpy()
    assert np.corrcoef(sure, scores["confidence"].to_numpy())[0, 1] > 0.5


def test_ranks() -> None:
    scores, relevant = RNG.integers(0, 5, 40), RNG.random(40) < 0.3
    pairs = [(p > n) + (p == n) / 2 for p in scores[relevant] for n in scores[~relevant]]
    assert auroc(scores, relevant) == pytest.approx(np.mean(pairs))
    assert np.isnan(auroc(scores, np.ones(40)))
    assert average_precision([0.9, 0.8, 0.7, 0.6], [1, 0, 1, 0]) == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision([0.1, 0.2], [0, 0]) == 0


def test_confidence_against_accuracy() -> None:
    sure, right = [0.95, 0.95, 0.95, 0.95, 0.55, 0.55, 1.0], [1, 1, 1, 0, 1, 0, 1]
    low, high = reliability(sure, right)
    assert (low.confidence, low.accuracy, low.share) == (pytest.approx(0.55), 0.5, pytest.approx(2 / 7))
    assert (high.accuracy, high.share) == (0.8, pytest.approx(5 / 7))
    assert calibration_error(sure, right) == pytest.approx(2 / 7 * 0.05 + 5 / 7 * 0.16)


def test_recipes_and_weight_decay() -> None:
    torch.manual_seed(0)
    cpu = torch.device("cpu")
    epochs = Epochs(2, batch=4).batches(6, cpu)
    assert [len(batch) for batch in epochs] == [4, 2, 4, 2]
    assert sorted(torch.cat(list(epochs[:2])).tolist()) == sorted(torch.cat(list(epochs[2:])).tolist()) == [*range(6)]
    assert [len(batch) for batch in Steps(3, batch=4).batches(6, cpu)] == [4, 4, 4]
    x, y = torch.zeros(8, 4), torch.zeros(8, dtype=torch.int64)

    def norm(l2: dict[str, float]) -> float:
        model = train(lambda: torch.nn.Linear(4, 2), x, y, Steps(60, learning_rate=0.05), 0, l2=l2)
        return float(model.state_dict()["weight"].norm())

    assert norm({"weight": 1.0}) < 0.1 < norm({})
    with pytest.raises(AssertionError, match="no such parameter"):
        norm({"wieght": 1.0})


def test_many_networks_are_those_that_poolscore_runs() -> None:
    model = ManyNetworks(3, [Hyper(0.1, 1.0), Hyper(0.3, 1.0)]).eval()
    x = torch.randn(2, 5, 3)
    for place in range(2):
        assert torch.allclose(model.one(place, 0.1)(x[place]), model(x)[place], atol=1e-6)
    dropped = many_networks.passes(model, x, 2000)
    assert dropped.shape == (2000, 2, 5)
    assert dropped[:, 1].std(0).mean() > dropped[:, 0].std(0).mean() > 0


def test_many_networks_learn_each_from_its_own_rows() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 200, 2)
    y = torch.stack([x[0, :, :1], -x[1, :, :1]])
    model = train_many(x, y, [[Hyper(0.005, 1.0)]] * 2, epochs=100, batch=128).eval()
    assert ((model(x) - y).square().mean((1, 2)) < 0.1).all()


def test_the_paper_s_likelihood() -> None:
    y_TGN, truth = torch.tensor([[[0.0]], [[2.0]]]), torch.tensor([[1.0]])
    expected = -0.5 * 4 * 1 + 0.5 * np.log(4 / (2 * np.pi))
    assert float(log_likelihood(y_TGN, truth, torch.tensor([4.0]))) == pytest.approx(expected)


def test_the_paper_s_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uci(tmp_path)
    monkeypatch.setattr(uci_paper, "PASSES", 5)
    monkeypatch.setattr(uci_paper, "PASSES_OF_GRID", 5)
    uci_regression.prepare(tmp_path, tmp_path, uci_regression.REDUCED)
    found = uci_paper.check(tmp_path, "yacht", read_uci(tmp_path / "yacht"), 2, epochs=60, batch=128)
    passes, poolscore = (np.array([of["rmse"] for of in found[way]]) for way in ("passes", "poolscore"))
    assert passes == pytest.approx(poolscore, rel=0.2)
    assert passes.max() < 9, "learned nothing: the targets' standard deviation is about 5"
    assert "| yacht (2 splits) | 0.67 ± 0.05 |" in uci_paper.table(
        {"sets": {"yacht": found}, "authors": uci_paper.AUTHORS["full"]}
    )


def test_errors_of_a_model(tmp_path: Path) -> None:
    banking(tmp_path)
    theme = replace(
        calibration.THEMES["Banking77"],
        setting=replace(intents.REDUCED, steps=3, passes=4),
        rows=4 * intents.CLASSES,
    )
    prepare(intents.EXPERIMENT, tmp_path / "work", tmp_path, theme.setting)
    found = calibration.judged(theme, tmp_path / "work", 170, 0)
    assert set(found["dropout"]["auroc"]) == set(calibration.RANKED)
    assert sum(share for _, _, share in found["plain"]["reliability"]) == pytest.approx(1)
    assert "| texts |" in calibration.table({"models": {"texts": [found]}})


def test_doubt_where_nothing_was_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(softmax_not_enough, "SIDE", 21)
    monkeypatch.setattr(softmax_not_enough, "STEPS", 200)
    monkeypatch.setattr(softmax_not_enough, "gaussian", lambda x, y: np.zeros(21 * 21))
    maps = softmax_not_enough.maps(tmp_path, 0)
    figures = softmax_not_enough.figures(0, maps)
    assert figures["bald"]["far"] > figures["bald"]["near"]
    assert figures["process"] == {"far": 0, "near": 0, "auroc": 0.5}
    assert "| BALD, 100 passes with dropout |" in softmax_not_enough.table({"figures": [figures]})
