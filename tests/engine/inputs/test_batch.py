"""Batches of one fixed size from several decoders."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from poolscore.engine.config import FeaturesDecode, TensorDecode, parse_config
from poolscore.engine.errors import ConfigError
from poolscore.engine.inputs import DECODERS, build_decoders
from poolscore.engine.inputs.base import Decoder, RowSpec
from poolscore.engine.inputs.batch import SAMPLE_ROWS, BatchDecoder, find_row_specs
from poolscore.engine.inputs.features import FeaturesDecoder
from poolscore.engine.inputs.tensor import TensorDecoder
from poolscore.engine.keys import keys_of
from poolscore.engine.pool.read import Rows

CPU = torch.device("cpu")


def rows_of(ids: list[str | None] | None = None, **columns: Any) -> Rows:
    table = pa.table(columns)
    ids = ids or [f"r{i}" for i in range(table.num_rows)]
    keys = keys_of([i or "" for i in ids])
    return Rows(table, np.arange(table.num_rows, dtype=np.int64), keys, pa.array(ids, pa.string()))


def vectors(column: str = "x", **config: Any) -> Decoder:
    return TensorDecoder(TensorDecode(kind="tensor", column=column, **config))


def numbers(*columns: str) -> Decoder:
    return FeaturesDecoder(FeaturesDecode(kind="features", columns=columns))


def test_slots_without_a_row_are_zero_and_no_row_moves() -> None:
    decoder = BatchDecoder({"": vectors()}, {"": RowSpec((2,), "float32")}, 5, CPU)
    rows = rows_of(x=pa.array([[1, 2], None, [3, 4]], pa.list_(pa.float32())))
    inputs, bad = decoder.decode(rows)
    assert list(inputs) == [""]
    assert inputs[""].tolist() == [[1, 2], [0, 0], [3, 4], [0, 0], [0, 0]]
    assert bad == {1: ("decode", "null")}


def test_a_row_is_the_same_in_any_company() -> None:
    decoder = BatchDecoder({"": vectors(mean=(3.0,), std=(7.0,))}, {"": RowSpec((2,), "float64")}, 4, CPU)
    alone, _ = decoder.decode(rows_of(x=[[1.0, 2.0]]))
    among, _ = decoder.decode(rows_of(x=[[1.0, 2.0], [8.0, 9.0], [float("nan"), 1.0]]))
    assert torch.equal(alone[""][0], among[""][0])
    assert torch.equal(alone[""][1:], among[""][2:3].expand(3, 2))


def test_named_inputs_name_themselves_in_reasons() -> None:
    specs = {"left": RowSpec((2,), "float64"), "right": RowSpec((1,), "int64")}
    decoder = BatchDecoder({"left": vectors("a"), "right": numbers("b")}, specs, 4, CPU)
    rows = rows_of(["r", None, "s", "t"], a=[[1.0, 2.0], [3.0, 4.0], [5.0], None], b=[1, 2, None, None])
    inputs, bad = decoder.decode(rows)
    assert {name: list(x.shape) for name, x in inputs.items()} == {"left": [4, 2], "right": [4, 1]}
    assert inputs["left"].dtype == inputs["right"].dtype == torch.float32
    assert bad == {
        1: ("read", "id is null"),
        2: ("decode", "left: 1 values, expected 2"),
        3: ("decode", "left: null"),
    }


def test_an_empty_block_is_all_padding() -> None:
    decoder = BatchDecoder({"": numbers("b")}, {"": RowSpec((1,), "int64")}, 3, CPU)
    rows = rows_of(b=pa.array([], pa.int64()))
    inputs, bad = decoder.decode(rows)
    assert (inputs[""].tolist(), bad) == ([[0], [0], [0]], {})
    assert decoder.padded_keys(rows).tolist() == [0, 0, 0]


def test_keys_keep_their_bits() -> None:
    rows = rows_of(b=[1, 2])
    rows.keys[:] = [2**64 - 1, 2**63]
    keys = BatchDecoder({"": numbers("b")}, {"": RowSpec((1,), "int64")}, 3, CPU).padded_keys(rows)
    assert (keys.dtype, keys.tolist()) == (torch.int64, [-1, -(2**63), 0])


def test_row_specs_come_from_the_first_rows_that_can_be_decoded() -> None:
    nothing = pa.array([None, None], pa.list_(pa.float32()))
    blocks = [
        rows_of(a=nothing, b=nothing),
        rows_of(a=pa.array([None, [1, 2]], pa.list_(pa.float32())), b=nothing),
        rows_of(a=pa.array([[1], [1]], pa.list_(pa.float32())), b=pa.array([[], [5]], pa.list_(pa.float32()))),
    ]
    specs = find_row_specs({"left": vectors("a"), "right": vectors("b")}, iter(blocks))
    assert specs == {"left": RowSpec((2,), "float32"), "right": RowSpec((1,), "float32")}


def test_without_a_good_row_the_commonest_reason_is_told() -> None:
    block = rows_of(a=pa.array([None, [], []], pa.list_(pa.float32())))
    blocks = (block for _ in range(10 * SAMPLE_ROWS))
    with pytest.raises(ConfigError, match=r"none of the first 1002 rows can be decoded.*: an empty list$"):
        find_row_specs({"": vectors("a")}, blocks)
    assert next(blocks) is block  # it does not read the whole pool
    with pytest.raises(ConfigError, match=r"none of the first 0 rows"):
        find_row_specs({"": vectors("a")}, [])


@pytest.mark.parametrize("kind", DECODERS)
def test_every_kind_of_input_has_its_decoder(kind: str) -> None:
    decode = {"kind": kind} | ({"function": "math:floor"} if kind == "function" else {})
    config = parse_config(
        {
            "pool": {"uri": "p", "input": "x", "decode": decode},
            "model": {"source": "m:f", "task": "binary"},
            "select": {"k": 1},
            "run": {"dir": "r"},
        }
    )
    ((name, decoder),) = build_decoders(config).items()
    assert (name, decoder.columns) == ("", ("x",))
    assert type(decoder) is DECODERS[kind]
