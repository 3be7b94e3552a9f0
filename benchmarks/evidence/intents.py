"""Customer questions of 77 kinds (Banking77): accuracy over labels, several ways of selecting against random.

    python benchmarks/evidence/intents.py --dir /tmp/intents             from 154 to 754 labels
    python benchmarks/evidence/intents.py --dir /tmp/intents --full      to 3,054

A small classifier: word vectors, summed, and two layers, all learned from the labelled texts. The words that it
knows are those of the whole pool, which takes no labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import experiment  # first: it sets the number of threads
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from curves import columns_table, mean_quality, minus_random, quality_at
from experiment import Experiment, Result, Setting
from loop import WITHOUT, Sections, Subject, inference, network
from mnist_data import balanced
from networks import IntentNet
from picture import plot
from text_data import ids_of, read_banking, word_tokenizer
from tokenizers import Tokenizer
from training import Steps, accuracy, save, train

CLASSES = 77
FIRST_PER_CLASS = 2
LENGTH = 32  # words of a text; 94 % are no longer, the others are cut
METHODS: dict[str, Sections] = {
    "bald": {"select": {"score": "bald"}},
    "power": {"select": {"score": "bald", "method": "power"}},
    "margin": {"select": {"score": "margin"}},
    "random": {"select": {"score": "random"}, "passes": {"count": 1}},
}


@dataclass(frozen=True)
class IntentSetting(Setting):
    passes: int = 20  # T
    steps: int = 300  # of training, with 64 texts each
    learning_rate: float = 3e-3


REDUCED = IntentSetting(labels=754, step=100, device="cpu")
FULL = IntentSetting(labels=3054, step=100, device="cuda")


def prepare(folder: Path, data: Path, setting: IntentSetting) -> None:
    """The training texts as a pool, the tokenizer, and both parts as token ids."""
    texts = {part: read_banking(data, part) for part in ("train", "test")}
    tokenizer = word_tokenizer(texts["train"][0])
    tokenizer.save(str(folder / "tokenizer.json"))
    for part, (said, intents) in texts.items():
        np.savez(folder / f"{part}.npz", x=ids_of(tokenizer, said, LENGTH), y=intents)
        pq.write_table(pa.table({"id": np.arange(len(said)), "text": said}), folder / f"{part}.parquet")


def subject(folder: Path, setting: IntentSetting, method: str, seed: int) -> Subject:
    """The intents, learned from word vectors."""
    train_x, train_y, test_x, test_y = (
        torch.from_numpy(np.load(folder / f"{part}.npz")[kind]).to(setting.device)
        for part in ("train", "test")
        for kind in "xy"
    )
    words = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab_size()
    recipe = Steps(setting.steps, batch=64, learning_rate=setting.learning_rate)

    def fit(ids: Sequence[int], seed: int, weights: Path) -> float:
        model = train(partial(IntentNet, words, CLASSES), train_x[list(ids)], train_y[list(ids)], recipe, seed)
        save(model, weights)
        return accuracy(model, test_x, test_y)

    return Subject(
        config={
            "pool": {"uri": str(folder / "train.parquet"), "input": "text", "decode": text_decode(folder)},
            **network("IntentNet", "multiclass", CLASSES, words=words, classes=CLASSES),
            **inference(setting.passes, setting.device),
            **WITHOUT,
        },
        train=fit,
        start=lambda seed: balanced(train_y.cpu().numpy(), FIRST_PER_CLASS, seed),
    )


def text_decode(folder: Path) -> dict[str, object]:
    """Texts to ids, for the network's one argument."""
    tokenizer = str(folder / "tokenizer.json")
    return {"kind": "text", "tokenizer": tokenizer, "length": LENGTH, "truncation": True, "mask": None}


def table(result: Result) -> str:
    """Accuracy on the way."""
    stops = [quality_at(labels) for labels in (154, 354, 554, 754)]
    return columns_table(result["curves"], *stops, mean_quality(), minus_random(result["curves"]))


def picture(result: Result, out: Path) -> None:
    """Accuracy over labels."""
    plot(result["curves"], out, "Banking77, 100 texts at a time", "test accuracy")


EXPERIMENT = Experiment(
    name="intents",
    data="banking77",
    methods=METHODS,
    reduced=REDUCED,
    full=FULL,
    prepare=prepare,
    subject=subject,
    table=table,
    plot=picture,
    authors={},
)

if __name__ == "__main__":
    experiment.main(EXPERIMENT, __doc__)
