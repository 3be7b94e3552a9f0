"""What to select."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from poolscore.engine.config import Config
from poolscore.engine.errors import ConfigError
from poolscore.engine.scores import require_score
from poolscore.engine.selection.caps import NO_CAPS, Caps
from poolscore.engine.selection.methods import ALL_METHODS, AWARE, BY_CHANCE, require_method


@dataclass(frozen=True)
class Choice:
    """What to select. `of` takes what is not given from a run's configuration."""

    score: str
    k: int
    method: str
    beta: float  # of the stochastic methods
    seed: int  # of their noise, and of the control rows
    caps: Caps = NO_CAPS
    control: float = 0.0  # share of k
    samples: int = 10_000  # of batchbald, once exact joint entropies take too much memory

    @classmethod
    def of(
        cls,
        config: Config,
        *,
        score: str | None = None,
        k: int | None = None,
        method: str | None = None,
        beta: float | None = None,
        seed: int | None = None,
        max_per_group: Mapping[str, int] | None = None,
        quotas: Mapping[str, int] | None = None,
        control: float | None = None,
    ) -> Choice:
        """
        Raises:
            ConfigError: there is no such score, method, group or class, or a number is out of its range.
        """
        given = {"max_per_group": max_per_group, "quotas": quotas}
        select = config.select.model_copy(update={key: value for key, value in given.items() if value is not None})
        seed = select.seed if seed is None else seed
        choice = cls(
            score or config.selected_by,
            select.k if k is None else k,
            method or select.method,
            select.beta if beta is None else beta,
            config.passes.seed if seed is None else seed,
            select.caps(config.pool, config.model),
            select.control if control is None else control,
            select.samples,
        )
        require_score(choice.score, config.model.task, config.passes.count)
        if choice.k < 0:
            raise ConfigError(f"k must be 0 or more, got {choice.k}")
        if choice.method not in ALL_METHODS:
            raise ConfigError(f"--method {choice.method}: there are {', '.join(ALL_METHODS)}")
        shared_masks = config.passes.masks == "shared"
        require_method(choice.method, config.model.task, config.passes.count, shared_masks)
        if not 0 < choice.beta < float("inf"):
            raise ConfigError(f"--beta {choice.beta}: must be above 0; larger follows the scores more closely")
        if not 0 <= choice.seed < 1 << 64:
            raise ConfigError(f"--seed {choice.seed}: must be 0 or more, below 2^64")
        if not 0 <= choice.control < 1:
            raise ConfigError(f"--control {choice.control:g}: is a share of k, from 0 to below 1")
        return choice

    @property
    def needs_shortlist(self) -> bool:
        """Whether candidates are the rows of the run's shortlist alone."""
        return self.caps.near_duplicates is not None or self.method in AWARE

    def limits(self) -> dict[str, Any]:
        """What is asked for beside the best rows; empty: nothing."""
        asked = {"max_per_group": self.caps.max_per_group, "quotas": self.caps.quotas, "control": self.control}
        return {name: value for name, value in asked.items() if value}

    def manifest(self) -> dict[str, Any]:
        """What a selection's manifest says of it."""
        by_chance = self.method in (*BY_CHANCE, "batchbald")  # which is filled up by power
        chance = {"beta": self.beta} if by_chance else {}
        seed = {"seed": self.seed} if by_chance or self.method == "badge" or self.control else {}
        samples = {"samples": self.samples} if self.method == "batchbald" else {}
        return {"method": self.method, "score": self.score, "k": self.k, **chance, **seed, **samples, **self.limits()}
