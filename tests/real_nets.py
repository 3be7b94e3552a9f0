"""Models of the kinds that people really use, small and with random weights, each with the inputs of a few rows."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from dropout_nets import Fn
from torch import Tensor, nn

from poolscore.engine.model.recurrent import split_recurrent_layers

os.environ["HF_HUB_OFFLINE"] = "1"

Inputs = dict[str, Tensor]


def plain_cnn() -> nn.Module:
    """The small CNN of the benchmark, on 12x12."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.25), nn.Flatten(),
        nn.Linear(256, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 10),
    )  # fmt: skip


class Block(nn.Module):
    """A basic block of a ResNet; `p` drops whole channels in its residual branch."""

    def __init__(self, inputs: int, outputs: int, stride: int, p: float = 0.0) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs))
        self.drop = nn.Dropout2d(p)
        self.second = nn.Sequential(nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs))
        self.skip = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.second(self.drop(F.relu(self.first(x)))) + self.skip(x))


def resnet(head: float = 0.5, branch: float = 0.0) -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        h = self.blocks(F.max_pool2d(self.stem(x), 2))
        return self.head(F.dropout(h.mean((2, 3)), head, training=self.training))

    blocks = nn.Sequential(Block(8, 8, 1, branch), Block(8, 16, 2, branch), Block(16, 32, 2, branch))
    stem = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
    return Fn(forward, stem=stem, blocks=blocks, head=nn.Linear(32, 10))


def vgg() -> nn.Module:
    features = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(True), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(True),
        nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
    )  # fmt: skip
    return nn.Sequential(
        features, nn.Linear(64, 48), nn.ReLU(True), nn.Dropout(), nn.Linear(48, 48), nn.ReLU(True), nn.Dropout(),
        nn.Linear(48, 10),
    )  # fmt: skip


def early_dropout2d() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.Dropout2d(0.2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(72, 10),
    )  # fmt: skip


def transformer_encoder() -> nn.Module:
    def forward(self: Any, tokens: Tensor, lengths: Tensor) -> Tensor:
        padding = torch.arange(tokens.shape[1]) >= lengths[:, None]
        h = self.encoder(self.embed(tokens), src_key_padding_mask=padding)
        return self.head(h.masked_fill(padding[..., None], 0).sum(1) / lengths[:, None])

    layer = nn.TransformerEncoderLayer(24, 4, 32, 0.1, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
    return Fn(forward, embed=nn.Embedding(30, 24), encoder=encoder, head=nn.Linear(24, 5))


def bert() -> nn.Module:
    return _bert(vocab_size=30, max_position_embeddings=16)


def bert_of_words() -> nn.Module:
    """For the vocabulary of a small tokenizer."""
    return _bert(vocab_size=500, max_position_embeddings=40)


def _bert(**sizes: int) -> nn.Module:
    hf = pytest.importorskip("transformers")
    return hf.BertForSequenceClassification(
        hf.BertConfig(
            **sizes, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=48, num_labels=5,
            initializer_range=0.3,
        )
    )  # fmt: skip


def vit() -> nn.Module:
    hf = pytest.importorskip("transformers")
    return hf.ViTForImageClassification(
        hf.ViTConfig(
            hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=48, image_size=12,
            patch_size=4, num_labels=5, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1,
            initializer_range=0.3,
        )
    )  # fmt: skip


def lstm() -> nn.Module:
    def forward(self: Any, tokens: Tensor) -> Tensor:
        output, (h, _) = self.lstm(self.embed(tokens))
        return self.head(self.drop(torch.cat([h[-1], output.mean(1)], 1)))

    parts = {"lstm": nn.LSTM(12, 16, 3, batch_first=True, dropout=0.3), "drop": nn.Dropout(0.2)}
    model = Fn(forward, embed=nn.Embedding(30, 12), head=nn.Linear(32, 5), **parts)
    split_recurrent_layers(model)
    return model


def picture_and_table() -> nn.Module:
    def forward(self: Any, picture: Tensor, tokens: Tensor, numbers: Tensor) -> Tensor:
        h = torch.cat([self.picture(picture), self.embed(tokens).mean(1), numbers], 1)
        return self.head(self.drop(self.both(self.drop(h)).relu()))

    picture = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
    return Fn(
        forward, picture=picture, embed=nn.Embedding(30, 8), both=nn.Linear(16 + 8 + 3, 32), drop=nn.Dropout(0.4),
        head=nn.Linear(32, 5),
    )  # fmt: skip


@dataclass(frozen=True)
class Net:
    """A model, its inputs, and how often it drops."""

    build: Callable[[], nn.Module]
    inputs_of: Callable[[int, torch.Generator], Inputs]
    layers: int

    def model(self) -> nn.Module:
        """In eval mode; BatchNorm has seen data."""
        torch.manual_seed(5)
        model = self.build().eval().requires_grad_(False)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.uniform_(-0.3, 0.3)
                module.running_var.uniform_(0.5, 2.0)
        return model

    def inputs(self, rows: int, dtype: torch.dtype = torch.float32, seed: int = 3) -> Inputs:
        made = self.inputs_of(rows, torch.Generator().manual_seed(seed))
        return {name: x.to(dtype) if x.is_floating_point() else x for name, x in made.items()}


def normal(*shape: int) -> Callable[[int, torch.Generator], Inputs]:
    return lambda rows, g: {"": torch.randn(rows, *shape, generator=g, dtype=torch.float64)}


def tokens(rows: int, g: torch.Generator) -> Tensor:
    return torch.randint(0, 30, (rows, 7), generator=g)


def tokens_and_mask(rows: int, g: torch.Generator) -> Inputs:
    lengths = torch.randint(1, 8, (rows, 1), generator=g)
    return {"input_ids": tokens(rows, g), "attention_mask": (torch.arange(7) < lengths).long()}


def tokens_and_lengths(rows: int, g: torch.Generator) -> Inputs:
    return {"tokens": tokens(rows, g), "lengths": torch.randint(1, 8, (rows,), generator=g)}


def three(rows: int, g: torch.Generator) -> Inputs:
    picture, numbers = torch.randn(rows, 1, 8, 8, generator=g), torch.randn(rows, 3, generator=g)
    return {"picture": picture.double(), "tokens": tokens(rows, g), "numbers": numbers.double()}


NETS: dict[str, Net] = {
    "plain CNN": Net(plain_cnn, normal(1, 12, 12), 2),
    "ResNet, dropout before the head": Net(resnet, normal(3, 16, 16), 1),
    "ResNet, Dropout2d in the branches": Net(lambda: resnet(0.3, 0.1), normal(3, 16, 16), 4),
    "VGG": Net(vgg, normal(3, 12, 12), 2),
    "Dropout2d early": Net(early_dropout2d, normal(3, 10, 10), 1),
    "TransformerEncoder": Net(transformer_encoder, tokens_and_lengths, 4),
    "Hugging Face BERT": Net(bert, tokens_and_mask, 5),
    "Hugging Face ViT": Net(vit, lambda rows, g: {"pixel_values": normal(3, 12, 12)(rows, g)[""]}, 4),
    "LSTM": Net(lstm, lambda rows, g: {"": tokens(rows, g)}, 3),
    "pictures, tokens and numbers": Net(picture_and_table, three, 2),
}
