"""The methods of selection, and what each needs."""

from __future__ import annotations

from poolscore.engine.errors import ConfigError
from poolscore.engine.scores import Task
from poolscore.engine.selection.ranking import METHODS

AWARE = ("batchbald", "kcenter", "badge")  # of the rows of a batch beside each other; on the shortlist
ALL_METHODS = (*METHODS, *AWARE)
BY_CHANCE = ("power", "softmax", "softrank")


def require_method(method: str, task: Task, passes: int, shared_masks: bool) -> None:
    """Refuse one of ALL_METHODS that is not defined for these outputs.

    Raises:
        ConfigError: says what to choose instead.
    """
    if method == "batchbald" and task not in (Task.MULTICLASS, Task.BINARY):
        raise ConfigError(
            f"select.method: batchbald is for the tasks multiclass and binary, and this is {task}; choose kcenter or "
            "power"
        )
    if method == "batchbald" and passes < 2:
        raise ConfigError(
            "select.method: batchbald compares passes, and passes.count is 1; raise it, or choose kcenter"
        )
    if method == "batchbald" and not shared_masks:
        raise ConfigError(
            "select.method: batchbald needs passes.masks: shared, by which a pass is the same network for every row; "
            "score with these, or choose kcenter, badge or power"
        )
    if method == "badge" and task is Task.REGRESSION:
        raise ConfigError(
            "select.method: badge needs predicted classes, and the task is regression; choose kcenter or power"
        )
