"""`retry RUN`: a job again out of its run directory.

Code is imported only where the user's own configuration names it, never because a run.json does, which may be somebody
else's. Without a configuration of one's own, or trust, a run is done again only if it names no code at all.
"""

from __future__ import annotations

import json
import sysconfig

from poolscore.engine.config import Config, FunctionDecode
from poolscore.engine.errors import ConfigError
from poolscore.engine.finish import RunResult
from poolscore.engine.run.directory import REDACTED, RunDirectory
from poolscore.engine.score import score_pool


def retry_run(run_dir: str, config: Config | None = None, *, trust: bool = False) -> RunResult:
    """Try the shards of a run again that were set aside or left.

    Args:
        config: the run's own, as `load_config` gives it; only its `run.dir` does not count. Default: `config_of_run`.
        trust: see there.

    Raises:
        ConfigError, StoppedError, InterruptedRun: as `score_pool` and `config_of_run`.
    """
    run = RunDirectory(run_dir)
    config = config_of_run(run, trust=trust) if config is None else in_directory(config, run_dir)
    return score_pool(config, must_resume=True, extends=extends_of(run))


def in_directory(config: Config, run_dir: str) -> Config:
    """The configuration with another run directory."""
    return _with_run(config, dir=run_dir)


def config_of_run(run: RunDirectory, *, trust: bool = False, address: str | None = None) -> Config:
    """The configuration that a run was made with, for doing it again.

    Args:
        trust: whoever made the run is trusted as the own configuration is: import and open what its run.json names.
        address: of the Ray cluster. The one in run.json is used with `trust` only: a cluster can send code, too.

    Raises:
        ConfigError: it names code and is not trusted, or a secret in it was taken out.
    """
    config, root = run.config, run.storage.root
    if named := _code_in(config):
        if not trust:
            raise ConfigError(
                f"{root}: its run.json names code to run ({named}); give the configuration that you trust, --config "
                "CONFIG, or --trust if you know who made this run"
            )
    elif not trust:  # nothing is imported from a folder that it names
        config = config.model_copy(
            update={"model": config.model.model_copy(update={"path": sysconfig.get_path("purelib")})}
        )
    if REDACTED in json.dumps(run.info["config"]):
        raise ConfigError(
            f"{root}: a secret was taken out of its run.json; give your own --config CONFIG, which has it"
        )
    return _with_run(config, dir=root, address=address or (config.run.address if trust else None))


def extends_of(run: RunDirectory) -> str | None:
    """The run that this one extends."""
    return next((str(earlier["run"]) for earlier in run.info.get("extends", ())), None)


def _with_run(config: Config, **changes: str | None) -> Config:
    return config.model_copy(update={"run": config.run.model_copy(update=changes)})


def _code_in(config: Config) -> str | None:
    """The first thing in the configuration that runs code of whoever wrote it."""
    if not config.model.is_file:
        return config.model.source
    if config.model.trust:
        return f"{config.model.source} with model.trust"
    decoders = config.pool.named_inputs().values()
    return next((decode.function for decode in decoders if isinstance(decode, FunctionDecode)), None)
