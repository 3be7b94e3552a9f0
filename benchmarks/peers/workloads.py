"""What every contestant scores: four networks, and what a row of their pools is. Plain torch, for any interpreter."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor, nn

PASSES = 20  # T
DEVICE = os.environ.get("PEERS_DEVICE", "cpu")  # as `bench_peers.py --device` has it: who needs no library obeys
torch.backends.cudnn.allow_tf32 = False  # which torch has on: on a GPU, float32 is to be the same for everybody
CLASSES = 10  # but for ResNet-50, which has 1,000
GREY_MEAN, GREY_STD = 33.3, 78.6  # of MNIST, as 0 … 255
RGB_MEAN, RGB_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet
JPEG_PIXELS, PIXELS = 256, 224  # edge of a JPEG, and of the middle that the network sees
FEATURES = 64
VOCABULARY, LENGTH = 1000, 32  # token ids, all of them read
WIDTH, HEADS, DEPTH = 128, 4, 4  # of the transformer


def _bench_networks() -> Any:
    """Those of `poolscore bench`, by their file: the peers' interpreter has no poolscore."""
    file = Path(__file__).parents[2] / "jobs" / "bench" / "networks.py"
    spec = spec_from_file_location("bench_networks", file)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


BENCH = _bench_networks()


@dataclass(frozen=True)
class Workload:
    """A network and its pool."""

    about: str
    network: Callable[[], nn.Sequential]
    cut: bool  # a user who cuts the network before its first dropout by hand saves something
    decode: Callable[[pa.Table], Tensor]  # columns of the pool → what the network takes
    pool: Mapping[str, Any]  # poolscore's section `pool` without its uri
    batch: int  # rows
    rows: int  # that are scored by those who do not run the whole network T times
    few: int  # that are scored by the others

    def load_network(self, folder: Path) -> nn.Sequential:
        """The network with the weights of this comparison."""
        network = self.network()
        network.load_state_dict(torch.load(folder / "weights.pt", weights_only=True))
        return network.eval().requires_grad_(False).to(DEVICE)

    def load_pool(self, folder: Path, rows: int) -> Tensor:
        """The first rows of the pool as the network takes them."""
        return self.decode(pq.read_table(pool_file(folder, rows)))


def pool_file(folder: Path, rows: int) -> Path:
    """The pool's first rows, as the one file of a folder."""
    return folder / f"pool-{rows}" / "part-0.parquet"


def frontier(network: nn.Sequential) -> int:
    """Layers before the first dropout."""
    return next(place for place, layer in enumerate(network) if isinstance(layer, nn.Dropout))


def small_cnn() -> nn.Sequential:
    """[N, 1, 28, 28] → logits [N, 10]."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout(0.25),
        nn.Flatten(),
        nn.Linear(64 * 12 * 12, 128),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(128, CLASSES),
    )


def resnet() -> nn.Sequential:
    """[N, 3, 224, 224] → logits [N, 1000]."""
    network: nn.Sequential = BENCH.resnet50()
    return network


def perceptron() -> nn.Sequential:
    """[N, 64] → logits [N, 10]."""
    network: nn.Sequential = BENCH.mlp(CLASSES, FEATURES)
    return network.requires_grad_(True)


def transformer() -> nn.Sequential:
    """Token ids [N, 32] → logits [N, 10]; dropout behind the first layer, and in every layer from there on."""
    layers = (EncoderLayer() for _ in range(DEPTH))
    return nn.Sequential(
        Embedding(), nn.Dropout(0.1), *layers, FirstToken(), nn.Dropout(0.1), nn.Linear(WIDTH, CLASSES)
    )


class Embedding(nn.Module):
    """Of words and places."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(VOCABULARY, WIDTH), nn.Parameter(torch.randn(LENGTH, WIDTH) * 0.02)
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, tokens: Tensor) -> Tensor:
        return torch.as_tensor(self.norm(self.words(tokens) + self.places))


class EncoderLayer(nn.Module):
    """Attention and a perceptron in residual branches, with dropout as BERT has it: on the attention's weights, too.

    torch's own layer takes a fused path in eval mode that knows no dropout: half of the peers would score without any.
    """

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(2))
        self.dropouts = nn.ModuleList(nn.Dropout(0.1) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).view(-1, LENGTH, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        weights = self.dropouts[0](((q @ k.transpose(-1, -2)) * (WIDTH // HEADS) ** -0.5).softmax(-1))
        x = self.norms[0](x + self.dropouts[1](self.out((weights @ v).transpose(1, 2).reshape(-1, LENGTH, WIDTH))))
        return torch.as_tensor(self.norms[1](x + self.dropouts[2](self.down(nn.functional.gelu(self.up(x))))))


class FirstToken(nn.Module):
    """[N, L, D] → [N, D]."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, 0]


def decode_pixels(table: pa.Table) -> Tensor:
    """Lists of 784 bytes → [N, 1, 28, 28]."""
    pixels = _lists(table["pixels"]).reshape(-1, 1, 28, 28).astype(np.float32)
    return torch.from_numpy((pixels - GREY_MEAN) / GREY_STD).float()


def decode_jpegs(table: pa.Table) -> Tensor:
    """JPEGs → their middle, [N, 3, 224, 224]."""
    edge = (JPEG_PIXELS - PIXELS) // 2
    box = (edge, edge, edge + PIXELS, edge + PIXELS)
    pictures = [Image.open(io.BytesIO(data)).convert("RGB").crop(box) for data in table["image"].to_pylist()]
    x = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])).permute(0, 3, 1, 2).float()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (RGB_MEAN, RGB_STD))
    return ((x / 255 - mean) / std).contiguous()


def decode_tokens(table: pa.Table) -> Tensor:
    """Lists of 32 token ids → int64 [N, 32]."""
    return torch.from_numpy(_lists(table["tokens"]).reshape(-1, LENGTH).astype(np.int64))


def decode_features(table: pa.Table) -> Tensor:
    """64 columns → [N, 64]."""
    return torch.from_numpy(np.stack([table[f"f{i}"].to_numpy() for i in range(FEATURES)], axis=1))


def _lists(column: pa.Array | pa.ChunkedArray) -> Any:
    return (column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column).flatten().to_numpy()


WORKLOADS = {
    "cnn": Workload(
        "small CNN of two convolutions on pictures of 28x28",
        small_cnn,
        cut=True,
        decode=decode_pixels,
        pool={
            "input": "pixels",
            "decode": {"kind": "tensor", "shape": [1, 28, 28], "mean": [GREY_MEAN], "std": [GREY_STD]},
        },
        batch=64,
        rows=5000,
        few=512,
    ),
    "resnet50": Workload(
        "ResNet-50 with dropout before its head on the middle 224x224 of JPEGs of 256x256",
        resnet,
        cut=True,
        decode=decode_jpegs,
        pool={
            "input": "image",
            "decode": {"kind": "image", "crop": PIXELS, "mean": list(RGB_MEAN), "std": list(RGB_STD)},
        },
        batch=8,
        rows=1024,
        few=8,
    ),
    "transformer": Workload(
        "transformer encoder of 4 layers on 32 token ids, dropout 0.1 everywhere",
        transformer,
        cut=False,
        decode=decode_tokens,
        pool={"input": "tokens", "decode": {"kind": "tensor", "shape": [LENGTH], "dtype": "int64"}},
        batch=64,
        rows=1024,
        few=256,
    ),
    "mlp": Workload(
        "perceptron of 64-512-512-10 on 64 columns of features",
        perceptron,
        cut=True,
        decode=decode_features,
        pool={"input": [f"f{i}" for i in range(FEATURES)], "decode": {"kind": "features"}},
        batch=256,
        rows=51_200,
        few=5120,
    ),
}

# A GPU takes larger batches, and is done with a small pool before it is warm: batch, rows, few.
ON_GPU = {
    "cnn": (1024, 102_400, 10_240),
    "resnet50": (256, 4096, 512),
    "transformer": (512, 20_480, 20_480),
    "mlp": (4096, 1_024_000, 409_600),
}
if DEVICE == "cuda":
    WORKLOADS = {
        name: replace(workload, batch=ON_GPU[name][0], rows=ON_GPU[name][1], few=ON_GPU[name][2])
        for name, workload in WORKLOADS.items()
    }
