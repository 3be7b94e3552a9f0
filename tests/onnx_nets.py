"""ONNX files for the tests: written by hand, node by node, or by torch's older exporter, which takes milliseconds."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor, nn

from poolscore.engine.model.dropout import ALPHA, DropoutMode
from poolscore.engine.model.probe import as_logits, call_model, make_dropout_live, probe_model
from poolscore.kernels.dropout_mask_numpy import keep_mask_numpy

FEATURES, HIDDEN, CLASSES = 6, 16, 3
ROWS = "N"

_rng = np.random.default_rng(0)
WEIGHTS = {
    "w": _rng.normal(size=(FEATURES, HIDDEN)).astype(np.float32),
    "v": _rng.normal(size=(HIDDEN, CLASSES)).astype(np.float32),
}


def node(op_type: str, inputs: Sequence[str], output: str | Sequence[str], **attributes: Any) -> NodeProto:
    outputs = [output] if isinstance(output, str) else output
    return helper.make_node(op_type, inputs, outputs, name=f"{op_type} of {outputs[0]}", **attributes)


def constant(output: str, value: Any, dtype: Any = np.float32) -> NodeProto:
    return helper.make_node("Constant", [], [output], value=numpy_helper.from_array(np.array(value, dtype)))


def model_of(
    nodes: Sequence[NodeProto],
    opset: int = 13,
    inputs: Mapping[str, tuple[Any, ...]] | None = None,
    outputs: Sequence[str] = ("logits",),
    dtype: int = TensorProto.FLOAT,
    weights: Mapping[str, NDArray[Any]] = WEIGHTS,
    domain: str = "com.microsoft",
) -> ModelProto:
    """A model of float inputs; only the weights that are read are kept."""
    read = {name for n in nodes for name in n.input}
    graph: GraphProto = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(k, dtype, v) for k, v in (inputs or {"x": (ROWS, FEATURES)}).items()],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items() if name in read],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(domain, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def mlp(dropout: Sequence[NodeProto], opset: int = 13, **options: Any) -> ModelProto:
    """x → w → relu → 'r', dropout nodes, 'd' → v → logits."""
    before = [node("MatMul", ["x", "w"], "h"), node("Relu", ["h"], "r")]
    return model_of([*before, *dropout, node("MatMul", ["d", "v"], "logits")], opset, **options)


def mlp_expected(x: Tensor, passes: int, p: float, keys: NDArray[np.uint64] | None = None) -> NDArray[np.float64]:
    """logits_NTC of `mlp` with one dropout, from the contract's numpy masks."""
    keep = keep_mask_numpy(0, 0, range(passes), HIDDEN, p, keys)
    if keys is None:
        keep = keep[None]
    hidden = np.maximum(x.double().numpy() @ WEIGHTS["w"].astype(np.float64), 0)
    return (hidden[:, None] * keep / (1 - p)) @ WEIGHTS["v"].astype(np.float64)


def write(model: ModelProto, folder: Path, name: str = "model.onnx") -> Path:
    path = folder / name
    onnx.save(model, path)
    return path


class _Live(nn.Module):
    """A model whose dropout calls, of all kinds, are made of live element-wise ones."""

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.names = names

    def forward(self, *tensors: Tensor) -> Tensor:
        with DropoutMode(_element_wise):
            return as_logits(call_model(self.model, dict(zip(self.names, tensors, strict=True))), len(tensors[0]))


def export(model: nn.Module, inputs: Mapping[str, Tensor], path: Path, opset: int = 17) -> Path:
    """Write a torch model with its dropout live; the one input without a name becomes 'x'."""
    make_dropout_live(model, probe_model(model, dict(inputs)).training)
    names = [name or "x" for name in inputs]
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # this exporter is deprecated, and talkative
        torch.onnx.export(
            _Live(model, list(inputs)),
            tuple(x.clone() for x in inputs.values()),
            str(path),
            dynamo=False,
            opset_version=opset,
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
            input_names=names,
            output_names=["logits"],
            dynamic_axes={name: {0: ROWS} for name in names},
        )
    return path


def _element_wise(kind: str, p: float, x: Tensor) -> Tensor:
    if kind in ("element", "attention"):
        return torch.dropout(x, p, True)
    ones = x.new_ones([*x.shape[:2], *[1] * (x.ndim - 2)]) if kind.startswith("feature") else torch.ones_like(x)
    dropped = torch.dropout(ones, p, True)
    if "alpha" not in kind:
        return x * dropped
    a = 1.0 / math.sqrt((ALPHA**2 * p + 1.0) * (1.0 - p))
    keep = (dropped > 0).to(x.dtype)
    return x * (keep * a) + ((keep - 1.0) * (ALPHA * a) + ALPHA * a * p)
