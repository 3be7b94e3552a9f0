"""Keys: golden values, one row in many forms, sets of ids, and the total order."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poolscore.engine import keys as keys_module
from poolscore.engine.errors import ConfigError
from poolscore.engine.keys import IdSet, id_text, keys_of, total_order

# b2sum -l 64 of the bytes, read as a little-endian number. They must never change: tie-breaks, independent masks and
# the random score of every run that was ever made hang on them.
GOLDEN = {"": 13020603013274838756, "17": 13005073621571156256, "pictures/ä.parquet#3": 16816434351906965653}


@pytest.mark.parametrize("text", GOLDEN)
def test_keys_are_what_they_always_were(text: str) -> None:
    key = int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")
    assert keys_of([text, text.encode()]).tolist() == [GOLDEN[text]] * 2 == [key] * 2
    assert keys_of([text]).dtype == np.uint64


def test_no_ids_have_no_keys() -> None:
    assert keys_of([]).shape == (0,)


@pytest.mark.parametrize(
    "ids",
    [
        pa.array([17, 0]),
        pa.array([17, 0], pa.int8()),
        pa.array([17, 0], pa.uint64()),
        pa.array(["17", "0"]),
        pa.array(["17", "0"], pa.large_string()),
        pa.array(["17", "0"], pa.string_view()),
        pa.array(["17", "0"]).dictionary_encode(),
        pa.array([17, 0]).dictionary_encode(),
        pa.array([b"17", b"0"]),
        pa.array([b"17", b"0"], pa.large_binary()),
        pa.array([b"17", b"0"], pa.binary_view()),
        pa.array(["x", "17", "0"]).slice(1),
    ],
    ids=lambda ids: str(ids.type),
)
def test_an_id_has_one_key_in_every_type(ids: pa.Array) -> None:
    assert keys_of(id_text(ids, "id")).tolist() == keys_of(["17", "0"]).tolist()


def test_odd_ids_keep_their_bytes() -> None:
    assert id_text(pa.array([2**64 - 1], pa.uint64()), "id") == ["18446744073709551615"]
    assert id_text(pa.array([-5]), "id") == ["-5"]
    assert id_text(pa.array([b"\x00\xff"], pa.binary(2)), "id") == [b"\x00\xff"]
    assert id_text(pa.array(["a", None]), "id") == ["a", None]
    assert keys_of(["ä"])[0] == keys_of(["ä".encode()])[0]


@pytest.mark.parametrize("kind", [pa.float64(), pa.bool_(), pa.list_(pa.int64()), pa.timestamp("s"), pa.decimal128(5)])
def test_other_types_are_no_ids(kind: pa.DataType) -> None:
    with pytest.raises(ConfigError, match=r"the column has type .*; an id must be text, binary or an integer"):
        id_text(pa.nulls(1, kind), "the column")


@given(st.lists(st.text(max_size=4)), st.lists(st.text(max_size=4)))
@settings(max_examples=100, deadline=None)
def test_a_set_answers_as_pythons_does(members: list[str], asked: list[str]) -> None:
    ids = IdSet(members)
    assert len(ids) == len(set(members))
    assert ids.sorted() == sorted(member.encode() for member in set(members))
    assert ids.contains(asked, keys_of(asked)).tolist() == [i in set(members) for i in asked]
    assert ids.contains([i.encode() for i in asked], keys_of(asked)).tolist() == [i in set(members) for i in asked]


def test_a_collision_drops_no_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys_module, "keys_of", lambda ids: np.full(len(ids), 7, dtype=np.uint64))
    assert IdSet(["labelled", "too"]).contains(["other", "too"], keys_module.keys_of(["other", "too"])).tolist() == [
        False,
        True,
    ]


def test_members_at_both_ends_of_the_keys_are_found() -> None:
    names = [f"id{i}" for i in range(100)]
    by_key = [names[i] for i in np.argsort(keys_of(names))]
    assert IdSet(by_key[1:-1]).contains(by_key, keys_of(by_key)).tolist() == [False, *[True] * 98, False]


SCORES: Any = st.sampled_from([0.0, -0.0, 1.0, -1.0, float("inf"), float("-inf"), 1e-45, -1e-45, 3.4e38])
ROWS = st.lists(st.tuples(SCORES | st.floats(width=32, allow_nan=False), st.integers(0, 2**64 - 1) | st.integers(0, 2)))


@given(ROWS)
@settings(max_examples=200, deadline=None)
def test_the_total_order_is_pythons_on_tuples(rows: list[tuple[float, int]]) -> None:
    scores = np.array([score for score, _ in rows], dtype=np.float32)
    keys = np.array([key for _, key in rows], dtype=np.uint64)
    row_ids = np.arange(len(rows), dtype=np.int64)[::-1].copy()
    expected = sorted(range(len(rows)), key=lambda i: (-float(scores[i]), int(keys[i]), int(row_ids[i])))
    assert total_order(scores, keys, row_ids).tolist() == expected
