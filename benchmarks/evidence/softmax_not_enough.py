"""Softmax is not enough: a network is sure of what it has never seen, and its dropout knows better.

    python benchmarks/evidence/softmax_not_enough.py --dir /tmp/softmax         a minute
    python benchmarks/evidence/softmax_not_enough.py --report RESULT.json       picture and README.md

Two half moons in the plane, with nothing around them. Three maps of the same plane: what a softmax leaves open (one
pass without dropout), BALD of 100 passes as poolscore scores them, and BALD of a Gaussian process classifier
(scikit-learn, `pip install 'poolscore[evidence]'`), for which it is the mutual information of the class and the latent
function (Houlsby et al. 2011).
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import experiment  # first: it sets the number of threads
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from curves import markdown, spread
from experiment import Result
from loop import Sections, inference, network
from measures import auroc
from networks import moons_net
from numpy.typing import NDArray
from picture import matplotlib_or_none
from scoring import scores_of
from training import Steps, outputs, save, train

Floats = NDArray[np.float64]
POINTS, NOISE, REACH, SIDE = 200, 0.1, 4.0, 81  # of training; standard deviation; the map: -REACH to REACH, SIDE x SIDE
PASSES, STEPS, SEEDS = 100, 2000, 3
NEAR, FAR = 0.25, 1.5  # distance to the nearest training point: on the moons, and where nothing was seen
DOUBT = 0.05  # nats; of ln 2 = 0.69


def moons(seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Two half circles around the origin, of POINTS / 2 points each."""
    rng = np.random.default_rng(seed)
    angle = rng.uniform(0, np.pi, POINTS)
    y = np.arange(POINTS) % 2
    upper = np.stack([np.cos(angle) - 0.5, np.sin(angle) - 0.25], 1)
    x = np.where(y[:, None] == 0, upper, -upper) + rng.normal(0, NOISE, (POINTS, 2))
    return x.astype(np.float32), y


def maps(folder: Path, seed: int) -> dict[str, Floats]:
    """What is uncertain where: [SIDE x SIDE] values each, in nats, in the order of `grid`."""
    x, y = moons(seed)
    plane = grid()
    model = train(moons_net, torch.from_numpy(x), torch.from_numpy(y), Steps(STEPS), seed)
    save(model, folder / "weights.safetensors")
    columns = {"id": np.arange(len(plane)), "x": plane[:, 0], "y": plane[:, 1]}
    pq.write_table(pa.table(columns), folder / "plane.parquet")
    config: Sections = {
        "pool": {"uri": str(folder / "plane.parquet"), "input": ["x", "y"], "decode": {"kind": "features"}},
        **network("moons_net", "multiclass", 2),
        **inference(PASSES, "cpu"),
    }
    scores = scores_of(config, folder / "weights.safetensors", folder / "run", seed)
    alone = outputs(model, torch.from_numpy(plane)).softmax(1)[:, 1].double().numpy()
    return {"softmax": _entropy(alone), "bald": scores["bald"].to_numpy().astype(float), "process": gaussian(x, y)}


def gaussian(x: NDArray[np.float32], y: NDArray[np.int64]) -> Floats:
    """BALD of a Gaussian process classifier over the grid: its latent function is about normal in every point."""
    from sklearn.gaussian_process import GaussianProcessClassifier
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel

    process = GaussianProcessClassifier(ConstantKernel(10.0) * RBF(1.0), random_state=0).fit(x, y)
    mean, variance = process.latent_mean_and_variance(grid())
    at, weight = np.polynomial.hermite_e.hermegauss(40)  # of the standard normal distribution
    p = 1 / (1 + np.exp(-(mean[:, None] + np.sqrt(np.maximum(variance, 0))[:, None] * at)))
    weight = weight / weight.sum()
    found: Floats = _entropy(p @ weight) - _entropy(p) @ weight
    return found


def grid() -> NDArray[np.float32]:
    """The points of the map, row after row from below."""
    axis = np.linspace(-REACH, REACH, SIDE, dtype=np.float32)
    return np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)


def _entropy(p: Floats) -> Floats:
    p = np.clip(p, 1e-12, 1 - 1e-12)
    return np.asarray(-p * np.log(p) - (1 - p) * np.log(1 - p))


def figures(seed: int, of: dict[str, Floats]) -> dict[str, dict[str, float]]:
    """For each map: the share of doubtful places where nothing was seen and on the moons, and how well it tells these
    from those."""
    distance = np.linalg.norm(grid()[:, None] - moons(seed)[0][None], axis=2).min(1)
    near, far = distance < NEAR, distance > FAR
    return {
        name: {
            "far": float((values[far] > DOUBT).mean()),
            "near": float((values[near] > DOUBT).mean()),
            "auroc": auroc(values[near | far], far[near | far]),
        }
        for name, values in of.items()
    }


WORDS = {
    "softmax": "softmax entropy, one pass",
    "bald": f"BALD, {PASSES} passes with dropout",
    "process": "BALD of a Gaussian process",
}


def table(result: Result) -> str:
    """Doubt where nothing was seen."""
    places = {"far": f"far away (> {FAR})", "near": f"on the moons (< {NEAR})"}
    columns = {name: f"places of doubt (> {DOUBT} nats) {words}" for name, words in places.items()}
    columns["auroc"] = "AUROC of far against near"
    forms = {"far": ".0%", "near": ".0%", "auroc": ".2f"}
    rows = [
        [
            WORDS[name],
            *(spread([seed[name][column] for seed in result["figures"]], forms[column]) for column in columns),
        ]
        for name in WORDS
    ]
    return markdown(["", *columns.values()], rows)


def picture(result: Result, out: Path) -> None:
    """The three maps of the first seed, with the training points."""
    pyplot = matplotlib_or_none()
    if pyplot is None:
        return
    x, y = moons(0)
    figure, axes = pyplot.subplots(1, 3, figsize=(13, 4))
    for ax, (name, words) in zip(axes, WORDS.items(), strict=True):
        values = np.array(result["maps"][name]).reshape(SIDE, SIDE)
        shown = ax.imshow(values, extent=[-REACH, REACH] * 2, origin="lower", cmap="viridis", vmin=0)
        ax.scatter(*x.T, c=["white" if of else "black" for of in y], s=6, edgecolors="grey", linewidths=0.3)
        ax.set_title(f"{words} (nats)")
        figure.colorbar(shown, ax=ax, shrink=0.8)
    figure.tight_layout()
    figure.savefig(out, dpi=100)
    pyplot.close(figure)
    print(out)


def run(folder: Path) -> dict[str, Any]:
    """All seeds; the maps of the first are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    found = [maps(folder, seed) for seed in range(SEEDS)]
    return {
        "minutes_of_work": round((time.monotonic() - began) / 60, 1),
        "figures": [figures(seed, of) for seed, of in enumerate(found)],
        "maps": {name: np.round(values, 4).tolist() for name, values in found[0].items()},
    }


if __name__ == "__main__":
    arguments = experiment.command(__doc__, "")
    experiment.obey(arguments, "softmax_not_enough", lambda given: run(given.dir), table, picture, indent=None)
