"""A row's stable key, and the total order of the selection.

The key is a 64-bit BLAKE2b hash of the row's id, so it stays the same when the pool grows, when files are cut into
other shards, and from run to run. It breaks ties and feeds the masks of `passes.masks: independent` and the `random`
score.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from poolscore.engine.errors import ConfigError

Keys = NDArray[np.uint64]


def keys_of(ids: Sequence[str | bytes]) -> Keys:
    """Keys of N ids: BLAKE2b with an 8-byte digest over the id's bytes (text as UTF-8), read little-endian.

    Args:
        ids: N ids as text or raw bytes; `id_text` turns a column into such ids.

    Returns:
        uint64 [N].
    """
    digests = b"".join(
        blake2b(i.encode() if isinstance(i, str) else i, digest_size=8, usedforsecurity=False).digest() for i in ids
    )
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def id_text(ids: pa.Array, where: str) -> list[str | bytes]:
    """An id column as the text (or raw bytes) that is hashed. Integers become decimal text, so that 17 in a Parquet
    pool and `17` in a CSV of labelled ids are the same row.

    Args:
        ids: Arrow array [N] of strings, binary or integers; a null stays None.
        where: named in errors, such as "pool.id column 'uuid'".

    Raises:
        ConfigError: another type, or text that is not UTF-8.
    """
    kind = ids.type
    if pa.types.is_dictionary(kind):
        return id_text(ids.dictionary_decode(), where)
    if pa.types.is_integer(kind):
        ids = pc.cast(ids, pa.string())
    elif not (
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_string_view(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_binary_view(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
    ):
        raise ConfigError(f"{where} has type {kind}; an id must be text, binary or an integer")
    try:
        values: list[str | bytes] = ids.to_pylist()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{where} is not valid UTF-8; write such ids as binary") from error
    return values


def total_order(scores: NDArray[np.floating], keys: Keys, row_ids: NDArray[np.int64]) -> NDArray[np.intp]:
    """Indices that put rows in the contract's order: score descending, then key ascending, then row_id ascending.

    Args:
        scores: float [N], finite.
        keys: uint64 [N].
        row_ids: int64 [N].

    Returns:
        intp [N].
    """
    return np.lexsort((row_ids, keys, -scores))


class IdSet:
    """A set of ids that answers for whole columns: a search over sorted keys, confirmed on the ids themselves."""

    def __init__(self, ids: Iterable[str | bytes] = ()) -> None:
        self._ids = frozenset(i.encode() if isinstance(i, str) else i for i in ids)
        self._keys = np.sort(keys_of(list(self._ids)))

    def __len__(self) -> int:
        return len(self._ids)

    def sorted(self) -> list[bytes]:
        """The ids in a fixed order."""
        return sorted(self._ids)

    def contains(self, ids: Sequence[str | bytes], keys: Keys) -> NDArray[np.bool_]:
        """Which of N rows are in the set.

        Args:
            ids: N ids.
            keys: uint64 [N], their keys.

        Returns:
            bool [N].
        """
        found = self.may_contain(keys)
        for i in np.flatnonzero(found).tolist():  # a 64-bit collision must not drop a row
            value = ids[i]
            found[i] = (value.encode() if isinstance(value, str) else value) in self._ids
        return found

    def may_contain(self, keys: Keys) -> NDArray[np.bool_]:
        """Which of N rows may be in the set, by their keys alone: all that are, and one in 2^64 others."""
        if not len(self):
            return np.zeros(len(keys), dtype=bool)
        found: NDArray[np.bool_] = self._keys[np.searchsorted(self._keys, keys) % len(self._keys)] == keys
        return found
