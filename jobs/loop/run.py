"""The whole loop: its seeds and arms, one after another."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from poolscore.engine.config import Config, LoopConfig
from poolscore.engine.config_text import one_line
from poolscore.engine.errors import ConfigError, StoppedError
from poolscore.engine.finish import RunResult
from poolscore.engine.identity import settings_of
from poolscore.engine.prepare import look_at_labelled, read_sample
from poolscore.engine.run.directory import RunDirectory, now, redacted, write_json
from poolscore.engine.score import score_pool
from poolscore.engine.storage.local import LocalStorage
from poolscore.engine.storage.uri import lies_in, local_path
from poolscore.jobs.loop.arms import arms_of
from poolscore.jobs.loop.first import FirstLabels, read_first
from poolscore.jobs.loop.folders import trained_in
from poolscore.jobs.loop.outputs import LoopResult, write_outputs
from poolscore.jobs.loop.picture import can_draw
from poolscore.jobs.loop.rounds import Loop, run_curve
from poolscore.jobs.loop.training import require_training
from poolscore.jobs.loop.ways import Waiting, require_askable
from poolscore.jobs.report import write_report
from poolscore.jobs.tasks.question import Question

FORMAT = 1  # of the loop's folder
ABOUT, LOCK = "loop.json", ".lock"


def score_and_report(config: Config) -> RunResult:
    """The main job of a round. A report that cannot be written spoils nothing: the scores and the batch are there."""
    result = score_pool(config)
    with suppress(Exception):
        write_report(RunDirectory(config.run.dir))
    return result


def run_loop(
    config: Config,
    *,
    on_progress: Callable[[str], None] = lambda line: None,
    score: Callable[[Config], RunResult] = score_and_report,
) -> LoopResult:
    """Rounds of train, score, select, label and add, for each seed and arm, till they end. What the loop's folder has
    already is not done again.

    Args:
        config: with the section `loop`.
        on_progress: called with a line about what is begun or done.
        score: what scores the pool and selects.

    Raises:
        ConfigError: configuration, tables, training or labels are wrong, or the folder holds another loop.
        StoppedError, InterruptedRun: the same call goes on.
    """
    section, root = _require_loop(config)
    question = Question.of(config)
    truth = require_askable(config, question)
    first = {seed: read_first(config, question, seed) for seed in section.seeds}
    digests = {f"the first labels of seed {seed}": labels.digest for seed, labels in first.items()}
    with _alone(root):
        if not _has_begun(root):
            read_sample(config)
            look_at_labelled(config)
            require_training(config)
        _claim(root, {**_settings(config, section), **digests})
        if not can_draw():
            on_progress("there will be no curve.png: matplotlib is not installed (pip install 'poolscore[plots]')")
        for line in (*_used_up(section, first), *_left_out(root, section, arms_of(config))):
            on_progress(line)
        drawn = partial(write_outputs, config, root, final=False)
        loop = Loop(config, root, question, first, truth, score, on_progress, drawn)
        waiting = _run_curves(loop, section, arms_of(config))
        return write_outputs(config, root, waiting)


def loop_dir(config: Config) -> str:
    """Where the loop works: `loop.dir`, or 'loop' beside `run.dir`."""
    assert config.loop is not None
    return config.loop.dir or f"{config.run.dir.rstrip('/').rpartition('/')[0]}/loop"


def _used_up(section: LoopConfig, first: Mapping[int, FirstLabels]) -> Iterator[str]:
    budget = section.stop.budget
    for seed, labels in first.items():
        count = len(labels.ids.unique())
        if budget is not None and count >= budget:
            yield (
                f"loop.stop.budget={budget} counts the first labels, too, and seed {seed} has {count} of them: a model "
                "is trained on these, and nothing is labelled"
            )


def _left_out(root: Path, section: LoopConfig, arms: tuple[str, ...]) -> Iterator[str]:
    asked = {f"{arm}/seed-{seed}" for arm in arms for seed in section.seeds}
    there = {path.parents[1].relative_to(root).as_posix() for path in trained_in(root)}
    if others := sorted(there - asked):
        yield (
            f"{root} has other curves, too ({', '.join(others)}): they stay there, but curve.csv and the page have "
            "only those of this configuration"
        )


def _run_curves(loop: Loop, section: LoopConfig, arms: tuple[str, ...]) -> Waiting | None:
    waiting = None
    for seed in section.seeds:
        for arm in arms:
            ended = run_curve(loop, arm, seed)
            waiting = waiting or ended.waiting
            if ended.waiting is None:
                loop.tell(f"{arm}, seed {seed} has ended: {ended.why}")
    return waiting


def _require_loop(config: Config) -> tuple[LoopConfig, Path]:
    if config.loop is None:
        raise ConfigError("loop: the configuration has no section 'loop:', which says how rounds are made")
    given = loop_dir(config)
    root = local_path(given)
    if root is None:
        raise ConfigError(f"loop.dir: {given} is not local; give a folder of this machine (the pool may lie anywhere)")
    if lies_in(str(root), config.pool.uri):
        raise ConfigError(f"loop.dir: {root} lies in the pool's folder, and its files would count as rows; move it")
    return config.loop, root


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """No second loop works in the folder; the lock goes with the process, however it ends."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        file = (root / LOCK).open("w")
    except OSError as error:
        raise ConfigError(f"loop.dir: {root} cannot be written ({error.strerror}); choose another folder") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StoppedError(f"loop.dir: another process works on the loop in {root}; wait for its end") from error
        yield


def _has_begun(root: Path) -> bool:
    return any(trained_in(root))


def _settings(config: Config, section: LoopConfig) -> dict[str, Any]:
    """What the curves depend on, beside labels and first labels: by it a loop is continued or refused."""
    of_select = {f"select.{name}": value for name, value in config.select.model_dump(mode="json").items()}
    settings = {**settings_of(config), **of_select, "loop.train": section.train, "loop.weights": section.weights}
    oracle = section.label.oracle
    settings["loop.label.oracle"] = None if oracle is None else {"id": oracle.id, "label": oracle.label}
    del settings["passes.seed"], settings["select.seed"]  # loop.seeds take their place
    return dict(redacted(settings))


def _claim(root: Path, settings: Mapping[str, Any]) -> None:
    """Write down what the loop is, or prove that it is the one that is here. Seeds may be added.

    Raises:
        ConfigError: it is another one, or the folder holds something else.
    """
    storage = LocalStorage(root)
    try:
        about = json.loads(storage.read(ABOUT))
        there = about["settings"]
    except FileNotFoundError as error:
        if others := storage.names(""):
            raise ConfigError(
                f"loop.dir: {root} holds other files ({others[0]}, …); choose an empty or new folder"
            ) from error
        about = {"format": FORMAT, "poolscore": version("poolscore"), "created": now()}
        there = {}
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{root / ABOUT} is damaged: {one_line(error)}; bring it back") from error
    if about["format"] > FORMAT:
        raise ConfigError(f"{root / ABOUT} was written by a newer poolscore; upgrade poolscore to go on")
    here = json.loads(json.dumps(settings))
    if not _has_begun(root):  # nothing depends on them yet
        there = {}
    different = [key for key in here if key in there and here[key] != there[key]]
    if different:
        told = ", ".join(_in_words(key, there[key], here[key]) for key in different)
        raise ConfigError(
            f"loop.dir: {root} holds a loop that differs in {told}; choose another loop.dir, or set it as it was"
        )
    if not here.keys() <= there.keys() or {**there, **here} != about.get("settings"):
        write_json(storage, ABOUT, {**about, "settings": {**there, **here}})


def _in_words(key: str, there: Any, here: Any) -> str:
    return f"{key} (they are others)" if key.startswith("the ") else f"{key} ({there}, now {here})"
