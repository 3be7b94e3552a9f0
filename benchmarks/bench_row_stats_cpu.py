"""BALD from logits on the CPU: ours beside torch eager, torch.compile and the formulas of other libraries.

    python benchmarks/bench_row_stats_cpu.py --threads 2 --out benchmarks/results/row_stats_cpu.json

For each shape [N, T, C] of fp32 logits: median ms of interleaved calls, the largest error against float64, and the
peak MiB beyond the logits. Memory is measured once for each contestant in a process of its own: the peak of the
resident set from just before to just after one call, after a first call that loads and compiles what it needs. There
malloc gives freed memory back at once, so that the first call leaves nothing to reuse.

The other libraries' formulas are written out, each on the layout that its users have, without what surrounds them
(progress bars, garbage collections, checks of their own). Sources: baal heuristics.py and heuristics_gpu.py; BatchBALD
src/torch_utils.py; batchbald_redux batchbald.py; torch-uncertainty mutual_information.py.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from poolscore.jobs.bench.environment import environment
from poolscore.jobs.bench.timing import interleaved_ms, medians
from poolscore.kernels.row_stats import SCORES_OF_TASK, row_stats, row_stats_reference

SHAPES_NTC = ((20000, 20, 10), (256, 20, 1000), (64, 20, 10))
RETURN_FREED_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}


def ours(logits_NTC: Tensor) -> Tensor:
    return row_stats(logits_NTC, "multiclass", ["bald"]).scores["bald"]


def ours_all_scores(logits_NTC: Tensor) -> Tensor:
    return row_stats(logits_NTC, "multiclass", SCORES_OF_TASK["multiclass"]).scores["bald"]


def reference_all_scores(logits_NTC: Tensor) -> Tensor:
    return row_stats_reference(logits_NTC, "multiclass", SCORES_OF_TASK["multiclass"]).scores["bald"]


def eager(logits_NTC: Tensor) -> Tensor:
    """The five lines that one writes oneself."""
    log_p_NTC = torch.log_softmax(logits_NTC, -1)
    p_NTC = log_p_NTC.exp()
    mean_NC = p_NTC.mean(1)
    entropy_N = -(mean_NC * mean_NC.log()).sum(-1)
    return entropy_N + (p_NTC * log_p_NTC).sum(-1).mean(1)


def baal_logits(logits_NCT: Tensor) -> Tensor:
    """With numpy's exp and log for scipy's softmax and xlogy, which are slower."""
    logits = logits_NCT.numpy()
    p_NCT = np.exp(logits - logits.max(1, keepdims=True))
    p_NCT /= p_NCT.sum(1, keepdims=True)
    mean_NC = p_NCT.mean(-1)
    expected_N = -np.mean(np.sum(p_NCT * np.log(p_NCT), axis=1), axis=-1)
    return torch.from_numpy(-np.sum(mean_NC * np.log(mean_NC), axis=1) - expected_N)


def baal_gpu_wrapper(logits_NCT: Tensor) -> Tensor:
    p_NCT = torch.softmax(logits_NCT, 1)
    expected_N = -torch.mean(torch.sum(p_NCT * torch.log(p_NCT + 1e-5), 1), dim=-1)
    mean_NC = torch.mean(p_NCT, dim=-1)
    return -torch.sum(mean_NC * torch.log(mean_NC + 1e-5), dim=1) - expected_N


def batchbald(logits_NTC: Tensor) -> Tensor:
    def entropy(log_p: Tensor) -> Tensor:
        return -torch.sum((torch.exp(log_p) * log_p).double(), dim=-1)

    log_p_NTC = torch.log_softmax(logits_NTC, -1)
    log_mean_NC = torch.logsumexp(log_p_NTC, dim=1) - math.log(log_p_NTC.shape[1])
    return entropy(log_mean_NC) - torch.mean(entropy(log_p_NTC), dim=1)


def batchbald_redux(logits_NTC: Tensor) -> Tensor:
    scores_N = torch.empty(len(logits_NTC), dtype=torch.double)
    log_p_NTC = torch.log_softmax(logits_NTC, -1)
    T = log_p_NTC.shape[1]
    for first in range(0, len(logits_NTC), 1024):
        log_p = log_p_NTC[first : first + 1024]
        log_mean = torch.logsumexp(log_p, dim=1) - math.log(T)
        conditional = -torch.sum(log_p * torch.exp(log_p), dim=(1, 2)) / T
        scores_N[first : first + 1024] = -torch.sum(log_mean * torch.exp(log_mean), dim=1) - conditional
    return scores_N


def torch_uncertainty(logits_NTC: Tensor) -> Tensor:
    p_NTC = torch.softmax(logits_NTC, -1)
    entropy_N = torch.special.entr(p_NTC.mean(dim=1)).sum(dim=-1)
    return torch.clamp(entropy_N - torch.special.entr(p_NTC).sum(dim=-1).mean(dim=1), min=0)


Formula = Callable[[Tensor], Tensor]
CLASSES_BEFORE_PASSES: dict[str, Formula] = {"baal (logits)": baal_logits, "baal GPU wrapper": baal_gpu_wrapper}
PEERS: dict[str, Formula] = CLASSES_BEFORE_PASSES | {
    "original BatchBALD": batchbald,
    "batchbald_redux": batchbald_redux,
    "torch-uncertainty": torch_uncertainty,
}


def contestants(logits_NTC: Tensor) -> dict[str, Callable[[], Tensor]]:
    """name → call that gives BALD [N]."""
    compiled: Formula = torch.compile(eager, dynamic=False)
    own: dict[str, Formula] = {
        "ours": ours,
        "ours, all scores": ours_all_scores,
        "reference, all scores": reference_all_scores,
        "torch eager": eager,
        "torch.compile": compiled,
    }
    logits_NCT = logits_NTC.transpose(1, 2).contiguous()
    return {
        name: partial(formula, logits_NCT if name in CLASSES_BEFORE_PASSES else logits_NTC)
        for name, formula in (own | PEERS).items()
    }


def compare(shape_NTC: tuple[int, int, int], repeats: int, threads: int) -> dict[str, Any]:
    """Every contestant on one shape: milliseconds, extra memory, error; and the two ratios that we are after."""
    logits_NTC = random_logits(shape_NTC)
    exact_N = eager(logits_NTC.double())
    calls = contestants(logits_NTC)
    error = {name: (call().double() - exact_N).abs().max().item() for name, call in calls.items()}
    ms = medians(interleaved_ms(calls, repeats))
    best_peer = min(ms[name] for name in PEERS)
    return {
        "shape_NTC": shape_NTC,
        "ms": {name: round(value, 3) for name, value in ms.items()},
        "max_error": {name: float(f"{value:.2g}") for name, value in error.items()},
        "peak_extra_MiB": {name: extra_MiB_in_process(name, shape_NTC, threads) for name in calls},
        "torch.compile / ours": round(ms["torch.compile"] / ms["ours"], 2),
        "best peer / ours": round(best_peer / ms["ours"], 2),
    }


def random_logits(shape_NTC: tuple[int, ...]) -> Tensor:
    return torch.randn(shape_NTC, generator=torch.Generator().manual_seed(0)) * 3


def extra_MiB_in_process(name: str, shape_NTC: tuple[int, int, int], threads: int) -> float:
    shape = ",".join(map(str, shape_NTC))
    command = [sys.executable, __file__, "--memory-of", name, "--shape", shape, "--threads", str(threads)]
    run = subprocess.run(command, env=os.environ | RETURN_FREED_MEMORY, capture_output=True, text=True, check=True)
    return float(run.stdout)


def extra_MiB(call: Callable[[], Tensor]) -> float:
    """Peak of the resident set during one call, less what it was before. Linux."""
    call()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before = resident_KiB("VmRSS")
    call()
    return round((resident_KiB("VmHWM") - before) / 1024, 1)


def resident_KiB(field: str) -> int:
    found = re.search(rf"^{field}:\s*(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--memory-of", help="for the child processes: print the extra MiB of this contestant")
    parser.add_argument("--shape", type=lambda text: tuple(map(int, text.split(","))))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.memory_of:
        print(extra_MiB(contestants(random_logits(arguments.shape))[arguments.memory_of]))
        return
    shapes = [arguments.shape] if arguments.shape else SHAPES_NTC
    results = [compare(shape, arguments.repeats, arguments.threads) for shape in shapes]
    report = {"environment": environment(), "threads": arguments.threads, "load": os.getloadavg(), "shapes": results}
    text = json.dumps(report, indent=2)
    if arguments.out:
        arguments.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
