"""What a figure was measured on; written beside every result."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("poolscore", "torch", "triton", "ray", "pyarrow", "numpy", "pillow", "simplejpeg", "onnxruntime-gpu")


def environment() -> dict[str, Any]:
    """Machine, versions, commit, command and date."""
    return {
        "date": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "command": _command(sys.argv),
        "commit": _commit(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "gpu": _gpu(),
    }


def _command(argv: Sequence[str]) -> str:
    program = [_without_folder(argv[0])] if Path(argv[0]).name == "poolscore" else ["python", _without_folder(argv[0])]
    return " ".join([*program, *map(_without_folder, argv[1:])])


def _without_folder(argument: str) -> str:
    """A result is read elsewhere: of an absolute path only the name is of use."""
    return Path(argument).name if Path(argument).is_absolute() else argument


def _gpu() -> dict[str, Any] | None:
    if not torch.cuda.is_available():
        return None
    properties = torch.cuda.get_device_properties(0)
    query = "driver_version,clocks.sm,clocks.mem,temperature.gpu,power.draw"
    return {
        "name": properties.name,
        "memory_GiB": round(properties.total_memory / 2**30, 1),
        "multiprocessors": properties.multi_processor_count,
        query: _output("nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"),
        "cuda": torch.version.cuda,
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()


def _commit() -> str:
    commit = _output("git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD")
    changed = _output("git", "-C", str(Path(__file__).parent), "status", "--porcelain", "--untracked-files=no")
    return f"{commit}{' with changes' if changed else ''}"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=20).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):  # what it would have said is not worth a measurement
        return ""
