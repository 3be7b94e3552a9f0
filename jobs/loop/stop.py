"""When a curve ends, in words. None: it goes on."""

from __future__ import annotations

from collections.abc import Mapping

from poolscore.engine.config import StopConfig
from poolscore.engine.config.loop import MOST_ROUNDS
from poolscore.engine.errors import ConfigError


def after_training(stop: StopConfig, number: int, labels: int, metrics: Mapping[str, float]) -> str | None:
    """
    Args:
        number: of the round; that many batches were labelled.
        labels: that the model was trained on.
        metrics: of the model.

    Raises:
        ConfigError: the target's metric is not among them.
    """
    target = stop.target
    if target is not None:
        if target.metric not in metrics:
            known = ", ".join(metrics) or "none"
            raise ConfigError(f"loop.stop.target: train returned no metric '{target.metric}'; it returned: {known}")
        if target.reached(metrics[target.metric]):
            return f"the target is reached: {target}, with {metrics[target.metric]:.4g} on {labels} labels"
    if stop.budget is not None and labels >= stop.budget:
        return f"the budget of {stop.budget} labels is used up"
    if stop.rounds is not None and number >= stop.rounds:
        return f"all of loop.stop.rounds={stop.rounds} are done"
    if number >= MOST_ROUNDS:
        return f"a curve has {MOST_ROUNDS} rounds at most"
    return None


def after_scoring(stop: StopConfig, score: str, mass: float | None, first: float | None) -> str | None:
    """
    Args:
        score: that the batch is selected by.
        mass: its mean over the pool; None: of an arm that selects at random.
        first: the same in the first round.
    """
    if stop.score_mass is None or mass is None or first is None or mass >= stop.score_mass * first:
        return None
    share = mass / first if first > 0 else 0.0
    return (
        f"the pool's {score} has fallen to {share:.1%} of the first round's (loop.stop.score_mass={stop.score_mass:g})"
    )
