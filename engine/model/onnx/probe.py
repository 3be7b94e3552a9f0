"""Find the dropout of an ONNX model by running it on a few rows. The rules are those of a torch model (`../probe.py`)."""

from __future__ import annotations

import torch
from onnx import TensorProto, ValueInfoProto, helper
from torch import Tensor

from poolscore.engine.config_text import one_line
from poolscore.engine.errors import ConfigError
from poolscore.engine.model.onnx.read import OnnxModel
from poolscore.engine.model.onnx.session import DTYPES, run_once, types_of_outputs
from poolscore.engine.model.onnx.split import neutral
from poolscore.engine.model.onnx.wiring import with_outputs
from poolscore.engine.model.probe import ROWS, Call, Inputs, Probe, as_logits, make_probe

FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)


def feed(model: OnnxModel, inputs: Inputs) -> dict[str, Tensor]:
    """The inputs under the names that they have in the file.

    Raises:
        ConfigError: they do not fit the file's inputs.
    """
    if "" in inputs:
        if len(model.inputs) != 1:
            raise ConfigError(f"{model.where} has the inputs {_names(model.inputs)}; give each in pool.inputs")
        inputs = {next(iter(model.inputs)): inputs[""]}
    if inputs.keys() != model.inputs.keys():
        raise ConfigError(f"pool.inputs: there are {_names(inputs)}, but the ONNX file has {_names(model.inputs)}")
    for name, x in inputs.items():
        _check(model.inputs[name], x)
    return {name: inputs[name].contiguous() for name in model.inputs}
