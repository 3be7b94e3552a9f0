"""The training of a round: the user's function, in a process of its own (`training_process.py`)."""

from __future__ import annotations

import json
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

from poolscore.engine.config import Config
from poolscore.engine.errors import ConfigError, StoppedError
from poolscore.jobs.loop.folders import LABELLED, MODEL, TRAINED, Round
from poolscore.jobs.loop.labelled import count_labelled
from poolscore.jobs.loop.process import last_line, run_logged

ANSWER, LOG = "train.answer.json", "train.log"


def train_round(config: Config, at: Round) -> dict[str, Any]:
    """Train: {"labels", "metrics", "seconds", "code"}, which is recorded at the end. `code` is a digest, see `code.py`.

    Raises:
        ConfigError: the function cannot be found, raised, or wrote no weights.
        StoppedError: its process died.
        InterruptedRun: see `run_logged`.
    """
    assert config.loop is not None
    began, out = time.monotonic(), at.path(MODEL)
    shutil.rmtree(out, ignore_errors=True)  # of a training that was stopped
    out.mkdir()
    metrics, code = _train(config, at, out)
    if not (out / config.loop.weights).is_file():
        others = ", ".join(sorted(path.name for path in out.iterdir())) or "nothing"
        raise ConfigError(
            f"loop.train: {config.loop.train} wrote no {config.loop.weights} into {out} (it wrote: {others}); name its "
            "file in loop.weights"
        )
    seconds = round(time.monotonic() - began, 3)
    return at.write(TRAINED, {"labels": count_labelled(at), "metrics": metrics, "seconds": seconds, "code": code})


def require_training(config: Config) -> None:
    """Find out before anything is spent whether the function can be imported.

    Raises:
        ConfigError: it cannot.
    """
    with tempfile.TemporaryDirectory() as folder:
        _called(config, {}, Path(folder) / LOG, Path(folder) / ANSWER, "importing")


def _train(config: Config, at: Round, out: Path) -> tuple[dict[str, float], str]:
    task = {"labelled": str(at.path(LABELLED)), "out": str(out), "round": at.number, "seed": at.own_seed}
    return _called(config, task, at.path(LOG), at.path(ANSWER), at.name)


def _called(config: Config, task: dict[str, Any], log: Path, answer: Path, where: str) -> tuple[dict[str, float], str]:
    """The function's metrics, from its own process, and the digest of its code."""
    assert config.loop is not None
    name = config.loop.train
    answer.unlink(missing_ok=True)
    task = {"path": config.model.path, "train": name, **task, "answer": str(answer)}
    code = run_logged("poolscore.jobs.loop.training_process", [json.dumps(task)], log, f"training ({where})")
    if not answer.exists():
        raise StoppedError(
            f"loop.train: the process of {name} {_died(code)} in {where} ({last_line(log)}); see {log}; the same "
            "command trains again"
        )
    said = json.loads(answer.read_bytes())
    if said["wrong"] is not None:
        raise ConfigError(said["wrong"] if said["ours"] else f"loop.train: {name} {said['wrong']}; see {log}")
    return said["metrics"], said["code"]


def _died(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
