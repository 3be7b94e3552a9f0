"""Banking77, and a tokenizer of its words."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers


def read_banking(folder: Path, part: str) -> tuple[list[str], list[int]]:
    """The questions and their intents; `part` is train or test."""
    intents = json.loads((folder / "categories.json").read_text())
    with gzip.open(folder / f"{part}.csv.gz", "rt", newline="") as file:
        rows = list(csv.DictReader(file))
    return [row["text"] for row in rows], [intents.index(row["category"]) for row in rows]


def word_tokenizer(texts: list[str]) -> Tokenizer:
    """Whole words in lower case that are there twice or more; 0 pads and 1 is any other word."""
    made = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.train_from_iterator(texts, trainers.WordLevelTrainer(min_frequency=2, special_tokens=["[PAD]", "[UNK]"]))
    return made


def ids_of(tokenizer: Tokenizer, texts: list[str], length: int) -> list[list[int]]:
    """As poolscore's `text` decodes them: cut and padded on the right."""
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(length=length, pad_id=0, pad_token="[PAD]")
    return [one.ids for one in tokenizer.encode_batch(texts)]
