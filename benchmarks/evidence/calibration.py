"""Does BALD rank errors, and is what a model says of itself true? MNIST and Banking77, with few labels.

    python benchmarks/evidence/calibration.py --dir /tmp/calibration            three seeds, on two cores
    python benchmarks/evidence/calibration.py --report RESULT.json              picture and README.md

Networks and training are those of the curves, on random labels. All test rows are scored by poolscore; an error is a
row whose class its prediction misses. AUROC: the chance that a score ranks an error above a row that is right. One pass
without dropout stands beside it, judged by its own errors. What is done is kept in DIR, so that an interrupted run goes
on.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import experiment  # first: it sets the number of threads
import intents
import mnist_acquisition
import numpy as np
import torch
from curves import markdown, spread
from experiment import Experiment, Result, Setting
from loop import joined
from measures import auroc, calibration_error, reliability
from networks import IntentNet, gal_cnn
from numpy.typing import NDArray
from picture import matplotlib_or_none
from safetensors.torch import load_file
from scoring import scores_of
from torch import Tensor, nn
from training import outputs

from poolscore.jobs.pack import pack

PASSES = 50
SEEDS = 3
RANKED = ("bald", "entropy", "expected_entropy", "variation_ratio", "least_confidence")


@dataclass(frozen=True)
class Theme:
    """A data set with its network: the experiment, and what of it is the test set."""

    of: Experiment
    setting: Setting
    rows: int  # of the pool
    labels: Sequence[int]
    test: Callable[[Path], tuple[str, Tensor, NDArray[np.int64]]]  # a pool of the test rows, the same rows, classes
    network: Callable[[Mapping[str, Tensor]], nn.Module]  # for such weights


def mnist_test(folder: Path) -> tuple[str, Tensor, NDArray[np.int64]]:
    """The 10,000 test images."""
    if not (folder / "test").exists():
        pack(folder / "test_x.npy", folder / "test", labels=folder / "test_y.npy", as_tensor=True)
    x = torch.from_numpy(np.load(folder / "test_x.npy")).float() / 255
    return str(folder / "test"), x, np.load(folder / "test_y.npy")


def intents_test(folder: Path) -> tuple[str, Tensor, NDArray[np.int64]]:
    """The 3,080 test texts."""
    test = np.load(folder / "test.npz")
    return str(folder / "test.parquet"), torch.from_numpy(test["x"]), test["y"]


THEMES = {
    "MNIST": Theme(
        mnist_acquisition.EXPERIMENT,
        replace(mnist_acquisition.REDUCED, subset=None, passes=PASSES),
        60_000,
        (100, 300),
        mnist_test,
        lambda weights: gal_cnn(),
    ),
    "Banking77": Theme(
        intents.EXPERIMENT,
        replace(intents.REDUCED, passes=PASSES),
        10_003,
        (354, 754),
        intents_test,
        lambda weights: IntentNet(len(weights["words.weight"]), intents.CLASSES),
    ),
}


def judged(theme: Theme, folder: Path, labels: int, seed: int) -> dict[str, Any]:
    """One model: what poolscore says of the test rows, and what one pass without dropout does."""
    subject = theme.of.subject(folder, theme.setting, "random", seed)
    pool, x, classes = theme.test(folder)
    start = subject.start(seed)
    others = np.random.default_rng(seed).permutation(np.setdiff1d(np.arange(theme.rows), start))
    weights = folder / "weights.safetensors"
    subject.train([*start, *others[: labels - len(start)].tolist()], seed, weights)
    scores = scores_of(joined(subject.config, {"pool": {"uri": pool}}), weights, folder / "run", seed)
    wrong = scores["prediction"].to_numpy() != classes
    model = theme.network(loaded := load_file(weights))
    model.load_state_dict(loaded)
    alone, guessed = (values.numpy() for values in outputs(model.eval(), x).softmax(1).max(1))
    ranked = {name: auroc(scores[name].to_numpy(), wrong) for name in RANKED}
    return {
        "dropout": _of_confidence(scores["confidence"].to_numpy(), wrong) | {"auroc": ranked},
        "plain": _of_confidence(alone, guessed != classes) | {"auroc": {"softmax": auroc(-alone, guessed != classes)}},
    }


def _of_confidence(sure: NDArray[np.floating[Any]], wrong: NDArray[np.bool_]) -> dict[str, Any]:
    return {
        "error": float(wrong.mean()),
        "calibration_error": calibration_error(sure, ~wrong),
        "reliability": [[of.confidence, of.accuracy, of.share] for of in reliability(sure, ~wrong)],
    }


def run(folder: Path, data: Path) -> dict[str, list[dict[str, Any]]]:
    """Theme and labels → one entry a seed; those that are done are kept."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name, theme in THEMES.items():
        here = folder / name
        experiment.prepare(theme.of, here, data / theme.of.data, theme.setting)
        for labels in theme.labels:
            for seed in range(SEEDS):
                kept = here / f"{labels}-{seed}.json"
                if not kept.exists():
                    began = time.monotonic()
                    said = judged(theme, here, labels, seed)
                    kept.write_text(json.dumps(said | {"seconds": round(time.monotonic() - began, 1)}))
                    print(f"{name}, {labels} labels, seed {seed}: done", flush=True)
                found.setdefault(f"{name}, {labels} labels", []).append(json.loads(kept.read_text()))
    return found


def table(result: Result) -> str:
    """A row for each model, means and ranges over the seeds."""
    head = ["", "test error", *(f"AUROC {name}" for name in RANKED), "AUROC softmax", "ECE dropout", "ECE softmax"]
    rows = []
    for name, seeds in result["models"].items():
        ranks = [[seed["dropout"]["auroc"][score] for seed in seeds] for score in RANKED]
        ranks.append([seed["plain"]["auroc"]["softmax"] for seed in seeds])
        errors = [[seed[way]["calibration_error"] for seed in seeds] for way in ("dropout", "plain")]
        cells = [spread(values, ".3f") for values in [[seed["dropout"]["error"] for seed in seeds], *ranks, *errors]]
        rows.append([name, *cells])
    return markdown(head, rows)


def picture(result: Result, out: Path) -> None:
    """Reliability: accuracy of what is said with about one confidence; a line a seed."""
    pyplot = matplotlib_or_none()
    if pyplot is None:
        return
    figure, rows = pyplot.subplots(1, len(result["models"]), figsize=(4 * len(result["models"]), 4), squeeze=False)
    for axes, (name, seeds) in zip(rows[0], result["models"].items(), strict=True):
        axes.plot([0, 1], [0, 1], color="grey", linestyle=":")
        for way, color, words in (("dropout", "C0", "mean of the passes"), ("plain", "C1", "one pass, no dropout")):
            for i, seed in enumerate(seeds):
                sure, right, _ = zip(*seed[way]["reliability"], strict=True)
                axes.plot(sure, right, color=color, marker=".", label=words if i == 0 else None)
        axes.set(title=name, xlabel="confidence", ylabel="accuracy")
        axes.legend()
        axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(out, dpi=100)
    pyplot.close(figure)
    print(out)


def main() -> None:
    """Run, or report of a result."""

    def judge(given: argparse.Namespace) -> Result:
        models = run(given.dir, given.data)
        seconds = sum(seed["seconds"] for seeds in models.values() for seed in seeds)
        return {"minutes_of_work": round(seconds / 60, 1), "passes": PASSES, "models": models}

    experiment.obey(experiment.command(__doc__, ""), "calibration", judge, table, picture)


if __name__ == "__main__":
    main()
