"""Sections `check` and `prices`: what can be told before hours are spent."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from poolscore.engine.config.section import Number, Positive, Section


class CheckConfig(Section):
    """Labelled rows that prove the wiring before hours are spent."""

    labelled: str  # Parquet with the pool's input columns and the label
    label: str = "label"  # column: class number or, with model.classes as names, class name
    min_accuracy: Annotated[Number, Field(ge=0, le=1)] | None = None
    rows: Positive = 1000  # at most so many of them are scored, drawn by passes.seed


class PricesConfig(Section):
    """What things cost, in one currency of your choice, for the estimate of `plan --preview`."""

    currency: str = "USD"
    gpu_hour: Annotated[Number, Field(ge=0)] | None = None
    cpu_hour: Annotated[Number, Field(ge=0)] | None = None  # of one core
    thousand_requests: Annotated[Number, Field(ge=0)] | None = None  # to object storage
    egress_gb: Annotated[Number, Field(ge=0)] | None = None  # read from storage, 10^9 bytes
