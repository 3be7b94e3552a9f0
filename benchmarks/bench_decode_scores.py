"""What the inexact ways of decoding (`decode.method: near, scaled`) do to the scores of a trained model.

    python benchmarks/bench_decode_scores.py --data ../shared/data --dir /tmp/methods [--out FILE.json]

A small network is trained on real pictures, decoded exactly. The pictures that it has not seen are scored by the main
job with each method and compared with the exact scores: ranks (Spearman) and the best tenth. Beside them the same job
with other masks, which says how much of that difference the choice of T passes makes anyway. No times are measured.
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from poolscore.engine import score_pool
from poolscore.engine.before.advise import spearman, top_overlap
from poolscore.engine.config import ImageDecode, parse_config
from poolscore.engine.inputs.image import ImageDecoder
from poolscore.jobs.bench.environment import environment

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SCORES = ("bald", "entropy")
PASSES = 20


@dataclass(frozen=True)
class Subject:
    """Pictures, and the side that they are resized to."""

    name: str
    file: str  # below the data folder
    label: str  # column
    side: int
    epochs: int


SUBJECTS = (
    Subject("vehicles", "vehicles/vehicles.parquet", "label", 64, 30),
    Subject("vehicles", "vehicles/vehicles.parquet", "label", 48, 30),
    Subject("vehicles", "vehicles/vehicles.parquet", "label", 24, 30),
    Subject("photos", "photos/photos.parquet", "group", 64, 30),
)


def network(classes: int) -> nn.Sequential:
    """Four convolutions, dropout behind them and before the head."""
    layers: list[nn.Module] = []
    for before, after in ((3, 24), (24, 48), (48, 96), (96, 96)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.Dropout(0.25), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(384, 128), nn.ReLU()]
    return nn.Sequential(*layers, nn.Dropout(0.5), nn.Linear(128, classes))


def decode_of(subject: Subject, method: str) -> dict[str, Any]:
    side = [subject.side, subject.side]
    return {"kind": "image", "resize": side, "method": method, "mean": MEAN, "std": STD}


def train(subject: Subject, table: pa.Table, classes: list[str]) -> nn.Sequential:
    """On exactly decoded pictures and their mirror images."""
    decoder = ImageDecoder(ImageDecode(**decode_of(subject, "exact"), column="image"))
    pixels = np.zeros((table.num_rows, subject.side, subject.side, 3), np.uint8)
    assert not decoder.decode(table, pixels)
    x = decoder.to_model(torch.from_numpy(pixels))
    y = torch.tensor([classes.index(label) for label in table[subject.label].to_pylist()])
    torch.manual_seed(0)
    model = network(len(classes)).train()
    steps = subject.epochs * -(-len(y) // 32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for _ in range(subject.epochs):
        for rows in torch.randperm(len(y)).split(32):
            flipped: Tensor = x[rows].flip(-1) if torch.rand(()) < 0.5 else x[rows]
            optimizer.zero_grad()
            F.cross_entropy(model(flipped), y[rows]).backward()
            optimizer.step()
            schedule.step()
    return model


def scored(folder: Path, subject: Subject, classes: int, method: str, seed: int) -> dict[str, NDArray[Any]]:
    """Columns of the main job's scores, in the order of the pool."""
    run = folder / f"run-{method}-{seed}"
    config: dict[str, dict[str, Any]] = {
        "pool": {"uri": str(folder / "pool.parquet"), "id": "id", "input": "image", "keep": [subject.label]},
        "model": {"source": "bench_decode_scores:network", "path": str(Path(__file__).parent.resolve())},
        "passes": {"count": PASSES, "seed": seed},
        "select": {"k": 1},
        "run": {"dir": str(run), "executor": "local", "device": "cpu"},
    }
    config["pool"]["decode"] = decode_of(subject, method)
    config["model"] |= {"args": {"classes": classes}, "weights": str(folder / "net.safetensors"), "task": "multiclass"}
    score_pool(parse_config(config))
    table = pa.concat_tables(pq.read_table(part) for part in sorted((run / "scores").glob("*.parquet")))
    table = table.sort_by("row_id")
    return {name: table[name].to_numpy() for name in (*SCORES, "prediction", subject.label)}


def compare(data: Path, folder: Path, subject: Subject) -> dict[str, Any]:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    table = pq.read_table(data / subject.file)
    table = table.filter(pc.is_valid(table[subject.label]))
    if "split" in table.column_names:  # neighbours in time are alike, and must not be on both sides
        labelled, pool = (table.filter(pc.equal(table["split"], part)) for part in ("test", "pool"))
    else:
        order = np.random.default_rng(0).permutation(table.num_rows)
        labelled, pool = (table.take(pa.array(part)) for part in np.array_split(order, 2))
    pq.write_table(pool, folder / "pool.parquet")
    classes = sorted(set(table[subject.label].to_pylist()))
    save_file(train(subject, labelled, classes).state_dict(), folder / "net.safetensors")
    exact = scored(folder, subject, len(classes), "exact", 0)
    top = pool.num_rows // 10
    found: dict[str, Any] = {"subject": vars(subject), "rows": pool.num_rows, "top": top, "ways": {}}
    for way, (method, seed) in {
        "exact": ("exact", 0),
        "near": ("near", 0),
        "scaled": ("scaled", 0),
        "exact, other masks": ("exact", 1),
    }.items():
        other = scored(folder, subject, len(classes), method, seed) if way != "exact" else exact
        right = np.array(classes)[other["prediction"]] == other[subject.label]
        found["ways"][way] = {"accuracy": float(right.mean())} | {
            name: {
                "spearman": spearman(other[name], exact[name]),
                "overlap": top_overlap(other[name], exact[name], top),
                "mean_difference": float(np.abs(other[name] - exact[name]).mean()),
            }
            for name in SCORES
        }
    return found


def show(found: dict[str, Any]) -> None:
    subject = found["subject"]
    print(f"\n{subject['name']} at {subject['side']}: {found['rows']} rows, the best {found['top']}")
    for way, of in found["ways"].items():
        told = (
            f"{name}: {of[name]['spearman']:.4f} {of[name]['overlap']:4.0%} ±{of[name]['mean_difference']:.4f}"
            for name in SCORES
        )
        print(f"  {way:20} accuracy {of['accuracy']:.3f}  {'  '.join(told)}")


def main() -> None:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--dir", type=Path, required=True, help="made anew")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    result: dict[str, Any] = {"environment": environment(), "subjects": []}
    for subject in SUBJECTS:
        result["subjects"].append(compare(asked.data, asked.dir / f"{subject.name}-{subject.side}", subject))
        show(result["subjects"][-1])
    if asked.out is not None:
        asked.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
