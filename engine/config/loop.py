"""Section `loop`: rounds of train, score, select, label, add. How rounds are made is no part of a run."""

from __future__ import annotations

import shlex
from pathlib import PurePath
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from poolscore.engine.config.section import Number, Positive, PositiveNumber, Section, Whole

Tool = Literal["labelstudio", "cvat", "csv", "jsonl", "folder"]
MOST_ROUNDS = 999  # so that the seeds of rounds differ, see `jobs/loop/folders.py`


class OracleConfig(Section):
    """Labels that are known already, for a simulation."""

    table: str | None = None  # Parquet or CSV; default: the label is a column of the pool, named in pool.keep
    id: str = "id"  # column of the table
    label: str = "label"  # column, as `check.label` takes it; null: cannot be labelled


class CommandConfig(Section):
    """A program that labels. It gets two arguments more: the folder of tasks, and the file to write answers into."""

    run: tuple[str, ...]  # the words of the command, or one text; started in model.path
    to: Tool = "csv"  # how the tasks are written, and its answers, see `export-tasks`
    show: tuple[str, ...] = ()  # columns that it sees; default: the model's inputs

    @field_validator("run", mode="before")
    @classmethod
    def _words(cls, given: Any) -> Any:
        words = shlex.split(given) if isinstance(given, str) else given
        if not words:
            raise ValueError("names no program")
        return words


class PauseConfig(Section):
    """People label: the loop hands the batch over, stops, and goes on once `poolscore label import` brought labels."""

    to: Tool = "labelstudio"
    show: tuple[str, ...] = ()  # columns that people see; default: the model's inputs
    url_column: str | None = None  # kept column of URLs, instead of the pictures
    files_at: str | None = None  # what stands before the loop's folder in Label Studio's tasks
    answered: Annotated[Number, Field(gt=0, le=1)] = 1.0  # share of the batch that must be answered, or skipped


class LabelConfig(Section):
    """Where labels come from: one of these."""

    oracle: OracleConfig | None = None
    command: CommandConfig | None = None
    pause: PauseConfig | None = None

    @model_validator(mode="after")
    def _one_way(self) -> LabelConfig:
        if sum(way is not None for way in (self.oracle, self.command, self.pause)) != 1:
            raise ValueError("give one of oracle, command and pause")
        return self


class TargetConfig(Section):
    """A metric that `train` returns, and how far it is to come."""

    metric: str
    at_least: Number | None = None
    at_most: Number | None = None

    @model_validator(mode="after")
    def _one_side(self) -> TargetConfig:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("give at_least (the larger the better) or at_most")
        return self

    def reached(self, value: float) -> bool:
        """Whether that is far enough."""
        return value >= self.at_least if self.at_least is not None else value <= (self.at_most or 0.0)

    def __str__(self) -> str:
        side, value = ("at least", self.at_least) if self.at_least is not None else ("at most", self.at_most)
        return f"{self.metric} of {side} {value:g}"


class StopConfig(Section):
    """When a curve ends; whichever comes first. It also ends with the pool."""

    budget: Positive | None = None  # labels in all, the first ones among them
    rounds: Annotated[Positive, Field(le=MOST_ROUNDS)] | None = None  # batches; one more model is trained on the last
    target: TargetConfig | None = None
    score_mass: Annotated[PositiveNumber, Field(lt=1)] | None = None  # mean score of the pool, as a share of the first

    @model_validator(mode="after")
    def _it_ends(self) -> StopConfig:
        if self.budget is None and self.rounds is None:
            raise ValueError("give budget (labels) or rounds, so that the loop has an end")
        return self


class LoopConfig(Section):
    """Rounds of active learning."""

    dir: str | None = None  # local; default: 'loop' beside run.dir
    labelled: str  # the first labels, Parquet or CSV: id, label. {seed} in its name: a file for each seed
    train: str  # package.module:function, found as model.source is; called train(labelled, out, round, seed)
    weights: str = "weights.safetensors"  # the file that train writes into out: model.weights, or a .pt2 or .onnx
    label: LabelConfig
    stop: StopConfig
    seeds: Annotated[tuple[Annotated[Whole, Field(ge=0, lt=2**22)], ...], Field(min_length=1)] = (0,)  # a curve each
    keep: Literal["all", "last"] = "all"  # scores of all rounds, or of the last two of each curve
    control: Literal["random"] | None = None  # a second arm with the same seeds and first labels

    @field_validator("train")
    @classmethod
    def _names_a_function(cls, given: str) -> str:
        if not all(given.partition(":")):
            raise ValueError(f"'{given}' is not of the form package.module:function")
        return given

    @field_validator("weights")
    @classmethod
    def _is_a_file_name(cls, given: str) -> str:
        if PurePath(given).name != given or given == "..":
            raise ValueError(f"'{given}' is no name of a file; train writes it into the folder that it is given")
        return given

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, given: tuple[int, ...]) -> tuple[int, ...]:
        if twice := [seed for i, seed in enumerate(given) if seed in given[:i]]:
            raise ValueError(f"{twice[0]} is given twice")
        return given

    @model_validator(mode="after")
    def _people_label_one_curve(self) -> LoopConfig:
        if self.label.pause is not None and (len(self.seeds) > 1 or self.control):
            raise ValueError(
                "seeds, control: are for simulations; with label.pause people would label for each of them"
            )
        return self
