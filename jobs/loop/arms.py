"""The arms of a loop, and the configuration of a round: that of an ordinary run."""

from __future__ import annotations

from typing import Any

from poolscore.engine.config import Config, ScoreConfig, SelectConfig
from poolscore.jobs.loop.folders import EXCLUDED, LABELLED, MODEL, RUN, Round

RANDOM = "random"


def arms_of(config: Config) -> tuple[str, ...]:
    """Names: of the configured selection, by its score or method, and of the control."""
    assert config.loop is not None
    own = config.selected_by if config.select.method == "topk" else config.select.method
    return (own, *([config.loop.control] if config.loop.control else []))


def config_of_round(config: Config, at: Round, k: int, with_inputs: bool) -> Config:
    """What `poolscore score` would be given for this round.

    Args:
        k: rows of the batch.
        with_inputs: the labelled rows carry the model's inputs, so that kcenter can look at them.
    """
    assert config.loop is not None
    weights, excluded = str(at.path(MODEL) / config.loop.weights), str(at.path(EXCLUDED))
    of_section: dict[str, dict[str, Any]] = {
        "pool": {"exclude": (*config.pool.exclude_lists, excluded)},
        "model": {"source": weights} if config.model.is_file else {"weights": weights},
        "passes": {"seed": at.own_seed},
        "select": {"k": k, "seed": None},
        "run": {"dir": str(at.path(RUN))},
    }
    if config.select.method == "kcenter" and with_inputs:
        of_section["shortlist"] = {"labelled": str(at.path(LABELLED))}
    sections = {name: getattr(config, name).model_copy(update=changes) for name, changes in of_section.items()}
    if at.arm == RANDOM:  # nothing but a batch is wanted of it
        sections["passes"] = sections["passes"].model_copy(update={"count": 1})
        sections["shortlist"] = config.shortlist.model_copy(update={"rows": 0, "labelled": None})
        sections |= {"select": SelectConfig(k=k, score=RANDOM), "score": ScoreConfig(), "check": None}
    return config.model_copy(update=sections)
