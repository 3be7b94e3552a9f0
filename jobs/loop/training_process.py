"""`python -m poolscore.jobs.loop.training_process TASK`: calls the user's function, and keeps what it answers."""

from __future__ import annotations

import json
import math
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from poolscore.engine.config_text import one_line
from poolscore.engine.errors import ConfigError
from poolscore.engine.imports import add_to_path, import_name
from poolscore.jobs.loop.code import digest_of_files
from poolscore.jobs.loop.tied import end_with_the_loop

TAKEN = ("arm", "seed", "round", "labels")  # columns of curve.csv


def main(task: Mapping[str, Any]) -> None:
    """Import, call, and write {"metrics", "wrong", "ours", "code"} into a file that is whole once it is there. A task
    without `out` is to import alone."""
    said: dict[str, Any] = {"metrics": {}, "wrong": None, "ours": False, "code": None}
    try:
        add_to_path(task["path"])
        train = import_name(task["train"], "loop.train")
        if "out" in task:
            said["code"] = digest_of_files(task["train"].partition(":")[0])  # as it is now: a training may take hours
            answer = train(Path(task["labelled"]), Path(task["out"]), task["round"], task["seed"])
            said["metrics"] = metrics_of(answer, task["train"])
    except ConfigError as error:
        said |= {"wrong": str(error), "ours": True}
    except Exception as error:  # whatever the user's code raises
        traceback.print_exc()
        said["wrong"] = f"raised {type(error).__name__}: {one_line(error)[:500]}"
    file = Path(task["answer"])
    file.with_suffix(".new").write_text(json.dumps(said))
    file.with_suffix(".new").replace(file)


def metrics_of(answer: Any, name: str) -> dict[str, float]:
    """What a training function returned, as numbers by name.

    Raises:
        ConfigError: it is something else.
    """
    if answer is None:
        return {}
    if not isinstance(answer, Mapping):
        raise ConfigError(f"loop.train: {name} returned {type(answer).__name__}; a dictionary of metrics is expected")
    metrics: dict[str, float] = {}
    for metric, value in answer.items():
        try:
            metrics[str(metric)] = float(value)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"loop.train: the metric '{metric}' of {name} is {value!r:.100}, no number") from error
        if metric in TAKEN:
            raise ConfigError(
                f"loop.train: a metric of {name} is called '{metric}', as a column of curve.csv; rename it"
            )
        if not math.isfinite(metrics[str(metric)]):
            raise ConfigError(f"loop.train: the metric '{metric}' of {name} is {value}; leave out what is not known")
    return metrics


if __name__ == "__main__":
    end_with_the_loop()
    main(json.loads(sys.argv[1]))
