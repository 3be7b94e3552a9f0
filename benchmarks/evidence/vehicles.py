"""Road-camera pictures with a rare class: how soon are the cyclists found, who are 1 in 100?

    python benchmarks/evidence/vehicles.py --dir /tmp/vehicles --seeds 5             from 21 to 181 labels
    python benchmarks/evidence/vehicles.py --dir /tmp/vehicles --seeds 20 --full

Motorcyclist, cyclist or neither. The person who asks has ten pictures of each common class and one cyclist; the pool
holds five more among 899. 280 test pictures, of other moments of the road, hold two cyclists.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import experiment  # first: it sets the number of threads
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from curves import Column, Seeds, at, columns_table, mean_quality, minus_random, quality_at, spread
from experiment import Experiment, Result, Setting
from loop import WITHOUT, Round, Sections, Subject, inference, network
from measures import average_precision
from networks import vehicle_cnn
from numpy.typing import NDArray
from picture import plot_measures
from PIL import Image
from training import Steps, outputs, save, train

CLASSES = ("cyclist", "motorcyclist", "neither")
FIRST = (1, 10, 10)  # labels of each
SIZE = 48  # pixels
METHODS: dict[str, Sections] = {
    "bald": {"select": {"score": "bald"}},
    "entropy": {"select": {"score": "entropy"}},
    "random": {"select": {"score": "random"}, "passes": {"count": 1}},
}


@dataclass(frozen=True)
class VehicleSetting(Setting):
    passes: int = 50  # T
    steps: int = 300  # of training, with 32 rows each


REDUCED = VehicleSetting(labels=181, step=20, device="cpu")
FULL = VehicleSetting(labels=421, step=10, device="cuda")


def prepare(folder: Path, data: Path, setting: VehicleSetting) -> None:
    """The pool with its pictures as they are, and both parts as arrays. Runs of neighbouring pictures stay in one part,
    as the column `split` says."""
    table = pq.read_table(data / "vehicles.parquet", columns=["image", "rider", "split"])
    for part in ("pool", "test"):
        rows = table.filter(pa.compute.equal(table["split"], part))
        y = np.array([CLASSES.index(rider) for rider in rows["rider"].to_pylist()])
        pixels = np.stack([_pixels(image) for image in rows["image"].to_pylist()])
        np.savez(folder / f"{part}.npz", x=pixels, y=y)
        numbered = rows.select(["image"]).append_column("id", pa.array(np.arange(len(y))))
        pq.write_table(numbered, folder / f"{part}.parquet", compression="none")


def _pixels(image: bytes) -> NDArray[np.uint8]:
    """As poolscore decodes them."""
    picture = Image.open(io.BytesIO(image)).convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    return np.asarray(picture).transpose(2, 0, 1)


def subject(folder: Path, setting: VehicleSetting, method: str, seed: int) -> Subject:
    """The three classes, learned by a small network of convolutions."""
    pool, test = np.load(folder / "pool.npz"), np.load(folder / "test.npz")
    x, tested = (torch.from_numpy((part["x"] / 255 - 0.5) / 0.25).float().to(setting.device) for part in (pool, test))
    y = torch.from_numpy(pool["y"]).to(setting.device)

    def fit(ids: Sequence[int], seed: int, weights: Path) -> dict[str, float]:
        model = train(vehicle_cnn, x[list(ids)], y[list(ids)], Steps(setting.steps), seed)
        save(model, weights)
        found = outputs(model, tested).softmax(1).cpu().numpy()
        each = {name: average_precision(found[:, i], test["y"] == i) for i, name in enumerate(CLASSES)}
        right = float((found.argmax(1) == test["y"]).mean())
        return {"quality": float(np.mean(list(each.values()))), **each, "accuracy": right}

    return Subject(
        config={
            "pool": {
                "uri": str(folder / "pool.parquet"),
                "input": "image",
                "decode": {"kind": "image", "resize": [SIZE, SIZE], "mean": [0.5], "std": [0.25]},
            },
            **network("vehicle_cnn", "multiclass", len(CLASSES)),
            **inference(setting.passes, setting.device),
            **WITHOUT,
        },
        train=fit,
        start=lambda seed: _first(pool["y"], seed),
    )


def _first(y: NDArray[np.int64], seed: int) -> list[int]:
    rng = np.random.default_rng(seed)
    drawn = [rng.choice(np.flatnonzero(y == i), count, replace=False) for i, count in enumerate(FIRST)]
    return [int(row) for rows in drawn for row in rows]


def found(folder: Path, setting: VehicleSetting, method: str, seed: int, rounds: Sequence[Round]) -> dict[str, Any]:
    """Share of the other cyclists of the pool that are labelled, when each model is trained."""
    y = np.load(folder / "pool.npz")["y"]
    others = int((y == 0).sum()) - FIRST[0]
    picked = np.cumsum([0, *(int((y[done.picked] == 0).sum()) for done in rounds[:-1])])
    return {"found": (picked / others).tolist()}


def found_at(labels: int) -> Column:
    """Recall of the rare class among the selected."""

    def cell(method: str, seeds: Seeds) -> str:
        return spread(at(seeds, labels, "found"), ".0%")

    return f"cyclists found, {labels} labels", cell


def cyclists() -> Column:
    """Average precision of the rare class, from the first to the last model."""
    return "AP of cyclists, over the curve", lambda method, seeds: spread(
        [float(np.mean(curve["cyclist"])) for curve in seeds.values()], ".2f"
    )


def table(result: Result) -> str:
    """What was found, and the average precision that came of it."""
    curves = result["curves"]
    recall = [found_at(labels) for labels in (61, 121, 181)]
    quality = [quality_at(121), quality_at(181), mean_quality(), minus_random(curves)]
    return columns_table(curves, *recall, *quality, cyclists())


def picture(result: Result, out: Path) -> None:
    """Cyclists found, and average precision."""
    panels = {"found": "cyclists of the pool found", "quality": "mean average precision", "cyclist": "AP of cyclists"}
    plot_measures(result["curves"], out, "Vehicles: a class that is 1 in 100", panels)


EXPERIMENT = Experiment(
    name="vehicles",
    data="vehicles",
    methods=METHODS,
    reduced=REDUCED,
    full=FULL,
    prepare=prepare,
    subject=subject,
    table=table,
    plot=picture,
    authors={},
    more=found,
)

if __name__ == "__main__":
    experiment.main(EXPERIMENT, __doc__)
