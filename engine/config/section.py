"""What every section is: frozen, strict about its keys, and made of numbers that are numbers."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator


def _no_flag(given: Any) -> Any:
    """YAML reads yes, no, on and off as true and false, which Python would take for the numbers 1 and 0."""
    if isinstance(given, bool):
        raise ValueError(f"must be a number, got {str(given).lower()}")
    return given


Whole = Annotated[int, BeforeValidator(_no_flag)]
Number = Annotated[float, BeforeValidator(_no_flag), Field(allow_inf_nan=False)]
Positive = Annotated[Whole, Field(ge=1)]
PositiveNumber = Annotated[Number, Field(gt=0)]


class Section(BaseModel):
    """A part of the configuration: immutable, and unknown keys are refused with the nearest known one."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), str_min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _only_known_keys(cls, given: Any) -> Any:
        if isinstance(given, Mapping):
            for key in given:
                if key not in cls.model_fields:
                    near = difflib.get_close_matches(str(key), cls.model_fields, n=1, cutoff=0.5)
                    hint = f"did you mean '{near[0]}'?" if near else f"known keys: {', '.join(cls.model_fields)}"
                    raise ValueError(f"unknown key '{key}'; {hint}")
        return given
