"""Section `pool`: where the unlabelled rows are, which of them count, and what of them the model sees."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import field_validator, model_validator

from poolscore.engine.config.decode import Decode, FeaturesDecode, ImageDecode, arguments_of, columns_of
from poolscore.engine.config.section import PositiveNumber, Section
from poolscore.engine.pool.expression import parse as parse_filter


class PoolConfig(Section):
    """Where the unlabelled rows are and how a row becomes the model's input."""

    uri: str  # a Parquet file, a folder of them, or a glob
    input: str | tuple[str, ...] | None = None  # the column (for features: columns) of a model with one input
    decode: Decode = ImageDecode()
    inputs: dict[str, Decode] = {}  # instead of input and decode: the model's keyword arguments
    id: str | None = None  # column; default: the row is known by its file and place
    keep: tuple[str, ...] = ()  # columns carried into scores and selections
    exclude: str | tuple[str, ...] | None = None  # ids that are labelled or handed over: Parquet, CSV, tasks.json
    filter: str | None = None  # only rows for which this holds, such as: split == "train" and size > 10
    sample: PositiveNumber | None = None  # for a try: a fraction (below 1) or a number of rows, drawn by passes.seed
    bad_files: Literal["stop", "skip"] = "stop"  # files that cannot be read: refuse the pool, or list and leave out

    @property
    def exclude_lists(self) -> tuple[str, ...]:
        """The files of `exclude`."""
        return (self.exclude,) if isinstance(self.exclude, str) else self.exclude or ()

    @model_validator(mode="after")
    def _one_way_to_name_inputs(self) -> PoolConfig:
        if (self.input is None) == (not self.inputs):
            raise ValueError("give either 'input' (one column) or 'inputs' (named inputs of the model)")
        if self.inputs and self.decode != ImageDecode():
            raise ValueError("decode belongs to 'input'; each of 'inputs' says itself how it is decoded")
        if self.input is not None and columns_of(self.decode):
            raise ValueError("decode names a column, and so does input; leave it to input")
        for name, decode in self.named_inputs().items():
            if not columns_of(decode):
                raise ValueError(f"inputs.{name}: no column is named" if name else "input names no column")
            if name and not name.isidentifier():
                raise ValueError(f"inputs.{name}: the name of an input is a keyword argument of the model")
        return self

    @model_validator(mode="after")
    def _arguments_differ(self) -> PoolConfig:
        taken: dict[str, str] = {}
        for name, decode in self.named_inputs().items():
            for argument in arguments_of(name, decode):
                if not argument.isidentifier() and argument:
                    raise ValueError(f"decode: '{argument}' is no name of a keyword argument")
                if argument in taken:
                    raise ValueError(f"inputs.{name}: '{argument}' is given by inputs.{taken[argument]} as well")
                taken[argument] = name
        return self

    @field_validator("input", mode="before")
    @classmethod
    def _lists_are_tuples(cls, given: Any) -> Any:
        return tuple(given) if isinstance(given, list) else given

    @field_validator("filter")
    @classmethod
    def _filter_can_be_read(cls, given: str | None) -> str | None:
        if given is not None:
            parse_filter(given)
        return given

    @field_validator("sample")
    @classmethod
    def _sample_is_a_share_or_a_number(cls, given: float | None) -> float | None:
        if given is not None and given >= 1 and given != int(given):
            raise ValueError(f"must be a fraction below 1 or a whole number of rows, got {given:g}")
        return given

    def named_inputs(self) -> dict[str, Decode]:
        """Decoders by input name; the one unnamed input is called ''."""
        if self.input is None:
            return dict(self.inputs)
        columns = (self.input,) if isinstance(self.input, str) else self.input
        if isinstance(self.decode, FeaturesDecode):
            return {"": self.decode.model_copy(update={"columns": columns})}
        if len(columns) != 1:
            raise ValueError(f"decode.kind '{self.decode.kind}' takes one column, got {len(columns)}")
        return {"": self.decode.model_copy(update={"column": columns[0]})}
