"""Sections `model` and `passes`: the network, and its Monte-Carlo dropout."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from poolscore.engine.config.section import Positive, Section, Whole
from poolscore.engine.scores import Task


class ModelConfig(Section):
    """The network, its weights, and what its output means."""

    source: str  # package.module:factory, or a file (.pt2, .onnx)
    args: dict[str, Any] = {}  # keyword arguments of the factory
    path: str = "."  # folder that `source` is imported from, beside what is installed
    weights: str | None = None  # .safetensors, or a checkpoint that loads with weights_only
    trust: bool = False  # let torch unpickle what a .pt2 holds, which can run code of whoever wrote it
    task: Task
    classes: Positive | Annotated[tuple[str, ...], Field(min_length=1)] | None = (
        None  # number or names; for regression: number of outputs
    )
    predicts_noise: bool = False  # regression: outputs are D means, then D log-variances

    @model_validator(mode="after")
    def _class_names_differ(self) -> ModelConfig:
        names = self.class_names or ()
        if twice := [name for i, name in enumerate(names) if name in names[:i]]:
            raise ValueError(f"classes: '{twice[0]}' is named twice")
        return self

    @model_validator(mode="after")
    def _a_file_is_whole(self) -> ModelConfig:
        if self.is_file and (self.args or self.weights is not None):
            what, suffix = "args" if self.args else "weights", Path(self.source).suffix
            raise ValueError(f"{what}: a {suffix} file holds all that there is; take it out")
        return self

    @property
    def is_file(self) -> bool:
        """Whether the source is a file that holds a whole model."""
        return self.source.endswith((".pt2", ".onnx"))

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Names of the classes, if the configuration gives them."""
        return self.classes if isinstance(self.classes, tuple) else None

    @property
    def outputs(self) -> int | None:
        """Number of values that the model must give per row, if it is known."""
        if self.task is Task.BINARY:
            return 1
        count = len(self.classes) if isinstance(self.classes, tuple) else self.classes
        return count * 2 if count is not None and self.predicts_noise else count


class PassesConfig(Section):
    """Monte-Carlo dropout."""

    count: Annotated[Whole, Field(ge=1, lt=65536)] = 20  # T
    masks: Literal["shared", "independent"] = "shared"
    seed: Annotated[Whole, Field(ge=0, lt=2**64)] = 0  # of masks, random score and the order of shards
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    layers: Literal["all", "head"] | tuple[str, ...] = "all"  # live dropout: all, the last one, or modules by name
    compile: bool | None = None  # the split model, with torch.compile; default: on a GPU
    split: bool = True  # compute what no dropout reaches once per row; false: repeat every input T times
    rows_per_call: Positive | None = None  # N·T rows in one tensor; default: what caches (CPU) or memory (GPU) hold

    @field_validator("layers", mode="before")
    @classmethod
    def _one_name_is_a_list(cls, given: Any) -> Any:
        return [given] if isinstance(given, str) and given not in ("all", "head") else given
