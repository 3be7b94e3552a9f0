"""The seam of the decoders."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

V = TypeVar("V")
Reasons = dict[int, str]  # row of a table → why it cannot be decoded


@dataclass(frozen=True)
class RowSpec:
    """What one decoded row looks like in the host buffer."""

    shape: tuple[int, ...]
    dtype: str  # numpy's name


class BadRow(ValueError):
    """Why one row cannot be decoded."""


class Decoder(Protocol):
    """From Arrow columns to a batch. Split in two, so that as few bytes as possible travel to the device:
    `decode` fills a host buffer (uint8 for pictures), `to_model` does the arithmetic where the model is."""

    parallel: bool  # whether `decode` may run on several threads at once, each with rows of its own

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the pool that are read."""

    def check(self, schema: pa.Schema) -> None:
        """Raise ConfigError if the columns cannot be what this decoder reads."""

    def row_spec(self, table: pa.Table) -> RowSpec | None:
        """Shape and dtype of a row, read off the first row of `table` that can be decoded; None if none can."""

    def decode(self, table: pa.Table, out: NDArray[Any]) -> Reasons:
        """Fill out[i] from row i of `table`, N rows; out is [≥ N, *shape] and may hold anything.

        Returns:
            row → reason, for each row that cannot be decoded; its slot is zero.
        """

    def to_model(self, batch: torch.Tensor) -> torch.Tensor | dict[str, torch.Tensor]:
        """[N, *shape] as decoded → the model's input, on the device of `batch`; or several, by the names of the model's
        arguments."""


def decode_each(
    values: Iterable[V | None], out: NDArray[Any], decode_into: Callable[[V, NDArray[Any]], None]
) -> Reasons:
    """Fill each out[i] by decode_into(value, out[i]); nulls and bad rows are zero, and returned with their reason."""
    bad: Reasons = {}
    for i, value in enumerate(values):
        try:
            if value is None:
                raise BadRow("null")
            decode_into(value, out[i, ...])  # a view, also where a row is one number
        except BadRow as error:
            bad[i] = str(error)
            out[i] = 0
    return bad


def put_row(row: NDArray[Any], slot: NDArray[Any]) -> None:
    """Copy a decoded row to its place in the batch; raise BadRow if it is not like the others."""
    if row.shape != slot.shape:
        raise BadRow(f"shape {list(row.shape)}, expected {list(slot.shape)}")
    if row.dtype != slot.dtype:
        raise BadRow(f"dtype {row.dtype}, expected {slot.dtype}")
    slot[...] = row


def normalised(x: torch.Tensor, mean: Sequence[float], std: Sequence[float], axis: int) -> torch.Tensor:
    """(x − mean) / std with one value, or one for each entry of `axis`; the identity for 0 and 1."""
    if set(mean) == {0.0} and set(std) == {1.0}:
        return x
    return normalised_(x.clone() if x.is_floating_point() else x.double(), mean, std, axis)


def normalised_(x: torch.Tensor, mean: Sequence[float], std: Sequence[float], axis: int) -> torch.Tensor:
    """The same in place, of floating-point values."""
    if set(mean) == {0.0} and set(std) == {1.0}:
        return x
    shape = [1] * x.ndim
    shape[axis] = -1
    of_mean, of_std = (_constant(tuple(values), x.dtype, x.device).view(shape) for values in (mean, std))
    return x.sub_(of_mean).div_(of_std)


@cache
def _constant(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Made once: copying from Python to a GPU waits until the GPU has done all that is queued there."""
    import torch

    return torch.tensor(values, dtype=dtype, device=device)


def not_finite(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Which of N rows hold NaN or infinity; [N, …] → bool [N]."""
    if values.dtype.kind != "f":
        return np.zeros(len(values), dtype=bool)
    flagged: NDArray[np.bool_] = ~np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
    return flagged
