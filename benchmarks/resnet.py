"""ResNet-50 (He et al. 2016, Deep Residual Learning, in its v1.5 form) with dropout before its head; random weights.

8.2 GFLOP a row at 224x224, all but 0.05 % of them before the dropout.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

CLASSES = 1000
STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))  # width, blocks
EXPANSION = 4
HEAD_STD = 0.2  # of the weights, which makes logits of about ±1
BRANCH_SCALE = 0.2  # of a residual branch, so that sixteen of them do not blow up the activations of random weights


class Bottleneck(nn.Module):
    """x + branch(x); 1x1, 3x3 (with the stride), 1x1 convolutions."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        out = width * EXPANSION
        self.branch = nn.Sequential(
            *conv_norm(channels, width, 1),
            nn.ReLU(inplace=True),
            *conv_norm(width, width, 3, stride),
            nn.ReLU(inplace=True),
            *conv_norm(width, out, 1, scale=BRANCH_SCALE),
        )
        changes = stride > 1 or channels != out
        self.shortcut = nn.Sequential(*conv_norm(channels, out, 1, stride)) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.shortcut(x) + self.branch(x))


def conv_norm(channels: int, out: int, size: int, stride: int = 1, scale: float = 1.0) -> tuple[nn.Module, nn.Module]:
    """A convolution that keeps the size (but for the stride), then BatchNorm."""
    norm = nn.BatchNorm2d(out)
    nn.init.constant_(norm.weight, scale)
    return nn.Conv2d(channels, out, size, stride, padding=size // 2, bias=False), norm


def resnet50() -> nn.Sequential:
    """Pictures [N, 3, 224, 224] → logits [N, CLASSES]; eval mode, the same weights in every process."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        blocks: list[nn.Module] = []
        channels = 64
        for stage, (width, count) in enumerate(STAGES):
            for block in range(count):
                blocks.append(Bottleneck(channels, width, stride=2 if stage and not block else 1))
                channels = width * EXPANSION
        model = nn.Sequential(
            *conv_norm(3, 64, 7, stride=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2, padding=1),
            *blocks,
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(0.5),
            nn.Linear(channels, CLASSES),
        )
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=HEAD_STD)
    return model.eval().requires_grad_(False)


def export_onnx(path: Path, pixels: int) -> Path:
    """The same model as an ONNX file, its dropout kept live.

    Raises:
        ImportError: onnxscript is missing.
    """
    model = resnet50()
    for module in model.modules():
        module.training = isinstance(module, nn.Dropout)  # the exporter keeps what is in training mode
    rows = torch.export.Dim("rows", min=2, max=1 << 20)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about its own modules
        torch.onnx.export(
            model,
            (torch.zeros(2, 3, pixels, pixels),),
            str(path),
            input_names=["picture"],
            output_names=["logits"],
            dynamic_shapes=({0: rows},),
            dynamo=True,
            optimize=False,
            external_data=False,
            verbose=False,
        )
    return path
