"""poolscore's engine: from a pool of unlabelled rows to the batch most worth labelling.

What is named here is the public Python interface. Names are imported when they are first used, so that reading a run
(`select_batch`, `RunDirectory`) needs neither torch nor Ray.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from poolscore.engine.config import Config as Config
    from poolscore.engine.config import load_config as load_config
    from poolscore.engine.config import parse_config as parse_config
    from poolscore.engine.errors import ConfigError as ConfigError
    from poolscore.engine.errors import InterruptedRun as InterruptedRun
    from poolscore.engine.errors import PoolscoreError as PoolscoreError
    from poolscore.engine.errors import StoppedError as StoppedError
    from poolscore.engine.finish import RunResult as RunResult
    from poolscore.engine.prepare import prepare_job as prepare_job
    from poolscore.engine.retry import retry_run as retry_run
    from poolscore.engine.run.directory import RunDirectory as RunDirectory
    from poolscore.engine.score import score_pool as score_pool
    from poolscore.engine.selection.batch import select_batch as select_batch
    from poolscore.engine.selection.compare import Comparison as Comparison
    from poolscore.engine.selection.compare import compare_runs as compare_runs
    from poolscore.engine.selection.read import read_selection as read_selection
    from poolscore.engine.shortlist.read import Shortlist as Shortlist
    from poolscore.engine.shortlist.read import read_shortlist as read_shortlist
    from poolscore.engine.shortlist.read import thumbnails as thumbnails
    from poolscore.engine.verify.verify import verify_run as verify_run

_HOME = {
    "Config": "config",
    "load_config": "config",
    "parse_config": "config",
    "ConfigError": "errors",
    "InterruptedRun": "errors",
    "PoolscoreError": "errors",
    "StoppedError": "errors",
    "prepare_job": "prepare",
    "retry_run": "retry",
    "RunDirectory": "run.directory",
    "RunResult": "finish",
    "score_pool": "score",
    "select_batch": "selection.batch",
    "Comparison": "selection.compare",
    "compare_runs": "selection.compare",
    "read_selection": "selection.read",
    "Shortlist": "shortlist.read",
    "read_shortlist": "shortlist.read",
    "thumbnails": "shortlist.read",
    "verify_run": "verify.verify",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'poolscore.engine' has no attribute '{name}'")
    return getattr(import_module(f"poolscore.engine.{_HOME[name]}"), name)
