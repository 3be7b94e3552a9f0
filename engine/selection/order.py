"""The total order: rows as records, their sort, and the bits by which large sets of them are cut.

A row's *value* is what it is ranked by: the score itself, or the score with noise. The order is value descending, then
key ascending, then row_id ascending; 0.0 and -0.0 are equal.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

# 32 bytes: what decides the rank, and where the row lies: the number of its part, and its place there.
ROW = np.dtype([("value", "f8"), ("key", "u8"), ("row_id", "i8"), ("part", "u4"), ("place", "u4")])
Rows: TypeAlias = NDArray[Any]  # of ROW
NO_ROWS: Rows = np.empty(0, ROW)
Places: TypeAlias = NDArray[np.intp]
Values: TypeAlias = NDArray[np.float64]
DIGIT = 16  # bits
DIGITS = 3  # two of the value, as float32, and the first of the key
ALL_KEYS = (1 << 64) - 1


def words_of(values_N: NDArray[Any]) -> NDArray[np.uint32]:
    """Bits that are in the order of the values, as float32: a larger value has a larger word. Rounding to float32 keeps
    the order, and 0.0 has one word."""
    bits = (values_N.astype(np.float32) + np.float32(0)).view(np.uint32)
    flip = np.where(bits >> np.uint32(31), np.uint32(0xFFFFFFFF), np.uint32(0x80000000))
    return bits ^ flip


def value_of(word: int) -> float:
    """The float32 of a word."""
    bits = word ^ (0x80000000 if word >> 31 else 0xFFFFFFFF)
    return float(np.array([bits], np.uint32).view(np.float32)[0])


@dataclass(frozen=True)
class Threshold:
    """A lower bound: rows whose value, as float32, is above `edge`, or is `edge` with a key of at most `key`."""

    edge: float = -np.inf
    key: int = ALL_KEYS

    @classmethod
    def of(cls, digits: tuple[int, ...]) -> Threshold:
        """The least row that begins with these digits: high and low half of the value's word, and the complement of the
        key's first 16 bits."""
        high, low, key = (*digits, 0, 0)[:DIGITS]
        edge = value_of(high << DIGIT | low)
        least = -np.inf if np.isnan(edge) else edge  # words below that of -inf are no numbers
        return cls(least, (((1 << DIGIT) - 1 - key) << 48) + (1 << 48) - 1)

    def reached(self, rows: Rows) -> NDArray[np.bool_]:
        """Which rows reach it."""
        values, edge = rows["value"].astype(np.float32), np.float32(self.edge)
        reached: NDArray[np.bool_] = values >= edge
        if self.key != ALL_KEYS:
            reached &= (values != edge) | (rows["key"] <= np.uint64(self.key))
        return reached


def digits_of(level: int, values_N: NDArray[Any], keys_N: NDArray[np.uint64] | None) -> NDArray[np.intp]:
    """The digit of each row at a level; rows with a larger one come first. Only the last level asks for keys."""
    if level == DIGITS - 1:
        assert keys_N is not None
        return (~keys_N >> np.uint64(48)).astype(np.intp)
    shift = np.uint32(DIGIT * (1 - level))
    return ((words_of(values_N) >> shift) & np.uint32(0xFFFF)).astype(np.intp)


def in_total_order(rows: Rows, most: int | None = None) -> Rows:
    """The rows, sorted; only so many of the first. Scratch memory: 24 bytes a row beside the result."""
    # One sort over 64 bits, which is several times faster than three keys; then what is equal in them is put right.
    first = ~_words64(rows["value"])
    order = np.argsort(first, kind="stable")  # of sorted runs it is a merge
    first = first[order]
    same = np.zeros(len(rows) + 1, bool)
    same[1:-1] = first[1:] == first[:-1]
    tied = np.flatnonzero(same[1:] | same[:-1])
    if len(tied):
        among = order[tied]
        order[tied] = among[np.lexsort((rows["row_id"][among], rows["key"][among], first[tied]))]
    return rows_at(rows, order[:most])


def rows_at(rows: Rows, places_N: NDArray[np.intp]) -> Rows:
    """`rows[places_N]`, several times faster: numpy moves records field by field, but words in one go."""
    words = rows.view(np.uint64).reshape(-1, rows.dtype.itemsize // 8)
    return np.take(words, places_N, axis=0).view(rows.dtype).reshape(len(places_N))


def concatenated(some: Iterable[Rows]) -> Rows:
    """All of them, several times faster than numpy, which moves records field by field."""
    words = [NO_ROWS.view(np.uint64), *(rows.view(np.uint64) for rows in some)]
    return np.concatenate(words).view(ROW)


def precedes(row: Any, other: Any) -> bool:
    """Whether a row comes before another."""
    return bool((-row["value"], row["key"], row["row_id"]) < (-other["value"], other["key"], other["row_id"]))


def among(keys_N: NDArray[np.uint64], sorted_keys: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which of N numbers are among the sorted ones."""
    if not len(sorted_keys):
        return np.zeros(len(keys_N), bool)
    found: NDArray[np.bool_] = sorted_keys[np.searchsorted(sorted_keys, keys_N) % len(sorted_keys)] == keys_N
    return found


def where(rows: Rows) -> NDArray[np.uint64]:
    """A number for each row: its part, and its place there."""
    return rows["part"].astype(np.uint64) << np.uint64(32) | rows["place"].astype(np.uint64)


def _words64(values_N: NDArray[np.float64]) -> NDArray[np.uint64]:
    bits = (values_N + 0.0).view(np.uint64)
    return bits ^ np.where(bits >> np.uint64(63), np.uint64(ALL_KEYS), np.uint64(1 << 63))
