"""ONNX Runtime on torch tensors: inputs and outputs stay where they are, nothing is copied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto
from torch import Tensor

from poolscore.engine.config_text import one_line
from poolscore.engine.errors import ConfigError

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
# True fp32, and convolutions that are not chosen by timing: as for torch (`numeric_settings`).
CUDA_OPTIONS = {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}
ERRORS_ONLY = 3  # of ONNX Runtime's log
DTYPES = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.DOUBLE: torch.float64,
    TensorProto.FLOAT16: torch.float16,
    TensorProto.BFLOAT16: torch.bfloat16,
    TensorProto.INT64: torch.int64,
    TensorProto.INT32: torch.int32,
    TensorProto.INT16: torch.int16,
    TensorProto.INT8: torch.int8,
    TensorProto.UINT8: torch.uint8,
    TensorProto.BOOL: torch.bool,
}
_TYPES = {f"tensor({TensorProto.DataType.Name(number).lower()})": number for number in DTYPES}


class Session:
    """A model on one device, as a function of tensors there. Takes the number of CPU threads that torch has now."""

    def __init__(self, model: ModelProto, device: torch.device) -> None:
        self._device = device
        self._session = _open(model, device, onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL)
        self._inputs = _types(self._session.get_inputs())
        self._outputs = _types(self._session.get_outputs())

    def run(self, inputs: Mapping[str, Tensor], shapes: Mapping[str, Sequence[int]]) -> list[Tensor]:
        """The outputs, whose shapes must be known.

        Args:
            inputs: contiguous tensors on the device, of the model's own types.
            shapes: of the outputs, by name.
        """
        binding = self._session.io_binding()
        results = {
            name: torch.empty(tuple(shape), dtype=DTYPES[self._outputs[name]], device=self._device)
            for name, shape in shapes.items()
        }
        for name, x in inputs.items():
            assert x.is_contiguous()
            assert (x.dtype, x.device.type) == (DTYPES[self._inputs[name]], self._device.type)
            binding.bind_input(name, *self._place(), self._inputs[name], tuple(x.shape), x.data_ptr())
        for name, x in results.items():
            binding.bind_output(name, *self._place(), self._outputs[name], tuple(x.shape), x.data_ptr())
        if self._device.type == "cuda":
            torch.cuda.current_stream(self._device).synchronize()  # ONNX Runtime has a stream of its own
        self._session.run_with_iobinding(binding)
        return list(results.values())

    def _place(self) -> tuple[str, int]:
        return self._device.type, self._device.index or 0


def run_once(model: ModelProto, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> list[NDArray[Any]]:
    """Some outputs of a model that is run a single time, on the CPU."""
    session = _open(model, torch.device("cpu"), onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL)
    results = session.run(list(outputs), {name: np.ascontiguousarray(x.numpy()) for name, x in inputs.items()})
    return [np.asarray(result) for result in results]


def types_of_outputs(model: ModelProto) -> dict[str, int]:
    """The types that ONNX Runtime infers for a model's outputs; nothing is run."""
    session = _open(model, torch.device("cpu"), onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL)
    return _types(session.get_outputs())


def _open(model: ModelProto, device: torch.device, optimise: Any) -> Any:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = optimise
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    options.log_severity_level = ERRORS_ONLY
    options.add_session_config_entry("session.force_spinning_stop", "1")  # between runs the cores are torch's
    provider = PROVIDERS[device.type]
    providers: list[Any] = [PROVIDERS["cpu"]]
    if device.type == "cuda":
        onnxruntime.preload_dlls()
        providers.insert(0, (provider, {"device_id": str(device.index or 0), **CUDA_OPTIONS}))
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=providers)
    except Exception as error:
        raise ConfigError(f"model.source: ONNX Runtime does not take it: {one_line(str(error))}") from error
    if session.get_providers()[0] != provider:
        raise ConfigError(
            f"run.device: ONNX Runtime {onnxruntime.__version__} cannot use CUDA here; install an onnxruntime-gpu that "
            f"is built for torch's CUDA ({torch.version.cuda}), or set run.device: cpu"
        )
    return session


def _types(values: Sequence[Any]) -> dict[str, int]:
    unknown = [value for value in values if value.type not in _TYPES]
    if unknown:
        raise ConfigError(f"model.source: its value '{unknown[0].name}' is a {unknown[0].type}, which torch has not")
    return {value.name: _TYPES[value.type] for value in values}
