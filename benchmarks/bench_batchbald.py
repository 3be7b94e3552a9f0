"""BatchBALD beside batchbald_redux, in turn, each in a process of its own: the same picks, the same scores, seconds.

    python benchmarks/bench_batchbald.py --peers peers/bin/python --out benchmarks/results/batchbald_cpu_DATE.json

1,000 candidates, T = 100 passes, C = 10 classes, batches of 10, in float64 on both sides, from float32
log-probabilities as a shortlist holds them. Both draw 10,000 outcomes once the exact joint entropy has more: rows 1 to
5 are exact. A second case, small enough to be exact to the end, shows that picks and scores are the same. `worth` is
what each whole batch is worth, estimated with 200,000 outcomes of another seed: where outcomes are drawn, batches may
differ. (The peer's minutes are most of the time: --repeats 3 takes about 8 minutes on 2 quiet cores.)

The peer lives in an interpreter of its own: see peers/requirements.txt.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poolscore.engine.selection.batchbald import Outcomes, drawn_outcomes, gains_of, probs_of
from poolscore.jobs.bench.environment import environment

HERE = Path(__file__).parent / "peers"
CASES = {"speed": (1000, 100, 10, 10), "exact": (500, 20, 4, 6)}  # candidates, passes, classes, batch
SAMPLES = 10_000
JUDGES = 200_000  # outcomes


class Process:
    """A contestant: one line in, one line of JSON out."""

    def __init__(self, python: str, file: str, threads: int) -> None:
        count = str(threads)
        limits = {"OMP_NUM_THREADS": count, "OPENBLAS_NUM_THREADS": count, "TQDM_DISABLE": "1"}
        self._process = subprocess.Popen(
            [python, HERE / file, count],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **limits},
            text=True,
        )

    def select(self, log_probs: Path, k: int) -> dict[str, Any]:
        """Seconds, picks and scores."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(
            json.dumps({"log_probs": str(log_probs), "k": k, "samples": SAMPLES}), file=self._process.stdin, flush=True
        )
        reply: dict[str, Any] = json.loads(self._process.stdout.readline())
        return reply

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def some_log_probs(N: int, T: int, C: int, seed: int = 0) -> NDArray[np.float32]:
    """Candidates of which some are certain, some undecided, some disputed among the passes."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 1.2, (N, 1, C)) * random.uniform(0, 3, (N, 1, 1))
    logits = logits + random.normal(0, 1, (N, T, C)) * random.uniform(0.2, 1.5, (N, 1, 1))
    logits -= logits.max(axis=2, keepdims=True)
    log_probs: NDArray[np.float32] = (logits - np.log(np.exp(logits).sum(axis=2, keepdims=True))).astype(np.float32)
    return log_probs


def worth(log_probs_NTC: NDArray[np.float32], places: Sequence[int]) -> float:
    """I(y_1..y_m; w) of a batch in nats, estimated alike for both."""
    T = log_probs_NTC.shape[1]
    probs_mTC = probs_of(log_probs_NTC[list(places)])
    told = 0.0
    for step in range(len(places)):
        before = (
            drawn_outcomes(probs_mTC[:step], JUDGES, seed=1) if step else Outcomes(np.ones(1), np.full((1, T), 1 / T))
        )
        told += float(gains_of(before, probs_mTC[step : step + 1])[0][0])
    return told


def run_case(name: str, processes: dict[str, Process], folder: Path, repeats: int) -> dict[str, Any]:
    """One case; prints a line."""
    N, T, C, k = CASES[name]
    log_probs = some_log_probs(N, T, C)
    file = folder / f"{name}.npy"
    np.save(file, log_probs)
    seconds: dict[str, list[float]] = {each: [] for each in processes}
    last: dict[str, dict[str, Any]] = {}
    for turn in range(repeats + 1):
        for each, process in processes.items():
            last[each] = process.select(file, k)
            if turn:  # the first is to warm up
                seconds[each].append(last[each]["seconds"])
    ours, peer = last["poolscore"], last["batchbald_redux"]
    medians = {each: statistics.median(values) for each, values in seconds.items()}
    exact = min(ours["exact"], sum(C**rows <= SAMPLES for rows in range(k)))
    found = {
        "candidates": N, "passes": T, "classes": C, "batch": k, "ln_T": math.log(T), "exact_rows": exact,
        "seconds": seconds, "median": medians, "times_faster": medians["batchbald_redux"] / medians["poolscore"],
        "picks": {each: reply["picks"] for each, reply in last.items()},
        "scores": {each: reply["scores"] for each, reply in last.items()},
        "same_picks_while_exact": ours["picks"][:exact] == peer["picks"][:exact],
        "largest_difference_of_scores_while_exact": max(
            abs(a - b) for a, b in zip(ours["scores"][:exact], peer["scores"][:exact], strict=True)
        ),
        "worth": {each: worth(log_probs, reply["picks"]) for each, reply in last.items()},
    }  # fmt: skip
    off = found["largest_difference_of_scores_while_exact"]
    print(
        f"{name} [{N}, {T}, {C}], batch {k}: poolscore {medians['poolscore']:.2f} s, batchbald_redux "
        f"{medians['batchbald_redux']:.2f} s: {found['times_faster']:.1f} times faster; the first {exact} exact, same "
        f"picks {found['same_picks_while_exact']}, scores within {off:.1e}; "
        f"all worth {found['worth']['poolscore']:.4f} and {found['worth']['batchbald_redux']:.4f} nats",
        flush=True,
    )
    return found


def main() -> None:
    """Run and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", required=True, help="python of the interpreter with batchbald_redux")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    processes = {
        "poolscore": Process(sys.executable, "batchbald_poolscore.py", arguments.threads),
        "batchbald_redux": Process(arguments.peers, "batchbald_redux_peer.py", arguments.threads),
    }
    with tempfile.TemporaryDirectory() as folder:
        cases = {name: run_case(name, processes, Path(folder), arguments.repeats) for name in CASES}
    for process in processes.values():
        process.close()
    result = {"environment": environment(), "threads": arguments.threads, "samples": SAMPLES, "cases": cases}
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
