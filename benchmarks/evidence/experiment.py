"""An experiment: learning curves of several ways of selecting, over seeds, and the result that is kept of them.

Every experiment is a module with a constant EXPERIMENT, and one command:

    python benchmarks/evidence/NAME.py --dir DIR               the reduced form, for two cores
    python benchmarks/evidence/NAME.py --dir DIR --full        the full form, for a GPU
    python benchmarks/evidence/NAME.py --dir DIR --so-far      puts together what DIR holds; runs nothing
    python benchmarks/evidence/NAME.py --report RESULT.json    plot and README.md from a result

The same command goes on where it was interrupted: every round of every curve is kept in DIR.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # numpy's, before it is imported

import torch
from loop import Round, Sections, Subject, cut, read_rounds, run_curve
from report import report

from poolscore.jobs.bench.environment import environment

HERE = Path(__file__).resolve().parent
Result = dict[str, Any]  # as it is written to JSON


@dataclass(frozen=True)
class Setting:
    """One of the two forms; experiments add what is theirs."""

    labels: int  # of the last model
    step: int  # rows of a batch
    device: str


@dataclass(frozen=True)
class Experiment:
    """What is learned, how batches are selected, and what is said of it."""

    name: str  # of its module
    data: str  # its folder of the data sets
    methods: Mapping[str, Sections]
    reduced: Setting
    full: Setting
    prepare: Callable[[Path, Path, Any], None]  # (folder, data, setting): write the pool and what training needs
    subject: Callable[[Path, Any, str, int], Subject]  # (folder, setting, method, seed)
    table: Callable[[Result], str]  # Markdown
    plot: Callable[[Result, Path], None]  # PNG
    authors: Mapping[str, Any]  # numbers of a paper, kept beside ours
    more: Callable[[Path, Any, str, int, list[Round]], dict[str, Any]] = lambda *_: {}  # kept of a curve
    extra: Sequence[str] = ()  # methods that run when --methods names them

    @property
    def usual(self) -> list[str]:
        """The methods of a run that names none."""
        return [method for method in self.methods if method not in self.extra]


def prepare(experiment: Experiment, folder: Path, data: Path, setting: Setting) -> None:
    """The pool, once."""
    made = folder / "setting.json"
    wanted = json.loads(json.dumps({name: value for name, value in asdict(setting).items() if name != "labels"}))
    if made.exists():
        if json.loads(made.read_text()) != wanted:
            raise SystemExit(f"--dir {folder}: holds curves of another setting; choose another folder")
        return
    folder.mkdir(parents=True, exist_ok=True)
    experiment.prepare(folder, data, setting)
    made.write_text(json.dumps(wanted))


def work(name: str, folder: Path, setting: Setting, method: str, seed: int) -> None:
    """One curve, in a process of its own with one thread."""
    torch.set_num_threads(1)
    experiment: Experiment = importlib.import_module(name).EXPERIMENT

    def say(done: Round) -> None:
        seconds = f"{done.training:.1f} s training, {done.selecting:.1f} s selecting"
        print(f"{method:15} seed {seed}: {done.labels:3} labels {done.quality:.4f}  ({seconds})", flush=True)

    subject = experiment.subject(folder, setting, method, seed)
    here = folder / f"{method}-{seed}"
    run_curve(subject, experiment.methods[method], seed, setting.step, setting.labels, here, say)


def run(experiment: Experiment, folder: Path, setting: Setting, tasks: Sequence[tuple[str, int]], count: int) -> None:
    """All curves, `count` at a time."""
    with ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
        for future in [pool.submit(work, experiment.name, folder, setting, *task) for task in tasks]:
            future.result()


def gather(experiment: Experiment, folder: Path, setting: Setting, methods: Sequence[str], seeds: int) -> Result:
    """The result of what `folder` holds."""
    curves: dict[str, dict[str, dict[str, Any]]] = {}
    for method in methods:
        for seed in range(seeds):
            if rounds := cut(read_rounds(folder / f"{method}-{seed}" / "rounds.jsonl"), setting.labels):
                of_seed = as_curve(rounds) | experiment.more(folder, setting, method, seed, rounds)
                curves.setdefault(method, {})[str(seed)] = of_seed
    seconds = sum(sum(curve["seconds"].values()) for of in curves.values() for curve in of.values())
    return {
        "minutes_of_work": round(seconds / 60, 1),
        "missing": missing(curves, setting.labels, methods, seeds),
        "setting": asdict(setting),
        "authors": experiment.authors,
        "curves": curves,
    }


def missing(curves: Mapping[str, Mapping[str, Any]], labels: int, methods: Sequence[str], seeds: int) -> list[str]:
    """In words, what of the form has not been run."""
    ends = {
        (method, seed): curves.get(method, {}).get(str(seed), {"labels": [0]})["labels"][-1]
        for method in methods
        for seed in range(seeds)
    }
    return [
        f"{method} seed {seed}: {f'to {end} of {labels} labels' if end else 'not begun'}"
        for (method, seed), end in ends.items()
        if end < labels
    ]


def as_curve(rounds: Sequence[Round]) -> dict[str, Any]:
    """What is kept of any curve."""
    return {
        "labels": [done.labels for done in rounds],
        "quality": [done.quality for done in rounds],
        **{name: [done.measures[name] for done in rounds] for name in rounds[0].measures if name != "quality"},
        "picked_by": [done.methods for done in rounds],
        "seconds": {
            "training": round(sum(done.training for done in rounds), 1),
            "selecting": round(sum(done.selecting for done in rounds), 1),
        },
    }


def command(about: str | None, data: str) -> argparse.ArgumentParser:
    """What every command takes; `data`: its folder of the data sets."""
    arguments = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, default=Path("../shared/data") / data)
    arguments.add_argument("--dir", type=Path, help="folder to work in, which an interrupted run goes on with")
    arguments.add_argument("--note", help="what a reader should know of this run; kept in the result")
    arguments.add_argument("--out", type=Path, help="result; default: benchmarks/results/, named after the day")
    arguments.add_argument(
        "--report", type=Path, metavar="RESULT", help="picture and README.md from a result; runs nothing"
    )
    return arguments


def obey(
    arguments: argparse.ArgumentParser,
    name: str,
    run: Callable[[argparse.Namespace], Result],
    table: Callable[[Result], str],
    plot: Callable[[Result, Path], None] | None,
    indent: int | None = 1,
) -> None:
    """Report of a result, or run and write one: the environment, and what `run` gives for the arguments (of which `dir`
    is absolute). `setting.device` tells a result of a GPU."""
    given = arguments.parse_args()
    if given.report:
        report(name, table, plot, given.report)
        return
    if not given.dir:
        arguments.error("--dir is needed to run")
    given.dir = given.dir.resolve()
    torch.set_num_threads(1)
    result = {"environment": environment(), **run(given)}
    if given.note:
        result["note"] = given.note
    device = "gpu" if result.get("setting", {}).get("device") == "cuda" else "cpu"
    out = given.out or HERE.parent / "results" / f"{name}_{device}_{time.strftime('%Y-%m-%d')}.json"
    out.write_text(json.dumps(result, indent=indent) + "\n")
    print(f"{table(result)}\n{out}")


def main(experiment: Experiment, about: str | None) -> None:
    """The command of an experiment."""
    arguments = command(about, experiment.data)
    arguments.add_argument("--full", action="store_true", help="the full form, on a GPU")
    arguments.add_argument("--methods", nargs="+", choices=list(experiment.methods), default=experiment.usual)
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--labels", type=int, help="of the last model")
    arguments.add_argument("--processes", type=int, default=2, help="of one thread each")
    arguments.add_argument("--so-far", action="store_true", help="put together what --dir holds; runs nothing")

    def curves(given: argparse.Namespace) -> Result:
        setting = experiment.full if given.full else experiment.reduced
        setting = replace(setting, labels=given.labels or setting.labels)
        if not given.so_far:
            prepare(experiment, given.dir, given.data, setting)
            tasks = [(method, seed) for seed in range(given.seeds) for method in given.methods]
            run(experiment, given.dir, setting, tasks, given.processes)
        result = gather(experiment, given.dir, setting, given.methods, given.seeds)
        return {"form": "full" if given.full else "reduced", **result}

    obey(arguments, experiment.name, curves, experiment.table, experiment.plot)
