"""Search relevance on MQ2008 (LETOR 4.0): mean average precision over labels, several scores against random.

    python benchmarks/evidence/relevance.py --dir /tmp/relevance --seeds 5             from 40 to 280 labels
    python benchmarks/evidence/relevance.py --dir /tmp/relevance --seeds 20 --full    to 1,000

A pair of a query and a document, in 46 features, is relevant or not. The pool is Fold1's training part, the test set
its test part. Average precision is of the ranking within a query; a query without a relevant document counts 0, as in
LETOR.
"""

from __future__ import annotations

import gzip
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
from measures import average_precision
from networks import relevance_net
from numpy.typing import NDArray
from picture import plot
from training import Steps, outputs, save, train

FEATURES = 46
FIRST = 40  # labels, at random
L2 = 1e-4  # of all parameters
METHODS: dict[str, Sections] = {
    "bald": {"select": {"score": "bald"}},
    "power": {"select": {"score": "bald", "method": "power"}},
    "entropy": {"select": {"score": "entropy"}},
    "random": {"select": {"score": "random"}, "passes": {"count": 1}},
}


@dataclass(frozen=True)
class RelevanceSetting(Setting):
    passes: int = 50  # T
    dropout: float = 0.2
    steps: int = 500  # of training, with 32 rows each


REDUCED = RelevanceSetting(labels=280, step=40, device="cpu")
FULL = RelevanceSetting(labels=1000, step=20, device="cpu")


def prepare(folder: Path, data: Path, setting: RelevanceSetting) -> None:
    """The training part as a pool, and both parts as arrays."""
    for part in ("train", "test"):
        x, y, query = read_letor(data / f"{part}.txt.gz")
        np.savez(folder / f"{part}.npz", x=x, y=y, query=query)
        columns = {"id": np.arange(len(x))} | {f"f{i}": column for i, column in enumerate(x.T)}
        pq.write_table(pa.table(columns), folder / f"{part}.parquet")


def read_letor(file: Path) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """Features [N, 46], whether it is relevant (grade 1 or 2) [N], and the query [N]."""
    with gzip.open(file, "rt") as lines:
        rows = [line.partition("#")[0].split() for line in lines]
    x = np.array([[float(word.partition(":")[2]) for word in row[2:]] for row in rows], np.float32)
    y = np.array([int(row[0]) > 0 for row in rows], np.float32)
    return x, y, np.array([int(row[1].partition(":")[2]) for row in rows])


def subject(folder: Path, setting: RelevanceSetting, method: str, seed: int) -> Subject:
    """Relevance, learned by two hidden layers."""
    pool, test = np.load(folder / "train.npz"), np.load(folder / "test.npz")
    x, y = (torch.from_numpy(pool[name]).to(setting.device) for name in "xy")
    tested = torch.from_numpy(test["x"]).to(setting.device)
    queries = [np.flatnonzero(test["query"] == query) for query in np.unique(test["query"])]
    net = partial(relevance_net, FEATURES, setting.dropout)

    def fit(ids: Sequence[int], seed: int, weights: Path) -> float:
        loss = F.binary_cross_entropy_with_logits
        model = train(net, x[list(ids)], y[list(ids), None], Steps(setting.steps), seed, loss=loss, l2={"": L2})
        save(model, weights)
        found = outputs(model, tested)[:, 0].cpu().numpy()
        return float(np.mean([average_precision(found[rows], test["y"][rows]) for rows in queries]))

    return Subject(
        config={
            "pool": {
                "uri": str(folder / "train.parquet"),
                "input": [f"f{i}" for i in range(FEATURES)],
                "decode": {"kind": "features"},
            },
            **network("relevance_net", "binary", 1, features=FEATURES, dropout=setting.dropout),
            **inference(setting.passes, setting.device),
            **WITHOUT,
        },
        train=fit,
        start=lambda seed: np.random.default_rng(seed).choice(len(x), FIRST, replace=False).tolist(),
    )


def table(result: Result) -> str:
    """Mean average precision on the way."""
    stops = [quality_at(labels) for labels in (FIRST, 120, 200, 280)]
    return columns_table(result["curves"], *stops, mean_quality(), minus_random(result["curves"]))


def picture(result: Result, out: Path) -> None:
    """Mean average precision over labels."""
    plot(result["curves"], out, "MQ2008, relevant or not, 40 labels at a time", "test mean average precision")


EXPERIMENT = Experiment(
    name="relevance",
    data="mq2008",
    methods=METHODS,
    reduced=REDUCED,
    full=FULL,
    prepare=prepare,
    subject=subject,
    table=table,
    plot=picture,
    authors={},
)

if __name__ == "__main__":
    experiment.main(EXPERIMENT, __doc__)
