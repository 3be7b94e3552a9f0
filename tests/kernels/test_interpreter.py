"""The tests of the Triton kernels without a GPU: in the interpreter, and in the compiler."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def run(*command: str | Path, **environment: str) -> str:
    """What a process of its own prints; it must end well."""
    environ = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"} | environment
    command = (sys.executable, *command)
    done = subprocess.run(command, env=environ, cwd=HERE.parents[1], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.mark.timeout(900)
def test_kernels_in_the_interpreter() -> None:
    tests = sorted(HERE.glob("test_*triton*.py"))
    command = ("-m", "pytest", "-q", "-m", "gpu and not slow", "-p", "no:cacheprovider", *tests)
    printed = run(*command, TRITON_INTERPRET="1", OMP_NUM_THREADS="1")
    print(printed[-1500:])
    passed = re.search(r"(\d+) passed", printed)
    assert passed
    assert int(passed[1]) >= 40
    assert "skipped" not in printed


@pytest.mark.timeout(900)
def test_kernels_compile_for_gpus(tmp_path: Path) -> None:
    print(run(HERE / "compile_gate.py", TRITON_CACHE_DIR=str(tmp_path)))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_many_more_kernels_compile_for_gpus(tmp_path: Path) -> None:
    print(run(HERE / "compile_gate.py", "--all", TRITON_CACHE_DIR=str(tmp_path)))
