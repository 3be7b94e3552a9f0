"""Text through a Hugging Face tokenizer file, or token ids given as lists; padded to one length."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from poolscore.engine.config import TextDecode
from poolscore.engine.errors import ConfigError
from poolscore.engine.inputs.base import BadRow, Reasons, RowSpec, decode_each
from poolscore.engine.inputs.columns import value_views
from poolscore.engine.inputs.tokenizer import TextTokenizer, load_tokenizer

if TYPE_CHECKING:
    import torch

IDS, MASK = 0, 1  # rows of a decoded text
MOST = 2**31  # token ids travel as int32


class TextDecoder:
    """int32 [N, 2, length] on the host: token ids, and 1 where there is a token. For the model two keyword arguments,
    int64 [N, length] each."""

    parallel = True  # tokenizers release the GIL

    def __init__(self, config: TextDecode) -> None:
        assert config.column is not None
        self.columns = (config.column,)
        self._config = config

    def check(self, schema: pa.Schema) -> None:
        """See Decoder. Opens the tokenizer."""
        column = self.columns[0]
        kind = schema.field(column).type
        if self._loaded is None and not (_is_list(kind) and pa.types.is_integer(kind.value_type)):
            raise ConfigError(
                f"pool.input: column '{column}' has type {kind}; decode.kind 'text' without a tokenizer reads lists of "
                "token ids; for text give decode.tokenizer"
            )
        if self._loaded is not None and not _is_text(kind):
            raise ConfigError(
                f"pool.input: column '{column}' has type {kind}; decode.kind 'text' with a tokenizer reads text"
            )

    def row_spec(self, table: pa.Table) -> RowSpec | None:
        """See Decoder."""
        return RowSpec((2, self._config.length), "int32")

    def decode(self, table: pa.Table, out: NDArray[Any]) -> Reasons:
        """See Decoder."""
        column = table[self.columns[0]]
        if self._loaded is None:
            return decode_each(column.to_pylist(), out, self._put_ids)
        texts, bad = _texts(column)
        tokens = self._loaded.tokenizer.encode_batch_fast(texts)
        bad = decode_each((text.ids for text in tokens), out, self._put_ids) | bad
        out[list(bad)] = 0
        return bad

    def to_model(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        """Token ids and mask, by the names of the model's arguments."""
        named = {self._config.ids: batch[:, IDS].long()}
        return named if self._config.mask is None else named | {self._config.mask: batch[:, MASK].long()}

    @cached_property
    def _loaded(self) -> TextTokenizer | None:
        return None if self._config.tokenizer is None else load_tokenizer(self._config)

    def _put_ids(self, ids: Sequence[int | None], slot: NDArray[Any]) -> None:
        length = slot.shape[-1]
        if not ids:
            raise BadRow("no tokens")
        if len(ids) > length:
            if not self._config.truncation:
                raise BadRow(f"{len(ids)} tokens, more than length {length}")
            ids = ids[:length]  # lists; a tokenizer has cut by itself, between its special tokens
        if None in ids:
            raise BadRow("null among the token ids")
        tokens = np.array(ids, dtype=np.int64)
        if tokens.min() < 0 or tokens.max() >= MOST:
            raise BadRow(f"token ids from {tokens.min()} to {tokens.max()}")
        pad, left = (
            (self._config.pad or 0, False) if self._loaded is None else (self._loaded.pad, self._loaded.pads_left)
        )
        taken = slice(length - len(ids), None) if left else slice(len(ids))
        slot[IDS], slot[MASK] = pad, 0
        slot[IDS, taken], slot[MASK, taken] = tokens, 1


def _texts(column: pa.ChunkedArray) -> tuple[list[str], Reasons]:
    """The values, '' for those that are none; and what is wrong with these."""
    texts: list[str] = []
    bad: Reasons = {}
    for i, value in enumerate(value_views(column)):
        texts.append("")
        if value is None:
            bad[i] = "null"
            continue
        try:
            texts[i] = str(value, "utf-8")
        except UnicodeDecodeError as error:  # Parquet files exist whose text is not checked
            bad[i] = f"not valid UTF-8: {error.reason} at byte {error.start}"
    return texts, bad


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))
