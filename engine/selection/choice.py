"""What to select."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from poolscore.engine.config import Config
from poolscore.engine.errors import ConfigError
from poolscore.engine.scores import require_score
from poolscore.engine.selection.ranking import METHODS


@dataclass(frozen=True)
class Choice:
    """What to select. `of` takes what is not given from a run's configuration."""

    score: str
    k: int
    method: str
    beta: float  # of the stochastic methods
    seed: int  # of their noise

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
    ) -> Choice:
        """
        Raises:
            ConfigError: there is no such score or method, or a number is out of its range.
        """
        select = config.select
        seed = select.seed if seed is None else seed
        choice = cls(
            score or config.selected_by,
            select.k if k is None else k,
            method or select.method,
            select.beta if beta is None else beta,
            config.passes.seed if seed is None else seed,
        )
        require_score(choice.score, config.model.task, config.passes.count)
        if choice.k < 0:
            raise ConfigError(f"k must be 0 or more, got {choice.k}")
        if choice.method not in METHODS:
            raise ConfigError(f"--method {choice.method}: there are {', '.join(METHODS)}")
        if not 0 < choice.beta < float("inf"):
            raise ConfigError(f"--beta {choice.beta}: must be above 0; larger follows the scores more closely")
        if not 0 <= choice.seed < 1 << 64:
            raise ConfigError(f"--seed {choice.seed}: must be 0 or more, below 2^64")
        return choice

    def manifest(self) -> dict[str, Any]:
        """What a selection's manifest says of it."""
        chance = {"beta": self.beta, "seed": self.seed} if self.method != "topk" else {}
        return {"method": self.method, "score": self.score, "k": self.k, **chance}
