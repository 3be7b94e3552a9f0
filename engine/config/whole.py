"""A whole configuration: its sections, and what must hold between them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from poolscore.engine.config.check import CheckConfig, PricesConfig
from poolscore.engine.config.loop import LoopConfig
from poolscore.engine.config.model import ModelConfig, PassesConfig
from poolscore.engine.config.pool import PoolConfig
from poolscore.engine.config.run import RunConfig
from poolscore.engine.config.section import Section
from poolscore.engine.config.select import ScoreConfig, SelectConfig, ShortlistConfig
from poolscore.engine.config.submit import SubmitConfig
from poolscore.engine.scores import Task
from poolscore.engine.selection.caps import NEAR_DUPLICATES
from poolscore.engine.selection.methods import AWARE


class Config(Section):
    """A whole configuration file."""

    version: Literal[1] = 1
    pool: PoolConfig
    model: ModelConfig
    passes: PassesConfig = PassesConfig()
    score: ScoreConfig = ScoreConfig()
    select: SelectConfig
    shortlist: ShortlistConfig = ShortlistConfig()
    check: CheckConfig | None = None
    run: RunConfig
    prices: PricesConfig = PricesConfig()
    submit: SubmitConfig = Field(default=SubmitConfig(), exclude=True)  # how a job travels is no part of its run
    loop: LoopConfig | None = Field(default=None, exclude=True)  # nor is the loop that it is a round of

    @model_validator(mode="after")
    def _regression_has_no_bald(self) -> Config:
        if self.score.accurate_bald and self.model.task is Task.REGRESSION:
            raise ValueError("score.accurate_bald: the task regression has no bald: leave it out")
        return self

    @model_validator(mode="after")
    def _only_labels_are_reduced(self) -> Config:
        if self.score.reduce != "sum" and self.model.task is not Task.MULTILABEL:
            raise ValueError(
                f"score.reduce: '{self.score.reduce}' is over the labels of task multilabel; the task is "
                f"{self.model.task.value}: leave it out"
            )
        return self

    @model_validator(mode="after")
    def _onnx_runtime_does_it_its_own_way(self) -> Config:
        if self.model.source.endswith(".onnx") and self.passes.precision != "fp32":
            raise ValueError(
                f"passes.precision: '{self.passes.precision}' is for torch models; an ONNX file computes in its own "
                "types: export it in the precision that you want, and leave this at fp32"
            )
        if self.model.source.endswith(".onnx") and self.passes.compile:
            raise ValueError(
                "passes.compile: is for torch models; ONNX Runtime optimises a file by itself: leave it out"
            )
        return self

    @model_validator(mode="after")
    def _a_shortlist_holds_the_batch_that_is_made_of_it(self) -> Config:
        method: str = self.select.method
        of_it = [name for name in (NEAR_DUPLICATES, method) if name in (*self.select.max_per_group, *AWARE)]
        if of_it and self.shortlist.rows < max(1, self.select.k):
            raise ValueError(
                f"shortlist.rows: {self.shortlist.rows} rows are fewer than select.k={self.select.k}, and {of_it[0]} "
                "chooses among the shortlist's rows alone: raise it"
            )
        return self

    @model_validator(mode="after")
    def _a_loop_writes_what_the_model_is(self) -> Config:
        if self.loop is None:
            return self
        if self.loop.weights.endswith((".pt2", ".onnx")) != self.model.is_file:
            what = "a file such as model.onnx" if self.model.is_file else "weights such as weights.safetensors"
            raise ValueError(f"loop.weights: '{self.loop.weights}' does not go with model.source; name {what}")
        if not self.select.k:
            raise ValueError("select.k: a loop labels so many rows in each round; give at least 1")
        if self.loop.control == self.selected_by:
            raise ValueError("loop.control: the batch is selected at random already; leave it out")
        if self.model.task is Task.MULTILABEL and self.model.classes is None:
            raise ValueError("model.classes: a loop must know how many labels there are; name them, or their number")
        return self

    @property
    def selected_by(self) -> str:
        """The score that the batch is selected by."""
        if self.select.score is not None:
            return self.select.score
        if self.model.task is Task.REGRESSION:
            return "predictive_variance" if self.passes.count > 1 else "random"
        return "bald" if self.passes.count > 1 else "entropy"


def flatten(config: Config) -> dict[str, Any]:
    """The configuration as {"section.key": JSON value}."""
    flat: dict[str, Any] = {}
    for section, values in config.model_dump(mode="json").items():
        if isinstance(values, dict):
            flat |= {f"{section}.{key}": value for key, value in values.items()}
        else:
            flat[section] = values
    return flat
