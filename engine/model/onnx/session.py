"""ONNX Runtime on torch tensors: inputs and outputs stay where they are, nothing is copied."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import ModelProto, TensorProto, ValueInfoProto, helper
from torch import Tensor

from poolscore.engine.config_text import one_line
from poolscore.engine.errors import ConfigError
from poolscore.engine.model.onnx.wiring import LEAST_IR_VERSION

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
# True fp32, and convolutions that are not chosen by timing: as for torch (`numeric_settings`).
CUDA_OPTIONS = {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}
# Of ONNX Runtime's log. Errors are raised as well, but for what keeps a provider from being loaded.
ERRORS, FATAL = 3, 4
SEEN = "poolscore/seen/"  # begins the names of values that are made outputs in order to look at them
LARGEST_MESSAGE = 2_000_000_000  # bytes of weights; a protobuf message holds 2 GiB
DTYPES: dict[int, torch.dtype] = {
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
    """A model on one device, as a function of tensors there. Takes the number of CPU threads that torch has now.

    Attributes:
        inputs: ONNX's number of the type of each, by name.
    """

    def __init__(self, model: ModelProto, device: torch.device) -> None:
        self._device = device
        self._session = _open(model, device, onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL)
        self.inputs = _types(self._session.get_inputs())
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
            assert (x.dtype, x.device.type) == (DTYPES[self.inputs[name]], self._device.type)
            binding.bind_input(name, *self._place(), self.inputs[name], tuple(x.shape), x.data_ptr())
        for name, x in results.items():
            binding.bind_output(name, *self._place(), self._outputs[name], tuple(x.shape), x.data_ptr())
        if self._device.type == "cuda":
            torch.cuda.current_stream(self._device).synchronize()  # ONNX Runtime has a stream of its own
        self._session.run_with_iobinding(binding)
        return list(results.values())

    def _place(self) -> tuple[str, int]:
        return self._device.type, self._device.index or 0


def run_each(model: ModelProto, batches: Iterable[Mapping[str, Tensor]], outputs: Sequence[str]) -> list[list[Any]]:
    """Some outputs of a model as NumPy arrays, for each of a few batches on the CPU; for a look."""
    if not outputs:  # which ONNX Runtime refuses
        return [[] for _ in batches]
    session = _open(model, torch.device("cpu"), onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL)
    arrays = [{name: np.ascontiguousarray(x.numpy()) for name, x in inputs.items()} for inputs in batches]
    return [session.run(list(outputs), inputs) for inputs in arrays]


def types_of_outputs(model: ModelProto) -> dict[str, int]:
    """The types that ONNX Runtime infers for a model's outputs; nothing is run."""
    if not model.graph.output:
        return {}
    session = _open(model, torch.device("cpu"), onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL)
    return _types(session.get_outputs())


def require_device(device: torch.device) -> None:
    """Try the device on a graph that does nothing.

    Raises:
        ConfigError: ONNX Runtime cannot use it here.
    """
    one = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "", [one], [ValueInfoProto(name="y")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=LEAST_IR_VERSION)
    session = _open(model, device, onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL)
    if session.get_providers()[0] != PROVIDERS[device.type]:
        raise ConfigError(
            f"run.device: ONNX Runtime {onnxruntime.__version__} cannot use CUDA here; install an onnxruntime-gpu that "
            f"is built for torch's CUDA ({torch.version.cuda}), or set run.device: cpu"
        )


def _open(model: ModelProto, device: torch.device, optimise: Any) -> Any:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = optimise
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    options.log_severity_level = ERRORS if device.type == "cuda" else FATAL
    options.add_session_config_entry("session.force_spinning_stop", "1")  # between runs the cores are torch's
    providers: list[Any] = [PROVIDERS["cpu"]]
    if device.type == "cuda":
        onnxruntime.preload_dlls()  # finds the libraries that torch brought
        providers.insert(0, (PROVIDERS["cuda"], {"device_id": str(device.index or 0), **CUDA_OPTIONS}))
    try:
        with _as_onnx_runtime_takes_it(model) as taken:
            return onnxruntime.InferenceSession(taken, options, providers=providers)
    except Exception as error:
        raise ConfigError(f"model.source: ONNX Runtime does not take it: {one_line(str(error))}") from error


@contextmanager
def _as_onnx_runtime_takes_it(model: ModelProto) -> Iterator[bytes | str]:
    """The model as bytes; or as a file with its weights beside it, where they are too large for one message."""
    if sum(len(weight.raw_data) for weight in model.graph.initializer) < LARGEST_MESSAGE:
        yield model.SerializeToString()
        return
    with tempfile.TemporaryDirectory(prefix="poolscore-") as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(model, path, save_as_external_data=True, location="weights")
        yield str(path)


def _types(values: Sequence[Any]) -> dict[str, int]:
    unknown = [value for value in values if value.type not in _TYPES]
    if unknown:
        name, what = unknown[0].name.removeprefix(SEEN), unknown[0].type
        raise ConfigError(f"model.source: its value '{name}' is a {what}, which torch has not")
    return {value.name: _TYPES[value.type] for value in values}
