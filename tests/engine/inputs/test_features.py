"""Columns of numbers side by side."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from numpy.typing import NDArray

from poolscore.engine.config import FeaturesDecode
from poolscore.engine.errors import ConfigError
from poolscore.engine.inputs.base import RowSpec
from poolscore.engine.inputs.features import FeaturesDecoder


def decoder(*columns: str, **config: Any) -> FeaturesDecoder:
    return FeaturesDecoder(FeaturesDecode(kind="features", columns=columns, **config))


def decode(rows: pa.Table, slots: int = 6) -> tuple[NDArray[Any], dict[int, str]]:
    dec = decoder(*rows.column_names)
    dec.check(rows.schema)
    spec = dec.row_spec(rows)
    assert spec is not None
    out = np.zeros((slots, *spec.shape), spec.dtype)
    return out, dec.decode(rows, out)


@pytest.mark.parametrize(
    "kind", [pa.int8(), pa.uint8(), pa.int32(), pa.int64(), pa.uint64(), pa.float16(), pa.float32(), pa.float64()]
)
def test_numbers_of_every_type(kind: pa.DataType) -> None:
    column = pa.array(np.array([1, 2, 3], kind.to_pandas_dtype()))
    rows = pa.table({"a": column, "b": pa.array([True, False, True]), "c": pa.chunked_array([column[1:], column[:1]])})
    out, bad = decode(rows)
    assert bad == {}
    np.testing.assert_array_equal(out, [[1, 1, 2], [2, 0, 3], [3, 1, 1], [0] * 3, [0] * 3, [0] * 3])
    assert out.dtype == ("float64" if pa.types.is_floating(kind) or kind == pa.uint64() else "int64")


def test_null_and_not_finite_rows_are_bad_and_zero() -> None:
    rows = pa.table({"a": [1.0, float("nan"), 3.0, 4.0, float("inf")], "b": [1, 2, None, 4, None]})
    out, bad = decode(rows)
    assert bad == {
        1: "column 'a' is NaN or infinite",
        2: "column 'b' is null",
        4: "column 'a' is NaN or infinite",
    }
    np.testing.assert_array_equal(out, [[1, 1], [0, 0], [0, 0], [4, 4], [0, 0], [0, 0]])


def test_big_integers_are_kept_or_rounded_but_never_refused() -> None:
    big = 2**60 + 1
    out, bad = decode(pa.table({"a": [big, -big]}))
    assert (out[:2, 0].tolist(), bad) == ([big, -big], {})
    out, bad = decode(pa.table({"time": [big], "b": [0.5]}))
    assert (out[0].tolist(), bad) == ([float(big), 0.5], {})
    out, bad = decode(pa.table({"a": pa.array([2**64 - 1, None], pa.uint64())}))
    assert (out[0, 0], bad) == (float(2**64), {1: "column 'a' is null"})


def test_no_rows() -> None:
    out, bad = decode(pa.table({"a": pa.array([], pa.int64()), "b": pa.chunked_array([], pa.float32())}))
    assert bad == {}
    assert not out.any()


@pytest.mark.parametrize(
    "kind", [pa.decimal128(9, 2), pa.string(), pa.null(), pa.timestamp("s"), pa.list_(pa.int8()), pa.date32()]
)
def test_other_columns_are_refused(kind: pa.DataType) -> None:
    with pytest.raises(ConfigError, match=r"^pool.input: column 'b' has type .* reads numbers"):
        decoder("a", "b").check(pa.schema([("a", pa.int8()), ("b", kind)]))


@pytest.mark.parametrize("name", ["mean", "std"])
def test_one_mean_or_one_a_column(name: str) -> None:
    schema = pa.schema([(column, pa.int8()) for column in "abc"])
    for count in (1, 3):
        decoder(*"abc", **{name: (1.0,) * count}).check(schema)
    with pytest.raises(ConfigError, match=rf"^pool.decode.{name}: has 2 values, needs 1 or 3"):
        decoder(*"abc", **{name: (1.0, 2.0)}).check(schema)


def test_integers_are_normalised_as_double_and_then_cast() -> None:
    values = np.array([[2**40 + 1, 3], [5, 7]])
    x = decoder("a", "b", mean=(2.0**40, 1.0), std=(1.0, 4.0)).to_model(torch.from_numpy(values))
    assert x.dtype == torch.float32
    assert x[0].tolist() == [1.0, 0.5]
    assert decoder("a", "b", dtype="int64").to_model(torch.from_numpy(values)).tolist() == values.tolist()
    assert decoder("a", "b").row_spec(pa.table({"a": [1], "b": [1.0]})) == RowSpec((2,), "float64")
