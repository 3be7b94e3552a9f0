"""Batches of one fixed size from several decoders."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from conftest import rows_of
from numpy.typing import NDArray

from poolscore.engine.config import FeaturesDecode, TensorDecode, parse_config
from poolscore.engine.errors import ConfigError
from poolscore.engine.inputs import DECODERS, build_decoders
from poolscore.engine.inputs.base import BadRow, Decoder, Reasons, RowSpec, decode_each, normalised, put_row
from poolscore.engine.inputs.batch import SAMPLE_ROWS, BatchDecoder, find_row_specs
from poolscore.engine.inputs.features import FeaturesDecoder
from poolscore.engine.inputs.tensor import TensorDecoder

CPU = torch.device("cpu")


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


def test_only_the_first_batch_makes_constants(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU each would wait for all that is queued there."""
    x = torch.tensor([[[1.0, 2.0]], [[3.0, 4.0]]])
    first = normalised(x, (0.1, 0.2), (3.0, 7.0), axis=2)
    assert torch.equal(first, (x - torch.tensor([0.1, 0.2])) / torch.tensor([3.0, 7.0]))
    for owner, name in ((torch, "tensor"), (torch.Tensor, "new_tensor")):
        monkeypatch.setattr(owner, name, None)
    assert torch.equal(normalised(x, [0.1, 0.2], [3.0, 7.0], axis=2), first)


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


class OddNumbers:
    """A decoder that threads may share: odd numbers come through, the others are bad."""

    parallel = True
    columns = ("x",)

    def __init__(self) -> None:
        self.threads: set[str] = set()

    def decode(self, table: pa.Table, out: NDArray[Any]) -> Reasons:
        self.threads.add(threading.current_thread().name)
        time.sleep(0.001)
        return decode_each(table["x"].to_pylist(), out, self._into)

    def _into(self, value: int, slot: NDArray[Any]) -> None:
        slot[:] = value  # a decoder that writes in place may fail halfway
        if value % 2 == 0:
            raise BadRow(f"{value} is even")

    def to_model(self, batch: torch.Tensor) -> torch.Tensor:
        return batch


@pytest.mark.parametrize("threads", [1, 2, 3, 16])
def test_threads_and_used_buffers_change_nothing(threads: int) -> None:
    odd = OddNumbers()
    specs = {"a": RowSpec((3,), "int64"), "b": RowSpec((1,), "int64")}
    decoder = BatchDecoder({"a": odd, "b": numbers("x")}, specs, 70, CPU, threads)  # type: ignore[dict-item]
    for start, count in ((5, 70), (0, 0), (200, 61), (7, 3)):
        values = list(range(start, start + count))
        inputs, bad = decoder.decode(rows_of(x=pa.array(values, pa.int64())))
        assert bad == {i: ("decode", f"a: {x} is even") for i, x in enumerate(values) if x % 2 == 0}
        expected = [[x] * 3 if x % 2 else [0] * 3 for x in values] + [[0] * 3] * (70 - count)
        assert inputs["a"].tolist() == expected
        assert inputs["b"].flatten().tolist() == values + [0] * (70 - count)
    assert (len(odd.threads) > 1) == (threads > 1)


def test_a_row_may_be_one_number() -> None:
    out = np.full(3, 7)
    assert decode_each([5, None], out, lambda value, slot: put_row(np.array(value), slot)) == {1: "null"}
    assert out.tolist() == [5, 0, 7]


def test_buffers_are_lent_until_they_are_released() -> None:
    decoder = BatchDecoder({"": numbers("x")}, {"": RowSpec((1,), "int64")}, 2, CPU)
    first, second = decoder.read(rows_of(x=[1, 2])), decoder.read(rows_of(x=[3]))
    assert first.nbytes == 16
    lent = first.arrays[""]
    assert (lent.tolist(), second.arrays[""].tolist()) == ([[1], [2]], [[3], [0]])
    inputs = decoder.to_device(first)
    first.release()  # a second time: it must not give the buffers to two batches
    third, fourth = decoder.read(rows_of(x=[5])), decoder.read(rows_of(x=[7]))
    assert third.arrays[""] is lent
    assert fourth.arrays[""] is not lent
    assert inputs[""].tolist() == [[1], [2]]  # no view of what now holds other rows
    with pytest.raises(AssertionError, match="released"):
        first.arrays  # noqa: B018


def test_what_the_model_sees_is_no_view_of_a_buffer() -> None:
    decoder = BatchDecoder({"": vectors()}, {"": RowSpec((2,), "float32")}, 2, CPU)
    before, _ = decoder.decode(rows_of(x=pa.array([[1, 2]], pa.list_(pa.float32()))))
    decoder.decode(rows_of(x=pa.array([[8, 9]], pa.list_(pa.float32()))))
    assert before[""].tolist() == [[1, 2], [0, 0]]


@pytest.mark.gpu
def test_on_a_gpu_a_buffer_waits_for_its_copy() -> None:
    decoder = BatchDecoder({"": vectors()}, {"": RowSpec((1 << 20,), "float32")}, 8, torch.device("cuda"), 2)
    column = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(8 << 20, dtype=np.float32)), 1 << 20)
    for start in range(4):
        rows = rows_of(x=column.slice(start, 4))
        batch = decoder.read(rows)
        assert batch.buffers.tensors[""].is_pinned()
        x = decoder.to_device(batch)[""]
        decoder.read(rows_of(x=column.slice(0, 1))).release()  # writes into the buffer just given back
        assert torch.equal(x[:4].cpu(), torch.arange(4 << 20).float().view(4, -1) + (start << 20))
        assert torch.equal(decoder.padded_keys(rows).cpu()[:4], torch.from_numpy(rows.keys.view(np.int64)))


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
    decode = {"kind": kind} | {"function": {"function": "math:floor"}, "text": {"length": 8}}.get(kind, {})
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


def test_no_decoder_sees_a_blank_row() -> None:
    seen: list[float] = []

    class Watching:
        columns, parallel = ("b",), True

        def decode(self, table: pa.Table, out: NDArray[Any]) -> Reasons:
            seen.extend(table["b"].to_pylist())
            out[: table.num_rows] = table["b"].to_numpy()[:, None]
            return {0: "odd"} if table["b"][0].as_py() == 4 else {}

        def to_model(self, batch: torch.Tensor) -> torch.Tensor:
            return batch

    watching: Any = Watching()
    decoder = BatchDecoder({"": watching}, {"": RowSpec((1,), "int64")}, 6, CPU)
    decoder.read(rows_of(b=[9] * 6)).release()  # leaves its numbers in the buffer
    seen.clear()
    why = ("worker", "died")
    batch = decoder.read(rows_of(b=[1, 2, 3, 4, 5]), {0: why, 2: why})
    assert seen == [2, 4, 5]
    assert batch.arrays[""].ravel().tolist() == [0, 2, 0, 4, 5, 0]
    assert batch.bad == {0: why, 2: why, 3: ("decode", "odd")}
    assert decoder.read(rows_of(b=[1]), {0: why}).bad == {0: why}
