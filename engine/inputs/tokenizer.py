"""A Hugging Face tokenizer out of its file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from poolscore.engine.config import TextDecode
from poolscore.engine.config_text import one_line
from poolscore.engine.errors import ConfigError
from poolscore.engine.storage.filesystem import locate, read_whole, reason, repeated, require_bucket

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PAD_TOKENS = ("[PAD]", "<pad>")


@dataclass(frozen=True)
class TextTokenizer:
    """A tokenizer with our own truncation, and without padding: that happens in the batch's buffer."""

    tokenizer: Tokenizer
    pad: int  # id of the padding
    pads_left: bool


def load_tokenizer(decode: TextDecode) -> TextTokenizer:
    """The tokenizer of `decode.tokenizer`. On which side it pads and cuts is as its file says.

    Raises:
        ConfigError: the library or the file is missing, or it is no tokenizer.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # the threads are ours
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise ConfigError(
            "pool.decode: kind 'text' needs the library tokenizers: `pip install 'poolscore[text]'`"
        ) from error
    data = _read(decode)
    try:
        tokenizer = Tokenizer.from_buffer(data)
    except Exception as error:  # the library's, of every kind
        raise ConfigError(
            f"pool.decode.tokenizer: {decode.tokenizer} is no tokenizer.json ({one_line(error)})"
        ) from error
    padding, truncation = tokenizer.padding or {}, tokenizer.truncation or {}
    tokenizer.no_padding()
    tokenizer.no_truncation()
    if decode.length <= (special := tokenizer.num_special_tokens_to_add(False)):
        raise ConfigError(f"pool.decode.length: {decode.length} leaves no room beside {special} special tokens")
    if decode.truncation:
        tokenizer.enable_truncation(decode.length, direction=truncation.get("direction", "right"))
    known = [found for name in PAD_TOKENS if (found := tokenizer.token_to_id(name)) is not None]
    pad = next(id_ for id_ in (decode.pad, padding.get("pad_id"), *known, 0) if id_ is not None)
    return TextTokenizer(tokenizer, pad, padding.get("direction") == "left")


def tokenizer_digest(decode: TextDecode) -> str:
    """Of the file, by which workers and resumed runs know that they have the same."""
    return sha256(_read(decode)).hexdigest()[:32]


def _read(decode: TextDecode) -> bytes:
    assert decode.tokenizer is not None
    place = locate(decode.tokenizer)
    try:
        return repeated(lambda: read_whole(place, "detect"), decode.tokenizer)
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            require_bucket(decode.tokenizer)
        raise ConfigError(
            f"pool.decode.tokenizer: {decode.tokenizer} cannot be read ({reason(error)}); give a tokenizer.json"
        ) from error
