"""The Dockerfile's Python steps, done in folders of this machine: they give an environment in which a job runs.

Not covered: the base image and its packages, users, and CUDA. PYTHON312 names an interpreter where `python3.12` is not
on the path; without either the one of the tests is used.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cluster_recipes import ROOT, dockerfile


def interpreter() -> str:
    for name in (os.environ.get("PYTHON312"), "python3.12"):
        if name and subprocess.run([name, "--version"], capture_output=True, check=False).returncode == 0:
            return name
    return sys.executable


def here(text: str, root: Path) -> str:
    """A step with the image's folders below `root`."""
    for folder in ("/opt/poolscore", "/wheels"):
        text = text.replace(folder, f"{root}{folder}")
    return text.replace("python3.12", interpreter())


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_images_python_steps(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment["PATH"] = f"{tmp_path}/opt/poolscore/bin:{os.environ['PATH']}"
    source = tmp_path / "source"
    source.mkdir()
    steps = 0
    for instruction, value in dockerfile():
        if instruction == "COPY" and "--from" not in value:
            *names, to = value.split()
            for name in names:
                into = source / name if to in ("./", name) else Path(here(to, tmp_path)) / name
                copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
                copy(ROOT / name, into)
        elif instruction == "RUN" and ("venv /" in value or "pip " in value):
            subprocess.run(["/bin/bash", "-c", here(value, tmp_path)], cwd=source, env=environment, check=True)
            steps += 1
    assert steps == 3
    shutil.rmtree(source)

    def run(*command: str) -> str:
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "score" in run("poolscore", "--help")
    assert "ray" in run("ray", "--version")
    assert run(
        "python", "-c", "import botocore, gcsfs, tokenizers, poolscore.engine as e; print(e.__file__)"
    ).startswith(str(tmp_path / "opt"))
    run("poolscore", "demo", "--dir", "demo")
    assert (tmp_path / "demo" / "run" / "selection.parquet").exists()
