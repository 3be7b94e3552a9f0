"""Regression on five UCI sets: RMSE over labels, rows of the largest predictive variance against random ones.

    python benchmarks/evidence/uci_regression.py --dir /tmp/uci --seeds 5            up to 160 labels
    python benchmarks/evidence/uci_regression.py --dir /tmp/uci --seeds 20 --full    every split, up to 260

The network of Gal & Ghahramani 2016 with one setting for all sets. 2,000 steps of 32 rows was chosen on training parts
alone (30 and 120 random labels, splits 0 and 1): their 400 epochs are too few steps for so few rows. Seed s is their
split s: its training part is the pool, and its test part the test set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import experiment  # first: it sets the number of threads
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from curves import columns_table, mean_quality, minus_random, quality_at
from experiment import Experiment, Result, Setting
from loop import WITHOUT, Sections, Subject, inference, network
from networks import uci_net
from picture import plot_panels
from training import Steps, outputs, save, train
from uci_data import Table, read_uci, scale_of

SETS = ("concrete", "energy", "power-plant", "wine-quality-red", "yacht")
WAYS: dict[str, Sections] = {
    "variance": {"select": {"score": "predictive_variance"}},
    "power": {"select": {"score": "predictive_variance", "method": "power"}},
    "random": {"select": {"score": "random"}, "passes": {"count": 1}},
}
EXTRA = [f"{name}/power" for name in SETS]  # came when the result of variance was known
METHODS = {f"{name}/{way}": sections for name in SETS for way, sections in WAYS.items()}
FIRST = 20  # labels, at random
L2 = 1e-4  # of the weights


@dataclass(frozen=True)
class UciSetting(Setting):
    passes: int = 50  # T
    dropout: float = 0.05
    steps: int = 2000  # of training, with 32 rows each


REDUCED = UciSetting(labels=160, step=20, device="cpu")
FULL = UciSetting(labels=260, step=20, device="cpu")


def prepare(folder: Path, data: Path, setting: UciSetting) -> None:
    """Every set as one table of the pool, and as arrays. A split is a filter of the pool."""
    for name in SETS:
        table = read_uci(data / name)
        splits = np.zeros((len(table.tests), len(table.x)), bool)  # whether a row is a test row
        for split, rows in enumerate(table.tests):
            splits[split, rows] = True
        columns = {"id": np.arange(len(table.x))}
        columns |= {f"f{i}": column for i, column in enumerate(table.x.T)}
        columns |= {f"test{split}": rows for split, rows in enumerate(splits)}
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
        np.savez(folder / f"{name}.npz", x=table.x, y=table.y, tests=splits)


def subject(folder: Path, setting: UciSetting, method: str, split: int) -> Subject:
    """One of the sets. The network sees features scaled by the pool, which has no test row, and targets by the labelled
    rows."""
    name = method.split("/")[0]
    kept = np.load(folder / f"{name}.npz")
    table = Table(kept["x"], kept["y"], [np.flatnonzero(rows) for rows in kept["tests"]])
    mean, std = scale_of(table.x[table.training(split)])
    x = torch.from_numpy((table.x - mean) / std).to(setting.device)
    y = torch.from_numpy(table.y).to(setting.device)
    net = partial(uci_net, table.x.shape[1], setting.dropout)

    def fit(ids: Sequence[int], seed: int, weights: Path) -> float:
        labelled = y[list(ids)]
        centre, scale = labelled.mean(), labelled.std()
        l2 = {"first.weight": L2, "last.weight": L2}
        goals = (labelled - centre) / scale
        model = train(net, x[list(ids)], goals, Steps(setting.steps), seed, loss=F.mse_loss, l2=l2)
        save(model, weights)
        test = torch.from_numpy(table.tests[split])
        return float((outputs(model, x[test]) * scale + centre - y[test]).square().mean().sqrt())

    return Subject(
        config={
            "pool": {
                "uri": str(folder / f"{name}.parquet"),
                "filter": f"test{split} == false",
                "input": [f"f{i}" for i in range(table.x.shape[1])],
                "decode": {"kind": "features", "mean": mean.tolist(), "std": std.tolist()},
            },
            **network("uci_net", "regression", 1, features=table.x.shape[1], dropout=setting.dropout),
            **inference(setting.passes, setting.device),
            **WITHOUT,
        },
        train=fit,
        start=lambda seed: np.random.default_rng(seed).choice(table.training(split), FIRST, replace=False).tolist(),
    )


def table(result: Result) -> str:
    """RMSE on the way, the smaller the better; a difference above 0 is worse than random."""
    stops = [quality_at(labels) for labels in (FIRST, 60, 100, 160)]
    return columns_table(result["curves"], *stops, mean_quality(), minus_random(result["curves"]))


def picture(result: Result, out: Path) -> None:
    """A panel for every set."""
    plot_panels(result["curves"], out, "RMSE over labels, smaller is better", "test RMSE")


EXPERIMENT = Experiment(
    name="uci_regression",
    data="uci",
    methods=METHODS,
    reduced=REDUCED,
    full=FULL,
    prepare=prepare,
    subject=subject,
    table=table,
    plot=picture,
    authors={},
    extra=EXTRA,
)

if __name__ == "__main__":
    experiment.main(EXPERIMENT, __doc__)
