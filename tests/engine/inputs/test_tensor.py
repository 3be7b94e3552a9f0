"""Lists of numbers: every Arrow form of them, sliced and chunked, and what is wrong in a row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from numpy.typing import NDArray

from poolscore.engine.config import TensorDecode
from poolscore.engine.errors import ConfigError
from poolscore.engine.inputs.base import RowSpec
from poolscore.engine.inputs.tensor import TensorDecoder

VALUES = [[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0], [9.0, 10.0, 11.0, 12.0]]
LISTS = [pa.list_, pa.large_list, lambda kind: pa.list_(kind, 4)]


def decoder(**config: Any) -> TensorDecoder:
    return TensorDecoder(TensorDecode(kind="tensor", column="x", **config))


def table(column: pa.Array | pa.ChunkedArray) -> pa.Table:
    return pa.table({"x": column})


def decode(column: pa.Array | pa.ChunkedArray, slots: int = 8, **config: Any) -> tuple[NDArray[Any], dict[int, str]]:
    rows = table(column)
    decoder(**config).check(rows.schema)
    spec = decoder(**config).row_spec(rows)
    assert spec is not None
    out = np.zeros((slots, *spec.shape), spec.dtype)
    out[: rows.num_rows] = 7  # a buffer holds what was there before
    return out, decoder(**config).decode(rows, out)


def tensors(values: NDArray[Any]) -> pa.ExtensionArray:
    return pa.FixedShapeTensorArray.from_numpy_ndarray(values)


@pytest.mark.parametrize(
    "dtype", ["float16", "float32", "float64", "int8", "uint8", "int64", "uint16", "uint32", "uint64"]
)
@pytest.mark.parametrize("form", LISTS)
def test_lists_of_every_type_are_read_exactly(form: Any, dtype: str) -> None:
    values = np.array(VALUES, dtype)
    column = pa.array([list(row) for row in values], form(pa.from_numpy_dtype(values.dtype)))
    out, bad = decode(column)
    assert bad == {}
    assert out.dtype == values.dtype
    np.testing.assert_array_equal(out[:3], values)
    assert not out[3:].any()
    assert torch.equal(decoder().to_model(torch.from_numpy(out[:3])), torch.tensor(VALUES))


@pytest.mark.parametrize("form", LISTS)
def test_slices_and_chunks_are_read_where_they_start(form: Any) -> None:
    column = pa.array([VALUES[0], None, VALUES[1], VALUES[2]], form(pa.float32()))
    out, bad = decode(column.slice(1))
    assert bad == {0: "null"}
    np.testing.assert_array_equal(out[:3], [[0] * 4, *VALUES[1:]])
    out, bad = decode(pa.chunked_array([column.slice(2, 1), column.slice(1, 1), column.slice(3)]))
    assert bad == {1: "null"}
    np.testing.assert_array_equal(out[:3], [VALUES[1], [0] * 4, VALUES[2]])
    out, bad = decode(pa.chunked_array([column.slice(0, 0), column.slice(3)]))
    np.testing.assert_array_equal(out[:1], VALUES[2:])


@pytest.mark.parametrize("form", LISTS)
def test_what_is_wrong_in_a_row_is_said_and_leaves_zeros(form: Any) -> None:
    nan, inf = float("nan"), float("inf")
    column = pa.array(
        [VALUES[0], None, [1.0, None, 3.0, nan], [1.0, nan, 3.0, 4.0], [-inf, 2.0, 3.0, 4.0], VALUES[1]],
        form(pa.float32()),
    )
    out, bad = decode(column)
    not_finite = "NaN or infinity among the values"
    assert bad == {1: "null", 2: "null among the values", 3: not_finite, 4: not_finite}
    np.testing.assert_array_equal(out[:6], [VALUES[0], *[[0] * 4] * 4, VALUES[1]])


@pytest.mark.parametrize("form", LISTS[:2])
def test_lists_of_another_length_are_bad(form: Any) -> None:
    out, bad = decode(pa.array([[], [1.0, 2.0], None, [3.0], [4.0, 5.0, 6.0], [7.0, 8.0]], form(pa.float64())))
    assert bad == {
        0: "an empty list",
        2: "null",
        3: "1 values, expected 2",
        4: "3 values, expected 2",
    }
    np.testing.assert_array_equal(out[:6], [[0, 0], [1, 2], [0, 0], [0, 0], [0, 0], [7, 8]])


def test_blocks_without_a_good_row_are_read() -> None:
    for rows in ([], [None], [None, None]):
        for form in LISTS:
            column = pa.array(rows, form(pa.float32()))
            out = np.zeros((3, 4), np.float32)
            assert decoder().decode(table(column), out) == dict.fromkeys(range(len(rows)), "null")
    assert decoder().decode(table(pa.chunked_array([], pa.list_(pa.float32()))), out) == {}
    assert decoder().row_spec(table(pa.array([None, []], pa.list_(pa.float32())))) is None


def test_fixed_shape_tensors_bring_their_shape() -> None:
    values = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    out, bad = decode(tensors(values))
    assert (out.shape, bad) == ((8, 3, 4), {})
    np.testing.assert_array_equal(out[:2], values)
    out, _ = decode(pa.chunked_array([tensors(values).slice(1), tensors(values)]), shape=(4, 3))
    np.testing.assert_array_equal(out[:3], values[[1, 0, 1]].reshape(3, 4, 3))


def test_permuted_tensors_are_refused() -> None:
    kinds = {order: pa.fixed_shape_tensor(pa.float32(), [2, 3], permutation=order) for order in ((0, 1), (1, 0))}
    decoder().check(pa.schema([("x", kinds[0, 1])]))
    with pytest.raises(ConfigError, match=r"column 'x' has permuted axes"):
        decoder().check(pa.schema([("x", kinds[1, 0])]))


def test_a_shape_can_be_given() -> None:
    out, bad = decode(pa.array(VALUES), shape=(2, 2))
    assert bad == {}
    np.testing.assert_array_equal(out[:3], np.array(VALUES).reshape(3, 2, 2))
    assert decoder(shape=(1, 4)).row_spec(table(pa.array([None], pa.list_(pa.int8())))) == RowSpec((1, 4), "int8")
    with pytest.raises(ConfigError, match=r"^pool.decode.shape: \[3\] has 3 values, not 4"):
        decoder(shape=(3,)).check(pa.schema([("x", pa.list_(pa.float32(), 4))]))


@pytest.mark.parametrize(
    "kind",
    [
        pa.float32(),
        pa.list_(pa.string()),
        pa.list_(pa.bool_()),
        pa.list_(pa.list_(pa.int8())),
        pa.list_(pa.decimal128(3)),
    ],
)
def test_other_columns_are_refused(kind: pa.DataType) -> None:
    with pytest.raises(ConfigError, match=r"^pool.input: column 'x' has type .* reads lists of numbers"):
        decoder().check(pa.schema([("x", kind)]))


def test_the_model_sees_normalised_values() -> None:
    values = np.arange(12, dtype=np.uint8).reshape(2, 3, 2)
    x = decoder(mean=(1.0, 2.0, 3.0), std=(1.0, 2.0, 4.0)).to_model(torch.from_numpy(values))
    expected = (values - np.array([1, 2, 3])[:, None]) / np.array([1, 2, 4])[:, None]
    assert x.dtype == torch.float32
    np.testing.assert_array_equal(x.numpy(), expected.astype(np.float32))
    whole = decoder(mean=(128.0,), std=(64.0,)).to_model(torch.from_numpy(values))
    np.testing.assert_array_equal(whole.numpy(), ((values - np.float32(128)) / 64).astype(np.float32))
    for dtype in ("float64", "int32", "int64", "bool"):
        assert decoder(dtype=dtype).to_model(torch.from_numpy(values)).dtype == getattr(torch, dtype)


@pytest.mark.parametrize("name", ["mean", "std"])
def test_as_many_means_as_entries_of_the_first_axis(name: str) -> None:
    rows = table(tensors(np.zeros((1, 3, 2), np.float32)))
    for count in (1, 3):
        assert decoder(**{name: (1.0,) * count}).row_spec(rows) == RowSpec((3, 2), "float32")
    with pytest.raises(ConfigError, match=rf"^pool.decode.{name}: has 2 values, needs 1 or 3"):
        decoder(**{name: (1.0, 2.0)}).row_spec(rows)
