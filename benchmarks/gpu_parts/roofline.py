"""Row statistics beside torch eager, torch.compile and a copy of the same minutes."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from bench_row_stats import roofline

from gpu_parts.part import COPY_BYTES_PER_S, Result, figure, tell

CLASSES = (2, 10, 100, 1000, 4096, 21841, 128256)
LOGITS = 160_000_000  # of a tensor at least: 320 MB in bfloat16, five times the L2
FEWEST_ROWS = 64
SMALL = (10, 8200)  # classes of the dry run
FEW_CLASSES = 4096  # up to where more is to be reached
REACH = {("float32", True): 0.92, ("bfloat16", True): 0.85, ("float32", False): 0.80, ("bfloat16", False): 0.70}
# From counted instructions (NOTES.md, "Triton kernels of the row statistics"): float32 is bound by memory; bfloat16 has
# a budget of 15.6 instructions per logit, and takes 13.2, 13.8, 14.4 and, in two phases, 18.5.
PREDICTED = {
    ("float32", 10): 0.92, ("float32", 1000): 0.92, ("float32", 4096): 0.92, ("float32", 128256): 0.85,
    ("bfloat16", 10): 0.87, ("bfloat16", 1000): 0.87, ("bfloat16", 4096): 0.85, ("bfloat16", 128256): 0.75,
}  # fmt: skip
MAX_ERROR = 1e-5  # nats, of BALD against float64


def shapes(device: str, passes: int) -> tuple[tuple[int, int, int], ...]:
    """[N, T, C] of every number of classes, several times as large as the L2 cache."""
    if device == "cpu":
        return tuple((4, 2, C) for C in SMALL)
    return tuple((max(FEWEST_ROWS, LOGITS // (passes * C)), passes, C) for C in CLASSES)


def row_statistics(device: str, folder: Path, passes: int) -> Result:
    """Fraction of the copy's bandwidth, by model bytes; BALD's error is within MAX_ERROR."""
    found = roofline(
        device,
        20 if device == "cuda" else 2,
        shapes(device, passes),
        on_shape=lambda table: tell(folder, _with_figures(table)),
    )
    return _with_figures(found)


def _with_figures(found: Result) -> Result:
    lines = [figure("device copy, read and written", found["copy_GB_per_s"], "GB/s", COPY_BYTES_PER_S / 1e9)]
    for one in found["shapes"]:
        (N, T, C), dtype = one["shape_NTC"], one["dtype"]
        one["predicted_floor_ms"] = round(N * T * C * (4 if dtype == "float32" else 2) / COPY_BYTES_PER_S * 1e3, 4)
        one["predicted_fraction"] = PREDICTED.get((dtype, C))
        what = f"C={C} T={T} {dtype}: "
        if "error" in one:
            lines.append(figure(what + one["error"][:100], "failed"))
            continue
        faster = one["times_faster"]
        what += f"BALD, of the copy ({faster['eager']}x eager, {faster['compile']}x compile)"
        reach = f">= {REACH[dtype, C <= FEW_CLASSES]}"
        lines.append(figure(what, one["fraction_of_copy"]["ours"], "", one["predicted_fraction"], reach))
    right = all("error" not in one and one["max_error"]["ours"] < MAX_ERROR for one in found["shapes"])
    return found | {"ok": right, "figures": lines}


of_20_passes = partial(row_statistics, passes=20)
of_100_passes = partial(row_statistics, passes=100)
