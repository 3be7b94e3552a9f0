"""The table of an oracle: labels that are known already. It is read once for all rounds, and stays in Arrow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from poolscore.engine.config.loop import OracleConfig
from poolscore.engine.errors import ConfigError
from poolscore.engine.keys import id_text
from poolscore.jobs.loop.first import read_pairs

KEY = "loop.label.oracle"


@dataclass(frozen=True)
class Truth:
    """N rows: id (large text or bytes) and label."""

    path: str
    table: pa.Table

    def of(self, ids: Sequence[str | bytes]) -> list[Any]:
        """Their labels, as the table has them.

        Raises:
            ConfigError: an id is not there.
        """
        kind = self.table["id"].type
        alike = [i for i in ids if isinstance(i, bytes) == pa.types.is_large_binary(kind)]  # the others are not there
        found = self._pairs(pa.array(alike, kind))
        if unknown := [i for i in ids if i not in found]:
            raise ConfigError(
                f"{KEY}: {self.path} has no row with the id {unknown[0]!r} ({len(unknown)} of {len(ids)} are missing)"
            )
        return [found[i] for i in ids]

    def require_one_label(self) -> None:
        """
        Raises:
            ConfigError: an id has two different ones.
        """
        counts = pc.value_counts(self.table["id"].drop_null())
        self._pairs(counts.field("values").filter(pc.greater(counts.field("counts"), 1)))

    def _pairs(self, ids: pa.Array) -> dict[str | bytes, Any]:
        of_ids = self.table.filter(pc.is_in(self.table["id"], value_set=ids))
        pairs: dict[str | bytes, Any] = {}
        for i, label in zip(of_ids["id"].to_pylist(), of_ids["label"].to_pylist(), strict=True):
            if pairs.setdefault(i, label) != label:
                raise ConfigError(
                    f"{KEY}: {self.path} has two labels for the id {i!r}: {pairs[i]!r} and {label!r}; keep one of them"
                )
        return pairs


def read_truth(oracle: OracleConfig) -> Truth:
    """The table of an oracle that has one.

    Raises:
        ConfigError: it cannot be read, has no such columns, or two labels for an id.
    """
    assert oracle.table is not None
    _, ids, labels = read_pairs(oracle.table, (oracle.id,), oracle.label, KEY)
    id_text(ids.slice(0, 1), f"{KEY}: {oracle.table} column '{oracle.id}'")  # refuses other types
    bytes_ = any(test(ids.type) for test in (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view))
    raw = bytes_ or pa.types.is_fixed_size_binary(ids.type)
    as_text = ids.cast(pa.large_binary() if raw else pa.large_string())
    try:
        as_text.validate(full=True)
    except pa.ArrowInvalid as error:
        raise ConfigError(
            f"{KEY}: {oracle.table} column '{oracle.id}' is not valid UTF-8; write such ids as binary"
        ) from error
    truth = Truth(oracle.table, pa.table({"id": as_text, "label": labels}))
    truth.require_one_label()
    return truth
