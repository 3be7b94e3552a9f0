"""ResNet-50 as an ONNX file, its dropout kept live."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import nn

from poolscore.jobs.bench.networks import resnet50


def export_onnx(path: Path, pixels: int) -> Path:
    """The network of `poolscore bench resnet50` as an ONNX file, its dropout kept live.

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
