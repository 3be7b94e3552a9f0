"""What machine this is: its ceilings, and which tools it has."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

from bench_row_stats import copy_bandwidth
from frontier_resnet import GEMM_SIZE, gemm

from gpu_parts.part import BF16_FLOP_PER_S, COPY_BYTES_PER_S, Result, figure
from poolscore.engine.machine.cores import usable_cores
from poolscore.jobs.bench.timing import interleaved_ms, medians

TOOLS = ("ncu", "compute-sanitizer", "nvcc", "cuobjdump", "nvidia-smi")
PACKAGES = ("ray", "pydantic", "simplejpeg", "torchvision", "onnxruntime", "onnxscript", "xdist", "matplotlib")


def ceilings(device: str, folder: Path) -> Result:
    """Bandwidth of a copy and FLOP/s of a matrix product in bfloat16."""
    copy = copy_bandwidth(device, 20 if device == "cuda" else 2)
    ms = medians(interleaved_ms({"gemm": gemm(device, "bf16")}, 10 if device == "cuda" else 1, 1, device))["gemm"]
    tools = {name: shutil.which(name) is not None for name in TOOLS}
    packages = {name: importlib.util.find_spec(name) is not None for name in PACKAGES}
    missing = [name for name, there in {**tools, **packages}.items() if not there]
    lines = [
        figure("device copy, read and written", round(copy, 1), "GB/s", COPY_BYTES_PER_S / 1e9),
        figure(
            "matrix product, bf16", round(2 * GEMM_SIZE[device] ** 3 / ms / 1e9, 1), "TFLOP/s", BF16_FLOP_PER_S / 1e12
        ),
        figure("cores", usable_cores(), "", 16),
        figure("not on this machine", ", ".join(missing) or "nothing is missing"),
    ]
    return {"ok": True, "figures": lines, "tools": tools, "packages": packages}
