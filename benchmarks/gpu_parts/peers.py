"""poolscore beside those who need no library: loops written with torch, and Ray Data, on the GPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from gpu_parts.part import BENCHMARKS, Result, figure

WORKLOADS = {"cuda": ("cnn", "resnet50"), "cpu": ("cnn",)}
CONTESTANTS = (
    "poolscore",
    "poolscore, from memory",
    "torch by hand, loop",
    "torch by hand, cut by hand",
    "Ray Data, loop",
)
DRY_RUN = ("--rows", "70", "--threads", "1")


def side_by_side(device: str, folder: Path) -> Result:
    """`bench_peers.py` without the peers' interpreter, in float32, T=20."""
    out = folder / "peers.json"
    command = [sys.executable, str(BENCHMARKS / "bench_peers.py"), "--device", device, "--out", str(out)]
    command += ["--rounds", "2" if device == "cuda" else "1", *(("--threads", "8") if device == "cuda" else DRY_RUN)]
    for workload in WORKLOADS[device]:
        command += ["--workload", workload]
    for contestant in CONTESTANTS:
        command += ["--contestant", contestant]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if not out.exists():
        raise RuntimeError(f"bench_peers.py ended with {run.returncode}: {run.stderr[-1500:]}")
    results = json.loads(out.read_text())["results"]
    lines = []
    for name, found in results.items():
        for one, rates in found.get("contestants", {}).items():
            what = f"{name}, {one}: in all; without its start"
            lines.append(figure(what, f"{rates['rows_per_s']:,}; {rates['marginal_rows_per_s']:,}", "rows/s"))
        if "error" in found:
            lines.append(figure(name, found["error"][:100]))
    return {"ok": run.returncode == 0, "figures": lines, "workloads": results}
