"""Repeated-MNIST (Kirsch et al. 2019, BatchBALD): how many labels each way of selecting takes to 90 and 95 %.

Every image is in the pool three times, each with a little noise of its own. A batch of the best by BALD is then a batch
of copies, which is why the authors found it worse than chance.

    python benchmarks/evidence/repeated_mnist.py --dir /tmp/repeated            the reduced form, for two cores
    python benchmarks/evidence/repeated_mnist.py --dir /tmp/repeated --full     the whole pool, for a GPU
    python benchmarks/evidence/repeated_mnist.py --report RESULT.json           plot and README.md from a result

The same command goes on where it was interrupted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import experiment  # first: it sets the number of threads
import numpy as np
import torch
from curves import Column, Seeds, goals_table
from experiment import Experiment, Result, Setting
from loop import WITHOUT, Round, Sections, Subject, inference, network
from mnist_data import balanced, read_mnist, repeated
from networks import batchbald_cnn
from numpy.typing import NDArray
from picture import Mark, plot
from training import Steps, accuracy, save, train

from poolscore.jobs.pack import pack

GOALS = (0.9, 0.95)
COPIES, SIGMA = 3, 0.1
FIRST_PER_CLASS = 2
METHODS: dict[str, Sections] = {  # those that take longest first
    "batchbald": {"select": {"method": "batchbald"}},
    "power": {"select": {"method": "power"}, **WITHOUT},
    "bald": {"select": {"method": "topk"}, **WITHOUT},
    "random": {"select": {"score": "random"}, "passes": {"count": 1}, **WITHOUT},
}
# Labels to a goal in the authors' published logs, quartiles over seeds (../shared/NOTES.md, section 5).
AUTHORS: dict[str, dict[str, list[float | None]]] = {
    "random": {"0.9": [190, 200, 230]},
    "bald": {"0.9": [270, 290, None]},
    "batchbald": {"0.9": [130, 130, 140]},
}


@dataclass(frozen=True)
class RepeatedSetting(Setting):
    """Each of `images` is in the pool COPIES times."""

    images: int  # a random part of the 60,000 training images
    passes: int  # T
    steps: int  # of training, with 32 rows each


REDUCED = RepeatedSetting(labels=250, step=10, device="cpu", images=1000, passes=20, steps=300)
FULL = RepeatedSetting(labels=300, step=10, device="cuda", images=60_000, passes=20, steps=1000)


def prepare(folder: Path, data: Path, setting: RepeatedSetting) -> None:
    """`pool`, and the same rows as arrays for training and test."""
    x, y = repeated(*read_mnist(data, "train"), setting.images, COPIES, SIGMA)
    test_x, test_y = read_mnist(data, "t10k")
    arrays: dict[str, NDArray[Any]] = {"x": x, "y": y, "test_x": test_x, "test_y": test_y}
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    pack(folder / "x.npy", folder / "pool", labels=folder / "y.npy")


def subject(folder: Path, setting: RepeatedSetting, method: str, seed: int) -> Subject:
    """Repeated-MNIST, learned by the authors' network."""
    x, y, test_x, test_y = (np.load(folder / f"{name}.npy") for name in ("x", "y", "test_x", "test_y"))
    tested = torch.from_numpy(test_x).to(setting.device), torch.from_numpy(test_y).to(setting.device)

    def fit(ids: Sequence[int], seed: int, weights: Path) -> float:
        labelled_x, labelled_y = (torch.from_numpy(of[list(ids)]).to(setting.device) for of in (x, y))
        model = train(batchbald_cnn, labelled_x, labelled_y, Steps(setting.steps), seed)
        save(model, weights)
        return accuracy(model, *tested)

    return Subject(
        config={
            "pool": {"uri": str(folder / "pool"), "input": "tensor", "decode": {"kind": "tensor"}},
            **network("batchbald_cnn", "multiclass", 10),
            **inference(setting.passes, setting.device),
        },
        train=fit,
        start=lambda seed: balanced(y, FIRST_PER_CLASS, seed),
    )


def repeats(folder: Path, setting: RepeatedSetting, method: str, seed: int, rounds: Sequence[Round]) -> dict[str, Any]:
    """Copies of images that were labelled already, among each batch."""
    start = balanced(np.load(folder / "y.npy"), FIRST_PER_CLASS, seed)
    seen, found = {row % setting.images for row in start}, []
    for done in rounds:
        fresh = {row % setting.images for row in done.picked} - seen
        found.append(len(done.picked) - len(fresh))
        seen |= fresh
    return {"repeats": found}


def _share_of_copies(method: str, seeds: Seeds) -> str:
    return f"{np.mean([np.sum(curve['repeats']) / np.ptp(curve['labels']) for curve in seeds.values()]):.0%}"


COPIES_PICKED: Column = ("copies among the picked", _share_of_copies)


def table(result: Result) -> str:
    """Labels to each goal, and how much of what was labelled was there already."""
    return goals_table(result["curves"], GOALS, result["authors"], COPIES_PICKED)


def picture(result: Result, out: Path) -> None:
    """Accuracy over labels; the authors' medians as diamonds."""
    marks = [
        Mark(method, float(goal), three[1])
        for method, of in result["authors"].items()
        for goal, three in of.items()
        if three[1] is not None
    ]
    title = "Repeated-MNIST, batches of 10; diamonds: the authors' medians"
    plot(result["curves"], out, title, "test accuracy", marks)


EXPERIMENT = Experiment(
    name="repeated_mnist",
    data="mnist",
    methods=METHODS,
    reduced=REDUCED,
    full=FULL,
    prepare=prepare,
    subject=subject,
    table=table,
    plot=picture,
    authors=AUTHORS,
    more=repeats,
)

if __name__ == "__main__":
    experiment.main(EXPERIMENT, __doc__)
