"""The table of scores: which exist, and which task has which.

The formulas themselves are in `kernels/row_stats.py`, under the same names; all are in nats or without unit, and larger
always means more worth labelling. A new score is one function there and one line here.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from poolscore.engine.errors import ConfigError


class Task(StrEnum):
    """What the model's output [N, C] means. It is stated by the user, never guessed from the data."""

    MULTICLASS = "multiclass"  # C logits, softmax
    BINARY = "binary"  # one logit, sigmoid
    MULTILABEL = "multilabel"  # C logits, C independent sigmoids
    REGRESSION = "regression"  # D outputs, or D means and D log-variances


@dataclass(frozen=True)
class Score:
    """One row of the contract's table."""

    name: str
    tasks: frozenset[Task]
    needs_passes: bool  # meaningless for one deterministic pass
    from_logits: bool = True


_ALL = frozenset(Task)
_CLASSIFICATION = frozenset({Task.MULTICLASS, Task.BINARY, Task.MULTILABEL})
_ONE_CLASS = frozenset({Task.MULTICLASS, Task.BINARY})

SCORES: dict[str, Score] = {
    score.name: score
    for score in (
        Score("entropy", _CLASSIFICATION, needs_passes=False),
        Score("expected_entropy", _CLASSIFICATION, needs_passes=True),
        Score("bald", _CLASSIFICATION, needs_passes=True),
        Score("variation_ratio", _ONE_CLASS, needs_passes=True),
        Score("mean_std", _CLASSIFICATION, needs_passes=True),
        Score("least_confidence", _ONE_CLASS, needs_passes=False),
        Score("margin", _ONE_CLASS, needs_passes=False),
        Score("predictive_variance", frozenset({Task.REGRESSION}), needs_passes=True),
        Score("random", _ALL, needs_passes=False, from_logits=False),
    )
}


def scores_of(task: Task, passes: int) -> tuple[str, ...]:
    """Names of the scores that `task` has with `passes` stochastic passes, in the order of the table."""
    return tuple(s.name for s in SCORES.values() if task in s.tasks and (passes > 1 or not s.needs_passes))


def require_score(name: str, task: Task, passes: int) -> None:
    """Refuse a score that does not exist, or that the task or the number of passes does not allow.

    Raises:
        ConfigError: names the scores that could be asked for instead.
    """
    allowed = ", ".join(scores_of(task, passes))
    if name not in SCORES:
        raise ConfigError(f"select.score: there is no score '{name}'; this run allows: {allowed}")
    if task not in SCORES[name].tasks:
        raise ConfigError(f"select.score: '{name}' is not defined for task '{task}'; this run allows: {allowed}")
    if passes == 1 and SCORES[name].needs_passes:
        raise ConfigError(
            f"select.score: '{name}' compares stochastic passes, but passes.count is 1; "
            f"raise passes.count or choose one of: {allowed}"
        )
