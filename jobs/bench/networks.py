"""Built-in networks with random weights from a fixed seed: speed depends on shapes, not on what was learned.

Shapes are those of the papers: ResNet (He et al. 2016, in its v1.5 form) with dropout before its head, VGG-16 (Simonyan
and Zisserman 2015), ViT-B/16 (Dosovitskiy et al. 2021) and BERT-base (Devlin et al. 2019) with dropout everywhere, as
they were trained, and a perceptron.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

CLASSES = 1000
BRANCH_SCALE = 0.2  # of a residual branch, so that many of them do not blow up the activations of random weights
HEAD_STD = 0.2  # of the head's weights, which makes logits of about ±1
VGG = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)  # channels; 0: max-pooling
WIDTH, HEADS, DEPTH, PATCH = 768, 12, 12, 16  # of ViT-B/16; the first three of BERT-base, too
VOCABULARY, POSITIONS = 30_522, 512


def resnet18(classes: int = CLASSES) -> nn.Module:
    """Pictures [N, 3, H, W] → logits [N, classes]; 3.6 GFLOP a row at 224x224."""
    return _seeded(lambda: _resnet(Basic, (2, 2, 2, 2), classes))


def resnet50(classes: int = CLASSES) -> nn.Module:
    """Pictures [N, 3, H, W] → logits [N, classes]; 8.2 GFLOP a row at 224x224, all but 0.05 % before the dropout."""
    return _seeded(lambda: _resnet(Bottleneck, (3, 4, 6, 3), classes))


def vgg16(classes: int = CLASSES) -> nn.Module:
    """Pictures [N, 3, H, W] → logits [N, classes]; dropout 0.5 behind the first two of three large Linear layers."""

    def make() -> nn.Module:
        layers: list[nn.Module] = []
        channels = 3
        for out in VGG:
            layers += [nn.Conv2d(channels, out, 3, padding=1), nn.ReLU(inplace=True)] if out else [nn.MaxPool2d(2)]
            channels = out or channels
        layers += [nn.AdaptiveAvgPool2d(7), nn.Flatten()]
        for inputs in (512 * 49, 4096):
            layers += [nn.Linear(inputs, 4096), nn.ReLU(inplace=True), nn.Dropout(0.5)]
        return nn.Sequential(*layers, nn.Linear(4096, classes))

    return _seeded(make)


def vit_b16(classes: int = CLASSES, pixels: int = 224) -> nn.Module:
    """Pictures [N, 3, pixels, pixels] → logits [N, classes]; dropout 0.1 from the first layer on."""
    return _seeded(lambda: VisionTransformer(classes, pixels))


def bert_base(classes: int = 77) -> nn.Module:
    """input_ids, attention_mask int64 [N, L] → logits [N, classes]; dropout 0.1 from the first layer on."""
    return _seeded(lambda: Bert(classes))


def mlp(classes: int = 10, features: int = 64, width: int = 512) -> nn.Module:
    """Features [N, F] → logits [N, classes]; dropout 0.5 behind both hidden layers."""

    def make() -> nn.Module:
        layers: list[nn.Module] = []
        for inputs in (features, width):
            layers += [nn.Linear(inputs, width), nn.ReLU(), nn.Dropout(0.5)]
        return nn.Sequential(*layers, nn.Linear(width, classes))

    return _seeded(make)


class Basic(nn.Module):
    """x + branch(x); two 3x3 convolutions, the first with the stride."""

    expansion = 1

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            *conv_norm(channels, width, 3, stride), nn.ReLU(inplace=True), *conv_norm(width, width, 3, 1, BRANCH_SCALE)
        )
        self.shortcut = _shortcut(channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.shortcut(x) + self.branch(x))


class Bottleneck(nn.Module):
    """x + branch(x); 1x1, 3x3 (with the stride), 1x1 convolutions."""

    expansion = 4

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        out = width * self.expansion
        self.branch = nn.Sequential(
            *conv_norm(channels, width, 1),
            nn.ReLU(inplace=True),
            *conv_norm(width, width, 3, stride),
            nn.ReLU(inplace=True),
            *conv_norm(width, out, 1, 1, BRANCH_SCALE),
        )
        self.shortcut = _shortcut(channels, out, stride)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.shortcut(x) + self.branch(x))


class VisionTransformer(nn.Module):
    """Patches as tokens, a token for the class before them, an encoder, a head on that token."""

    def __init__(self, classes: int, pixels: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, PATCH, stride=PATCH)
        self.of_class = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.positions = nn.Parameter(torch.randn(1, 1 + (pixels // PATCH) ** 2, WIDTH) * 0.02)
        self.dropout = nn.Dropout(0.1)
        self.encoder = nn.Sequential(*(EncoderLayer(norm_first=True) for _ in range(DEPTH)))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, classes)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.of_class.expand(len(x), -1, -1), tokens], dim=1) + self.positions
        logits: Tensor = self.head(self.norm(self.encoder(self.dropout(tokens)))[:, 0])
        return logits


class Bert(nn.Module):
    """Words and places as tokens, an encoder, a pooler and a head on the first token."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, WIDTH)
        self.places = nn.Embedding(POSITIONS, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.dropout = nn.Dropout(0.1)
        self.encoder = nn.ModuleList(EncoderLayer(norm_first=False) for _ in range(DEPTH))
        self.pooler = nn.Linear(WIDTH, WIDTH)
        self.head_dropout = nn.Dropout(0.1)
        self.head = nn.Linear(WIDTH, classes)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        x = self.dropout(self.norm(self.words(input_ids) + self.places(places)))
        visible = attention_mask.bool()[:, None, None]
        for layer in self.encoder:
            x = layer(x, visible)
        logits: Tensor = self.head(self.head_dropout(torch.tanh(self.pooler(x[:, 0]))))
        return logits


class EncoderLayer(nn.Module):
    """Self-attention and a perceptron, each in a residual branch with dropout; also on the attention's weights."""

    def __init__(self, norm_first: bool) -> None:
        super().__init__()
        self.norm_first = norm_first
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(2))
        self.perceptron = nn.Sequential(
            nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Dropout(0.1), nn.Linear(4 * WIDTH, WIDTH)
        )
        self.dropouts = nn.ModuleList(nn.Dropout(0.1) for _ in range(3))

    def forward(self, x: Tensor, visible: Tensor | None = None) -> Tensor:
        if self.norm_first:
            x = x + self.dropouts[1](self._attend(self.norms[0](x), visible))
            return torch.add(x, self.dropouts[2](self.perceptron(self.norms[1](x))))
        x = self.norms[0](x + self.dropouts[1](self._attend(x, visible)))
        return torch.as_tensor(self.norms[1](x + self.dropouts[2](self.perceptron(x))))

    def _attend(self, x: Tensor, visible: Tensor | None) -> Tensor:
        rows, length, _ = x.shape
        q, k, v = self.qkv(x).view(rows, length, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-1, -2)) / (WIDTH // HEADS) ** 0.5
        if visible is not None:
            weights = weights.masked_fill(~visible, float("-inf"))
        attended = self.dropouts[0](weights.softmax(-1)) @ v
        out: Tensor = self.out(attended.transpose(1, 2).reshape(rows, length, WIDTH))
        return out


def conv_norm(channels: int, out: int, size: int, stride: int = 1, scale: float = 1.0) -> tuple[nn.Module, nn.Module]:
    """A convolution that keeps the size (but for the stride), then BatchNorm."""
    norm = nn.BatchNorm2d(out)
    nn.init.constant_(norm.weight, scale)
    return nn.Conv2d(channels, out, size, stride, padding=size // 2, bias=False), norm


def _shortcut(channels: int, out: int, stride: int) -> nn.Module:
    changes = stride > 1 or channels != out
    return nn.Sequential(*conv_norm(channels, out, 1, stride)) if changes else nn.Identity()


def _resnet(block: type[Basic | Bottleneck], counts: tuple[int, ...], classes: int) -> nn.Module:
    blocks: list[nn.Module] = []
    channels = 64
    for stage, count in enumerate(counts):
        for place in range(count):
            blocks.append(block(channels, 64 << stage, stride=2 if stage and not place else 1))
            channels = (64 << stage) * block.expansion
    head = nn.Linear(channels, classes)
    nn.init.normal_(head.weight, std=HEAD_STD)
    stem = (*conv_norm(3, 64, 7, stride=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, stride=2, padding=1))
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5), head)


def _seeded(make: Callable[[], nn.Module]) -> nn.Module:
    """The same weights in every process; convolutions as He et al. 2015 begin, so that deep nets keep their scale."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = make()
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return model.eval().requires_grad_(False)
