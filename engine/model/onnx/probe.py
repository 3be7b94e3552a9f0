"""Find the dropout of an ONNX model by running it on a few rows, by the rules for a torch model (`../probe.py`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from onnx import NodeProto, TensorProto, helper
from torch import Tensor

from poolscore.engine.config_text import one_line
from poolscore.engine.errors import ConfigError
from poolscore.engine.model.onnx.read import OnnxModel
from poolscore.engine.model.onnx.session import DTYPES, SEEN, run_each, types_of_outputs
from poolscore.engine.model.onnx.wiring import with_outputs
from poolscore.engine.model.probe import ROWS, Call, Inputs, Probe, Run, as_logits, compare_runs


def named(model: OnnxModel, inputs: Inputs) -> dict[str, Tensor]:
    """The inputs under the names that they have in the file, in its order.

    Raises:
        ConfigError: they are not the file's inputs.
    """
    if "" in inputs:
        if len(model.inputs) != 1:
            raise ConfigError(f"{model.where} has the inputs {_list(model.inputs)}; give each of them in pool.inputs")
        inputs = {next(iter(model.inputs)): inputs[""]}
    if inputs.keys() != model.inputs.keys():
        raise ConfigError(f"{model.where} has the inputs {_list(model.inputs)}, but pool.inputs has {_list(inputs)}")
    return {name: inputs[name].contiguous() for name in model.inputs}


def probe_onnx(model: OnnxModel, types: Mapping[str, int], inputs: Inputs) -> Probe:
    """See Network (`network.py`).

    Args:
        types: ONNX's numbers of the types of the output, and of what is dropped from.
        inputs: by their names in the file, on the CPU.
    """
    for name, x in inputs.items():
        _check_input(model, name, x)
    part = with_outputs(model.proto, [_shown(name, dtype) for name, dtype in types.items()])
    batches = [{name: x[:rows] for name, x in inputs.items()} for rows in ROWS]
    try:
        values = run_each(part, batches, [SEEN + name for name in types])
    except ConfigError:
        raise
    except Exception as error:
        shapes = ", ".join(f"{name} {list(x.shape[1:])} {x.dtype}" for name, x in inputs.items())
        raise ConfigError(
            f"{model.where} fails on {ROWS[0]} or {ROWS[1]} rows of {shapes} ({one_line(str(error))}); if it was "
            "exported for one number of rows, export it with a dynamic batch axis"
        ) from error
    first, second = (_as_run(model, types, seen, rows) for seen, rows in zip(values, ROWS, strict=True))
    return Probe(compare_runs(first, second), first.logits.shape[1], {})


def value_types(model: OnnxModel, names: Iterable[str]) -> dict[str, int]:
    """ONNX's numbers of the types of these values."""
    nodes = {name: helper.make_node("Identity", [name], [SEEN + name]) for name in names}
    types = types_of_outputs(with_outputs(model.proto, list(nodes.values())))
    return {name: types[SEEN + name] for name in nodes}


def _check_input(model: OnnxModel, name: str, x: Tensor) -> None:
    tensor = model.inputs[name].type.tensor_type
    wanted = DTYPES.get(tensor.elem_type)
    if x.dtype != wanted:
        raise ConfigError(
            f"{model.where}: its input '{name}' is {_type(wanted, tensor.elem_type)}, the pool gives {_type(x.dtype)}; "
            "say the right dtype where it is decoded"
        )
    sizes = [dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim]
    fits = len(sizes) == x.ndim and all(a in (None, b) for a, b in zip(sizes, x.shape, strict=True))
    if tensor.HasField("shape") and not fits:
        shown = ", ".join("…" if size is None else str(size) for size in sizes[1:])
        raise ConfigError(
            f"{model.where}: its input '{name}' is [N, {shown}], the pool gives [N, {', '.join(map(str, x.shape[1:]))}]"
        )


def _as_run(model: OnnxModel, types: Mapping[str, int], values: Sequence[Any], rows: int) -> Run:
    tensors = [torch.from_numpy(value).to(DTYPES[dtype]) for dtype, value in zip(types.values(), values, strict=True)]
    seen = dict(zip(types, tensors, strict=True))
    calls = [Call(drop.name, "element", drop.p, seen[drop.x]) for drop in model.drops]
    return Run(calls, as_logits(seen[model.output], rows))


def _shown(name: str, dtype: int) -> NodeProto:
    """Makes an output of a value; NumPy has no bfloat16."""
    if dtype == TensorProto.BFLOAT16:
        return helper.make_node("Cast", [name], [SEEN + name], to=TensorProto.FLOAT)
    return helper.make_node("Identity", [name], [SEEN + name])


def _type(dtype: torch.dtype | None, number: int = 0) -> str:
    return str(dtype).removeprefix("torch.") if dtype else TensorProto.DataType.Name(number)


def _list(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" if name else "one without a name" for name in names)
