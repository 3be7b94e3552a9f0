"""`poolscore loop`: rounds of train, score, select, label, add. `run_loop` makes them.

`rounds.py` is the story of one round; `folders.py` says where it lies, `labelled.py` what it begins with, `training.py`
and `ways.py` (labels) call what is the user's, `stop.py` ends a curve, `outputs.py` writes the curves, `run.py` goes
over seeds and arms. Names are imported when they are first used: the process of a training needs none of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from poolscore.jobs.loop.curve import Point as Point
    from poolscore.jobs.loop.outputs import LoopResult as LoopResult
    from poolscore.jobs.loop.run import run_loop as run_loop
    from poolscore.jobs.loop.ways import Waiting as Waiting

_HOME = {"LoopResult": "outputs", "Point": "curve", "Waiting": "ways", "run_loop": "run"}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'poolscore.jobs.loop' has no attribute '{name}'")
    return getattr(import_module(f"poolscore.jobs.loop.{_HOME[name]}"), name)
