"""A function of the user: whatever it does wrong sets one row aside."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from poolscore.engine.config import FunctionDecode
from poolscore.engine.errors import ConfigError
from poolscore.engine.inputs.base import RowSpec
from poolscore.engine.inputs.function import FunctionDecoder


def of_value(value: Any) -> Any:
    """Behaves as the value says."""
    match value:
        case "raise":
            raise KeyError("no\nsuch key")
        case "object":
            return np.array([None, 1])
        case "text":
            return np.array(["a", "b"])
        case "big-endian":
            return np.array([1, 2], ">f4")
        case "double":
            return np.array([1.0, 2.0])
        case "short":
            return np.array([1], np.float32)
        case "nan":
            return np.array([1, np.nan], np.float32)
        case "none":
            return None
        case "ragged":
            return [[1], [1, 2]]
        case None:
            return np.array([7], np.float32)
    return np.array([len(value), 1], np.float32)


@pytest.fixture
def decoder(monkeypatch: pytest.MonkeyPatch) -> FunctionDecoder:
    module = ModuleType("users_module")
    module.__dict__["decode"] = of_value
    monkeypatch.setitem(sys.modules, "users_module", module)
    return FunctionDecoder(FunctionDecode(kind="function", column="x", function="users_module:decode"))


def test_values_become_rows(decoder: FunctionDecoder) -> None:
    rows = pa.table({"x": ["one", "three"]})
    assert decoder.columns == ("x",)
    assert decoder.row_spec(rows) == RowSpec((2,), "float32")
    out = np.zeros((3, 2), np.float32)
    assert decoder.decode(rows, out) == {}
    assert out.tolist() == [[3, 1], [5, 1], [0, 0]]
    batch = torch.from_numpy(out)
    assert decoder.to_model(batch) is batch


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "null"),
        ("raise", "KeyError: 'no\\nsuch key'"),
        ("object", "the function gave object, not one of float16"),
        ("text", "the function gave <U1, not one of float16"),
        ("big-endian", "the function gave >f4, not one of float16"),
        ("none", "the function gave object, not one of float16"),
        ("ragged", "ValueError: "),
        ("nan", "NaN or infinity among the values"),
        ("double", "dtype float64, expected float32"),
        ("short", "shape [1], expected [2]"),
    ],
)
def test_what_goes_wrong_is_the_rows_reason(decoder: FunctionDecoder, value: str | None, reason: str) -> None:
    rows = pa.table({"x": pa.array(["one", value, "two"])})
    out = np.zeros((4, 2), np.float32)
    bad = decoder.decode(rows, out)
    assert set(bad) == {1}
    assert bad[1].startswith(reason)
    assert "\n" not in bad[1]
    assert out.tolist() == [[3, 1], [0, 0], [3, 1], [0, 0]]


def test_the_row_spec_is_read_off_the_first_good_row(decoder: FunctionDecoder) -> None:
    assert decoder.row_spec(pa.table({"x": [None, "raise", "nan", "double", "one"]})) == RowSpec((2,), "float64")
    assert decoder.row_spec(pa.table({"x": pa.array([None, "raise"])})) is None
    assert decoder.row_spec(pa.table({"x": pa.array([None, None], pa.string())})) is None


@pytest.mark.parametrize("name", ["no_such_module_of_anyone:decode", "users_module", "users_module:none", ":decode"])
def test_functions_that_are_not_there_are_refused(decoder: FunctionDecoder, name: str) -> None:
    with pytest.raises(ConfigError, match=r"^pool.decode.function: "):
        FunctionDecoder(FunctionDecode(kind="function", column="x", function=name))
