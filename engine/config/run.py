"""Section `run`: where results go, on what the work is done, and when it stops."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, field_validator, model_validator

from poolscore.engine.config.section import Number, Positive, PositiveNumber, Section, Whole
from poolscore.engine.run.limits import DEADLINES, parse_deadline

AUTO = 0  # batch_size 'auto', until it is measured


def _auto(given: Any) -> Any:
    """'auto' is kept as a number, so that a batch size is one everywhere."""
    if given == "auto":
        return AUTO
    if isinstance(given, str) or (isinstance(given, int) and given < 1):
        raise ValueError(f"must be 'auto' or a number of rows, got {given!r}")
    return given


BatchSize = Annotated[
    Positive | Literal[0],
    BeforeValidator(_auto),
    WithJsonSchema({"anyOf": [{"const": "auto"}, {"minimum": 1, "type": "integer"}]}),
]


class RunConfig(Section):
    """Where results go and how the work is cut."""

    dir: str
    executor: Literal["ray", "local"] = "ray"  # local: in this process, one worker
    address: str | None = None  # of a Ray cluster; default: an embedded one
    workers: Positive | None = None  # so many; default: one per GPU, or per core without GPUs, as machines come and go
    max_workers: Positive | None = None  # of a cluster that grows; an autoscaler is asked for as many
    wait_for_workers: Annotated[Number, Field(ge=0)] = 600  # seconds without any worker after which the job stops
    shard_timeout: PositiveNumber | None = None  # seconds; its worker is killed then; default: 20 times the usual
    device: Literal["auto", "cpu", "cuda"] = "auto"
    allow_mixed: bool = False  # take workers whose last bits differ: another GPU model, processor or library version
    batch_size: BatchSize = 64  # rows, or 'auto'; every batch is padded to it
    shard_rows: Positive = 65_536
    threads: Positive = 1  # CPU threads of a worker: they change the last bits of a score
    decode_threads: Annotated[Whole, Field(ge=0)] | None = None  # of a worker; 0: the model's own; default: its cores
    read_ahead: Positive | None = None  # bytes ahead of a model; default: 128 MiB, on a GPU 1 GiB, or less
    max_bad_fraction: Annotated[Number, Field(ge=0, le=1)] = 0.01  # share of rejected rows that stops the job
    max_bad_rows: Annotated[Whole, Field(ge=0)] | None = None  # number of rejected rows that stops the job
    deadline: str | None = None  # '8h' from the start, '06:00', or a date with it: the batch is made of what is scored
    max_gpu_hours: PositiveNumber | None = None  # the same by hours of workers, added up over all calls of the run
    verify_rows: Annotated[Whole, Field(ge=0)] = 1000  # at most, scored again in float64 at the end; 0: none
    storage_patience: Annotated[Number, Field(ge=0)] = 300.0  # seconds to wait for storage that fails; then it stops

    @field_validator("deadline", mode="before")
    @classmethod
    def _yaml_reads_times(cls, given: Any) -> Any:
        """A date and time without quotes is one to YAML; 18:00 is 1080, and a day alone leaves its hour open."""
        if isinstance(given, datetime):
            return given.isoformat()
        if isinstance(given, str | None):
            return given
        raise ValueError(f"must be {DEADLINES}, in quotes, got {given}")

    @field_validator("deadline")
    @classmethod
    def _deadline_can_be_read(cls, given: str | None) -> str | None:
        if given is not None:
            parse_deadline(given)
        return given

    @model_validator(mode="after")
    def _one_number_of_workers(self) -> RunConfig:
        if self.workers and self.max_workers:
            raise ValueError("workers is a fixed number, max_workers the most that come by and by: give one of them")
        return self
