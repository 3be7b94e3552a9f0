"""The command `loop`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from poolscore.engine.errors import ConfigError
from poolscore.jobs import scripts, show
from poolscore.jobs.cli.options import Address, AsJson, ConfigFile, Overrides, changes

if TYPE_CHECKING:
    from poolscore.jobs.loop import LoopResult


def loop(
    config_file: ConfigFile, overrides: Overrides = None, address: Address = None, as_json: AsJson = False
) -> None:
    """The active-learning cycle: train, score, select, label, add, and again. Given again it goes on."""
    from poolscore.engine.config import load_config

    config = load_config(config_file, changes(overrides, address))
    if config.loop is None:
        raise ConfigError(
            f"{config_file}: has no section 'loop:', which says how rounds are made; see jobs/loop/README.md"
        )
    from poolscore.jobs.cli.score import scored
    from poolscore.jobs.loop import run_loop

    result = run_loop(config, on_progress=show.done, score=lambda config: scored(config)[0])
    if as_json:
        scripts.result({**asdict(result), "exit_code": result.exit_code})
    else:
        _tell(result)
    raise typer.Exit(result.exit_code)


def _tell(result: LoopResult) -> None:
    for run in result.to_look_at:
        show.warn(f"{result.dir}/{run} did not end well in all; its report says what is wrong with it")
    if result.in_words:
        show.done(result.in_words)
    show.done(f"curves: {', '.join(filter(None, (result.curve, result.picture, result.report)))}")
    for line in result.waiting.lines if result.waiting else ():
        show.done(line)
