"""The row statistics on a GPU beside torch eager, torch.compile and the speed of the memory.

    python benchmarks/bench_row_stats.py --out benchmarks/results             the table
    python benchmarks/bench_row_stats.py --sweep --out benchmarks/results     and over C and T, with plots
    python benchmarks/bench_row_stats.py --device cpu                         small sizes, to try the script

GB/s are model bytes, N·T·C logits read once, over the median time of interleaved calls. The fraction is that of the
bandwidth of a copy (bytes read and written) of 2 GiB, measured in the same run. Inputs that would stay in the L2 cache
rotate through copies of themselves. Contestants: `ours` computes BALD, `ours_all` every score, `ours_accurate` BALD
with `accurate_bald`, the others BALD. An accurate BALD reads the logits again, but its bytes are those of one read:
predicted (benchmarks/NOTES.md) 0.5 of the copy in float32 and 0.3 in bfloat16, where the others hope for 0.9 and 0.85.
The CPU's own comparison, with other libraries and peak memory, is `bench_row_stats_cpu.py`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from poolscore.jobs.bench.environment import environment
from poolscore.jobs.bench.timing import interleaved_ms, medians
from poolscore.kernels.row_stats import SCORES_OF_TASK, row_stats, row_stats_reference

Shape = tuple[int, int, int]
SHAPES_NTC: dict[str, tuple[Shape, ...]] = {
    # of the notes; then several times as large as the L2 cache
    "cuda": (
        (65536, 20, 10), (16384, 20, 1000), (2048, 20, 21841), (64, 16, 128256),
        (1048576, 20, 10), (65536, 20, 1000), (65536, 20, 257), (256, 16, 128256),
    ),
    "cpu": ((512, 20, 10), (64, 20, 100)),
}  # fmt: skip
SWEEP_C = (2, 3, 5, 10, 16, 17, 32, 64, 100, 128, 257, 512, 600, 1000, 1024, 2048, 4096, 8192, 8200, 16384, 65536)
SWEEP_T = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
SWEEP_LOGITS = {"cuda": 160_000_000, "cpu": 100_000}
L2_BYTES = 60_000_000


def eager(logits_NTC: Tensor) -> Tensor:
    """BALD in the five lines that one writes oneself."""
    log_p_NTC = torch.log_softmax(logits_NTC.float(), -1)
    p_NTC = log_p_NTC.exp()
    mean_NC = p_NTC.mean(1)
    entropy_N: Tensor = -torch.special.xlogy(mean_NC, mean_NC).sum(-1)
    return entropy_N + (p_NTC * log_p_NTC).sum(-1).mean(1)


def ours(logits_NTC: Tensor) -> Tensor:
    return row_stats(logits_NTC, "multiclass", ["bald"]).scores["bald"]


def ours_accurate(logits_NTC: Tensor) -> Tensor:
    return row_stats(logits_NTC, "multiclass", ["bald"], accurate_bald=True).scores["bald"]


def ours_all(logits_NTC: Tensor) -> Tensor:
    wanted = SCORES_OF_TASK["multiclass"] if logits_NTC.shape[1] > 1 else {"entropy", "margin", "least_confidence"}
    return row_stats(logits_NTC, "multiclass", wanted).scores["entropy"]


def copy_bandwidth(device: str, repeats: int) -> float:
    """GB/s of a device copy, bytes read and bytes written, of 2 GiB (16 MiB on a CPU)."""
    source = torch.zeros(2**31 if device == "cuda" else 2**24, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    ms = medians(interleaved_ms({"copy": lambda: target.copy_(source)}, repeats, device=device))["copy"]
    return 2 * source.nbytes / ms / 1e6


def compare(
    shape_NTC: Shape, dtype: torch.dtype, device: str, copy_GB_per_s: float, repeats: int, with_torch: bool
) -> dict[str, Any]:
    """Median time of each contestant on random logits, GB/s and fraction of ours, the error against float64."""
    generator = torch.Generator(device).manual_seed(0)
    logits_NTC = torch.randn(shape_NTC, dtype=torch.float32, device=device, generator=generator).mul_(3).to(dtype)
    copies = 1 if device == "cpu" else max(1, -(-4 * L2_BYTES // logits_NTC.nbytes))
    inputs = [logits_NTC, *(logits_NTC.clone() for _ in range(copies - 1))]
    functions: dict[str, Callable[[Tensor], Tensor]] = {
        "ours": ours,
        "ours_all": ours_all,
        "ours_accurate": ours_accurate,
    }
    if with_torch:
        torch._dynamo.reset()
        functions |= {"eager": eager, "compile": torch.compile(eager, dynamic=False)}
    contestants = {name: partial(_on_the_next, function, cycle(inputs)) for name, function in functions.items()}
    ms = medians(interleaved_ms(contestants, repeats, device=device))
    few_NTC = logits_NTC[:64]
    exact_N = row_stats_reference(few_NTC.double(), "multiclass", ["bald"]).scores["bald"]
    GB_per_s = logits_NTC.nbytes / ms["ours"] / 1e6
    return {
        "shape_NTC": shape_NTC,
        "dtype": str(dtype).removeprefix("torch."),
        "ms": {name: round(value, 4) for name, value in ms.items()},
        "GB_per_s": round(GB_per_s, 1),
        "fraction_of_copy": {name: round(logits_NTC.nbytes / t / 1e6 / copy_GB_per_s, 3) for name, t in ms.items()},
        "times_faster": {name: round(ms[name] / ms["ours"], 2) for name in ("eager", "compile") if name in ms},
        "host_us_per_call": round(_host_us(partial(ours, few_NTC)), 1),
        "max_error": {
            name: float(f"{(function(few_NTC) - exact_N).abs().max().item():.2e}")
            for name, function in functions.items()
            if name != "ours_all"
        },
    }


def _on_the_next(function: Callable[[Tensor], Tensor], inputs: Iterator[Tensor]) -> Tensor:
    return function(next(inputs))


def _host_us(call: Callable[[], Tensor], calls: int = 50) -> float:
    """Time of the host for a call that it does not wait for."""
    call()
    started = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - started) / calls * 1e6


def roofline(
    device: str,
    repeats: int,
    shapes: tuple[Shape, ...] | None = None,
    on_shape: Callable[[dict[str, Any]], None] = lambda table: None,
) -> dict[str, Any]:
    """The table: every shape in float32 and bfloat16. One that fails has an error in it, and keeps no other from it."""
    bandwidth = copy_bandwidth(device, repeats)
    table: dict[str, Any] = {"copy_GB_per_s": round(bandwidth, 1), "shapes": []}
    for shape_NTC in shapes or SHAPES_NTC[device]:
        for dtype in (torch.float32, torch.bfloat16):
            try:
                found = compare(shape_NTC, dtype, device, bandwidth, repeats, with_torch=True)
            except Exception as error:  # of a kernel, a compiler or a full memory
                found = {
                    "shape_NTC": shape_NTC,
                    "dtype": str(dtype).removeprefix("torch."),
                    "error": repr(error)[:2000],
                }
            print(json.dumps(found), flush=True)
            table["shapes"].append(found)
            on_shape(table)
    return table


def sweep(device: str, repeats: int, bandwidth: float) -> dict[str, list[dict[str, Any]]]:
    """Ours over C at T = 20, and over T at C = 10 and 1000, with the same number of logits everywhere."""
    total = SWEEP_LOGITS[device]
    shapes = {"C": [(20, C) for C in SWEEP_C], "T": [(T, C) for C in (10, 1000) for T in SWEEP_T]}
    results: dict[str, list[dict[str, Any]]] = {"C": [], "T": []}
    for over, sizes in shapes.items():
        for T, C in sizes:
            for dtype in (torch.float32, torch.bfloat16):
                shape_NTC = (max(1, total // (T * C)), T, C)
                results[over].append(compare(shape_NTC, dtype, device, bandwidth, repeats, with_torch=False))
    return results


def plot(results: dict[str, list[dict[str, Any]]], folder: Path) -> None:
    """Fraction of the copy's bandwidth over C and over T, as PNG; nothing where matplotlib is missing."""
    try:
        from matplotlib import pyplot
    except ImportError:
        print("no plots: matplotlib is not installed")
        return
    for over, axis in (("C", 2), ("T", 1)):
        figure, axes = pyplot.subplots(figsize=(8, 5))
        lines = {(r["dtype"], r["shape_NTC"][2] if over == "T" else None) for r in results[over]}
        for dtype, C in sorted(lines, key=str):
            for name, scores in (("ours", "BALD"), ("ours_all", "all scores"), ("ours_accurate", "accurate BALD")):
                points = [r for r in results[over] if r["dtype"] == dtype and C in (None, r["shape_NTC"][2])]
                label = f"{dtype}{f' C={C}' if C else ''} {scores}"
                x = [r["shape_NTC"][axis] for r in points]
                axes.plot(x, [r["fraction_of_copy"][name] for r in points], marker="o", label=label)
        axes.set(xscale="log", xlabel=over, ylabel="fraction of copy bandwidth (model bytes)", ylim=(0, None))
        axes.legend(fontsize="small")
        axes.grid(alpha=0.3)
        figure.savefig(folder / f"row_stats_over_{over}.png", dpi=120)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    arguments.add_argument("--repeats", type=int, default=20)
    arguments.add_argument("--sweep", action="store_true")
    arguments.add_argument("--out", type=Path, help="folder for the JSON file and the plots")
    given = arguments.parse_args()
    results = roofline(given.device, given.repeats)
    if given.sweep:
        results["sweep"] = sweep(given.device, given.repeats, results["copy_GB_per_s"])
    if given.out:
        given.out.mkdir(parents=True, exist_ok=True)
        out = given.out / f"row_stats_{given.device}_{time.strftime('%Y-%m-%d-%H%M%S')}.json"
        out.write_text(json.dumps({"environment": environment(), "results": results}, indent=2) + "\n")
        print(out)
        if given.sweep:
            plot(results["sweep"], given.out)


if __name__ == "__main__":
    main()
