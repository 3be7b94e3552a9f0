"""Repeated-MNIST (Kirsch et al. 2019, BatchBALD): how many labels each way of selecting takes to 90 and 95 %.

Every image is in the pool three times, each with a little noise of its own. A batch of the best by BALD is then a batch
of copies, which is why the authors found it worse than chance.

    python benchmarks/evidence/repeated_mnist.py --dir /tmp/repeated            the reduced form, for two cores
    python benchmarks/evidence/repeated_mnist.py --dir /tmp/repeated --full     the whole pool, for a GPU
    python benchmarks/evidence/repeated_mnist.py --report RESULT.json           plot and README.md from a result

The same command goes on where it was interrupted.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # numpy's, before it is imported
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from curves import quartiles_to, table
from loop import METHODS, Round, Subject, run_curve
from mnist_data import balanced, read_mnist, repeated
from networks import batchbald_cnn
from numpy.typing import NDArray
from picture import plot
from safetensors.torch import save_file
from training import Recipe, accuracy, train

from poolscore.jobs.bench.environment import environment
from poolscore.jobs.pack import pack

HERE = Path(__file__).resolve().parent
GOALS = (0.9, 0.95)
COPIES, SIGMA = 3, 0.1
STEP, FIRST_PER_CLASS = 10, 2
# Labels to a goal in the authors' published logs, quartiles over seeds (../shared/NOTES.md, section 5).
AUTHORS: dict[str, dict[str, list[float | None]]] = {
    "random": {"0.9": [190, 200, 230]},
    "bald": {"0.9": [270, 290, None]},
    "batchbald": {"0.9": [130, 130, 140]},
}


@dataclass(frozen=True)
class Setting:
    """Which of the two forms."""

    images: int  # a random part of the 60,000 training images; each is there COPIES times
    passes: int  # T
    steps: int  # of training, with 32 rows each
    labels: int  # of the last model
    device: str


REDUCED = Setting(images=1000, passes=20, steps=300, labels=250, device="cpu")
FULL = Setting(images=60_000, passes=20, steps=1000, labels=300, device="cuda")


def write_pool(folder: Path, data: Path, setting: Setting) -> None:
    """`pool`, and the same rows as arrays for training and test; once."""
    made = folder / "setting.json"
    wanted = {name: value for name, value in asdict(setting).items() if name != "labels"}
    if made.exists():
        if json.loads(made.read_text()) != wanted:
            raise SystemExit(f"--dir {folder}: holds curves of another setting; choose another folder")
        return
    folder.mkdir(parents=True, exist_ok=True)
    x, y = repeated(*read_mnist(data, "train"), setting.images, COPIES, SIGMA)
    test_x, test_y = read_mnist(data, "t10k")
    arrays: dict[str, NDArray[Any]] = {"x": x, "y": y, "test_x": test_x, "test_y": test_y}
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    shutil.rmtree(folder / "pool", ignore_errors=True)
    print(pack(folder / "x.npy", folder / "pool", labels=folder / "y.npy"))
    made.write_text(json.dumps(wanted))


def subject_of(folder: Path, setting: Setting) -> Subject:
    """Repeated-MNIST, learned by the authors' network."""
    x, y, test_x, test_y = (np.load(folder / f"{name}.npy") for name in ("x", "y", "test_x", "test_y"))
    tested = torch.from_numpy(test_x).to(setting.device), torch.from_numpy(test_y).to(setting.device)

    def fit(ids: Sequence[int], seed: int, weights: Path) -> float:
        labelled_x, labelled_y = (torch.from_numpy(of[list(ids)]).to(setting.device) for of in (x, y))
        model = train(batchbald_cnn, labelled_x, labelled_y, Recipe(setting.steps), seed)
        save_file({name: value.contiguous() for name, value in model.state_dict().items()}, weights)
        return accuracy(model, *tested)

    return Subject(
        config={
            "pool": {"uri": str(folder / "pool"), "input": "tensor", "decode": {"kind": "tensor"}},
            "model": {"source": "networks:batchbald_cnn", "path": str(HERE), "task": "multiclass", "classes": 10},
            "passes": {"count": setting.passes, "masks": "shared", "compile": False},  # anew in each round
            "run": {"device": setting.device, **({"decode_threads": 0} if setting.device == "cpu" else {})},
        },
        train=fit,
        start=lambda seed: balanced(y, FIRST_PER_CLASS, seed),
    )


def work(folder: Path, setting: Setting, method: str, seed: int) -> dict[str, Any]:
    """One curve, in a process of its own with one thread."""
    torch.set_num_threads(1)
    subject = subject_of(folder, setting)

    def say(done: Round) -> None:
        seconds = f"{done.training:.1f} s training, {done.selecting:.1f} s selecting"
        print(f"{method:9} seed {seed}: {done.labels:3} labels {done.quality:.1%}  ({seconds})", flush=True)

    rounds = run_curve(subject, METHODS[method], seed, STEP, setting.labels, folder / f"{method}-{seed}", say)
    return as_curve(subject.start(seed), rounds, setting.images)


def as_curve(start: Sequence[int], rounds: Sequence[Round], images: int) -> dict[str, Any]:
    """The curve as it is kept, with the copies of images that were labelled already among each batch."""
    seen, repeats = {row % images for row in start}, []
    for done in rounds:
        fresh = {row % images for row in done.picked} - seen
        repeats.append(len(done.picked) - len(fresh))
        seen |= fresh
    return {
        "labels": [done.labels for done in rounds],
        "quality": [done.quality for done in rounds],
        "repeats": repeats,
        "picked_by": [done.methods for done in rounds],
        "seconds": {
            "training": round(sum(done.training for done in rounds), 1),
            "selecting": round(sum(done.selecting for done in rounds), 1),
        },
    }


def run(folder: Path, setting: Setting, methods: Sequence[str], seeds: int, processes: int) -> dict[str, Any]:
    """All curves, a few at a time; seed after seed, those that take longest first."""
    tasks = [(method, seed) for seed in range(seeds) for method in sorted(methods, key=SLOWEST.index)]
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        working = {task: pool.submit(work, folder, setting, *task) for task in tasks}
        done = {task: future.result() for task, future in working.items()}
    curves = {method: {str(seed): done[method, seed] for seed in range(seeds)} for method in methods}
    summary = {method: {str(goal): quartiles_to(goal, of) for goal in GOALS} for method, of in curves.items()}
    return {
        "environment": environment(),
        "minutes_of_work": round(sum(sum(curve["seconds"].values()) for curve in done.values()) / 60, 1),
        "processes": processes,
        "setting": asdict(setting)
        | {"copies": COPIES, "sigma": SIGMA, "step": STEP, "recipe": str(Recipe(setting.steps))},
        "labels_to": summary,
        "authors": AUTHORS,
        "curves": curves,
    }


SLOWEST = ["batchbald", "power", "bald", "random"]


def report(file: Path, readme: Path = HERE / "README.md") -> None:
    """Plot beside the result, and the table in the README."""
    result = json.loads(file.read_text())
    lines = table(result["curves"], GOALS, result["authors"])
    print(lines)
    plot(result["curves"], GOALS, result["authors"], file.with_suffix(".png"), "Repeated-MNIST, batches of 10")
    where = result["environment"]
    machine = where["gpu"]["name"] if where["gpu"] else f"{where['cpu']}, {where['cores']} cores"
    said = f"`{file.name}`: {where['date'][:10]}, {machine}, {result['minutes_of_work']} minutes of work of one thread"
    picture = f"![accuracy over labels](../results/{file.with_suffix('.png').name})"
    said = "\n\n".join(part for part in (said, result.get("note"), picture) if part)
    form = "full" if result["setting"]["device"] == "cuda" else "reduced"
    before, begin, rest = readme.read_text().partition(f"<!-- {form} -->\n")
    _, end, after = rest.partition(f"<!-- end of {form} -->")
    readme.write_text(f"{before}{begin}{said}\n\n{lines}\n{end}{after}")


def main() -> None:
    """Run, or report of a result."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, default=Path("../shared/data/mnist"))
    arguments.add_argument("--dir", type=Path, help="folder to work in, which an interrupted run goes on with")
    arguments.add_argument("--full", action="store_true", help="60,000 images, on a GPU")
    arguments.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--labels", type=int, help="of the last model")
    arguments.add_argument("--processes", type=int, default=2, help="of one thread each")
    arguments.add_argument("--out", type=Path, help="result; default: benchmarks/results/, named after the day")
    arguments.add_argument(
        "--report", type=Path, metavar="RESULT", help="plot and README.md from a result; runs nothing"
    )
    given = arguments.parse_args()
    if given.report:
        report(given.report)
        return
    if not given.dir:
        arguments.error("--dir is needed to run")
    setting = FULL if given.full else REDUCED
    setting = Setting(**{**asdict(setting), "labels": given.labels or setting.labels})
    write_pool(given.dir.resolve(), given.data, setting)
    result = run(given.dir.resolve(), setting, given.methods, given.seeds, given.processes)
    device = "gpu" if setting.device == "cuda" else "cpu"
    out = given.out or HERE.parent / "results" / f"repeated_mnist_{device}_{time.strftime('%Y-%m-%d')}.json"
    out.write_text(json.dumps(result, indent=1) + "\n")
    print(f"{table(result['curves'], GOALS, AUTHORS)}\n{out}")


if __name__ == "__main__":
    main()
