"""The two-phase kernel, whose blocks wait for one another: a soak, and NVIDIA's compute-sanitizer over it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from gpu_parts.part import BENCHMARKS, Result, figure

SOAK_SECONDS = {"cuda": 40, "cpu": 1}
# What torch asks the driver for and does not get (cuGetProcAddress) is no error of a kernel.
TOOLS: dict[str, tuple[str, ...]] = {"memcheck": ("--report-api-errors", "no"), "racecheck": ()}
SANITIZER = ("compute-sanitizer", "/usr/local/cuda/bin/compute-sanitizer")
DEADLINE = 100  # seconds that a tool may take: it slows the kernels down many times


def soak(device: str, folder: Path) -> Result:
    """Does the two-phase kernel ever hang, or give other bits? In a process of its own, with a deadline."""
    seconds = SOAK_SECONDS[device]
    command = [sys.executable, str(BENCHMARKS / "soak_two_phase.py"), "--device", device, "--seconds", str(seconds)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + 60)
    if not run.stdout:
        raise RuntimeError(f"soak_two_phase.py ended with {run.returncode}: {run.stderr[-1500:]}")
    found: Result = json.loads(run.stdout)
    found["figures"] = [figure("rows of the two-phase kernel with equal bits", found["rows"])]
    return found


def sanitizer(device: str, folder: Path) -> Result:
    """memcheck and racecheck over one and two phases; racecheck sees shared memory only."""
    script = [sys.executable, str(BENCHMARKS / "soak_two_phase.py"), "--device", device, "--few"]
    tool = next(filter(None, map(shutil.which, SANITIZER)), None)
    if tool is None:
        run = subprocess.run(script, capture_output=True, text=True, check=True, timeout=DEADLINE)
        return {
            "ok": device == "cpu",
            "figures": [figure("compute-sanitizer", "not on this machine; the script ran without it")],
            "script": json.loads(run.stdout),
        }
    found: Result = {"ok": True, "figures": [], "tool": tool}
    # Each tensor by itself: in the blocks that torch keeps, memory behind the end of one is another's.
    alone = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    for name, options in TOOLS.items():
        command = [tool, "--tool", name, *options, "--error-exitcode", "9", *script]
        try:
            run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=DEADLINE, env=alone)
            summary = [line for line in run.stdout.splitlines() if "SUMMARY" in line or "Error:" in line]
            ended = summary[-1].strip("= ") if summary else f"exit code {run.returncode}"
            found[name] = {"exit_code": run.returncode, "end": (run.stdout + run.stderr).splitlines()[-20:]}
            found["ok"] &= run.returncode == 0
        except subprocess.TimeoutExpired:
            found["ok"], ended = False, f"not done within {DEADLINE} s"
        found["figures"].append(figure(f"compute-sanitizer {name}", ended))
    return found
