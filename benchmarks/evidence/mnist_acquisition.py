"""Gal, Islam & Ghahramani 2017 on MNIST: how many labels each score takes to 10 and 5 % test error.

    python benchmarks/evidence/mnist_acquisition.py --dir /tmp/mnist            the reduced form: up to 360 labels
    python benchmarks/evidence/mnist_acquisition.py --dir /tmp/mnist --full     up to 1,000, the whole pool at each step

Their network and training, ten labels at a time, T = 100. Theirs scored a random 2,000 images of the pool at each step,
and so does the reduced form. The full form does so too with --subset, to compare.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import experiment  # first: it sets the number of threads
import numpy as np
import torch
from curves import goals_table
from experiment import Experiment, Result, Setting
from loop import WITHOUT, Sections, Subject, inference, network
from mnist_data import balanced, read_mnist_bytes
from networks import gal_cnn
from picture import Mark, plot
from training import Epochs, accuracy, save, train

from poolscore.jobs.pack import pack

GOALS = (0.9, 0.95)  # accuracy: 10 and 5 % error
FIRST_PER_CLASS = 2
PENALTY, PENALTY_OF_RANDOM = 2.5, 3.5  # c of L2 c/N on fc128, as in the authors' scripts
AS_OTHERS = "random_l2_2.5"  # random with the penalty of the other scores, to see what of the gap is the penalty's
METHODS: dict[str, Sections] = {
    "bald": {"select": {"score": "bald"}},
    "variation_ratio": {"select": {"score": "variation_ratio"}},
    "entropy": {"select": {"score": "entropy"}},
    "mean_std": {"select": {"score": "mean_std"}},
    **{name: {"select": {"score": "random"}, "passes": {"count": 1}} for name in ("random", AS_OTHERS)},
}
# Labels to a goal, from a co-author's published arrays (../shared/NOTES.md, section 5).
AUTHORS: dict[str, dict[str, list[float]]] = {
    "bald": {"0.9": [230], "0.95": [350]},
    "variation_ratio": {"0.9": [160], "0.95": [320]},
    "entropy": {"0.9": [190], "0.95": [350]},
    "mean_std": {"0.9": [260], "0.95": [670]},
    "random": {"0.9": [300], "0.95": [860]},
}


@dataclass(frozen=True)
class MnistSetting(Setting):
    subset: int | None  # rows of the pool that are scored at each step, drawn anew; None: all
    passes: int = 100  # T
    epochs: int = 50


REDUCED = MnistSetting(labels=360, step=10, device="cpu", subset=2000)
FULL = MnistSetting(labels=1000, step=10, device="cuda", subset=None)


def prepare(folder: Path, data: Path, setting: MnistSetting) -> None:
    """The 60,000 training images as a pool of bytes, and all images as arrays."""
    for part, name in (("train", "pool"), ("t10k", "test")):
        x, y = read_mnist_bytes(data, part)
        np.save(folder / f"{name}_x.npy", x)
        np.save(folder / f"{name}_y.npy", y)
    pack(folder / "pool_x.npy", folder / "pool", labels=folder / "pool_y.npy", as_tensor=True)


def subject(folder: Path, setting: MnistSetting, method: str, seed: int) -> Subject:
    """MNIST, learned by the authors' network."""
    x, y, test_x, test_y = (np.load(folder / f"{part}_{kind}.npy") for part in ("pool", "test") for kind in "xy")
    tested = _floats(test_x, setting.device), torch.from_numpy(test_y).to(setting.device)
    penalty = PENALTY_OF_RANDOM if method == "random" else PENALTY

    def fit(ids: Sequence[int], seed: int, weights: Path) -> float:
        labelled_x, labelled_y = _floats(x[list(ids)], setting.device), torch.from_numpy(y[list(ids)])
        l2 = {"fc128.weight": penalty / len(ids)}
        model = train(gal_cnn, labelled_x, labelled_y.to(setting.device), Epochs(setting.epochs), seed, l2=l2)
        save(model, weights)
        return accuracy(model, *tested)

    return Subject(
        config={
            "pool": {
                "uri": str(folder / "pool"),
                "input": "tensor",
                "decode": {"kind": "tensor", "std": [255.0]},
                **({"sample": setting.subset} if setting.subset else {}),  # drawn by the seed of the round
            },
            **network("gal_cnn", "multiclass", 10),
            **inference(setting.passes, setting.device),
            **WITHOUT,
        },
        train=fit,
        start=lambda seed: balanced(y, FIRST_PER_CLASS, seed),
    )


def _floats(images: np.ndarray, device: str) -> torch.Tensor:
    return torch.from_numpy(images).to(device).float() / 255


def table(result: Result) -> str:
    """Labels to each goal."""
    return goals_table(result["curves"], GOALS, result["authors"])


def picture(result: Result, out: Path) -> None:
    """Accuracy over labels; the paper's numbers as diamonds."""
    marks = [Mark(method, float(goal), n) for method, of in result["authors"].items() for goal, (n,) in of.items()]
    plot(result["curves"], out, "MNIST, ten labels at a time; diamonds: Gal et al. 2017", "test accuracy", marks)


EXPERIMENT = Experiment(
    name="mnist_acquisition",
    data="mnist",
    methods=METHODS,
    reduced=REDUCED,
    full=FULL,
    prepare=prepare,
    subject=subject,
    table=table,
    plot=picture,
    authors=AUTHORS,
    extra=[AS_OTHERS],
)

if __name__ == "__main__":
    experiment.main(EXPERIMENT, __doc__)
