"""Write a model as a `.pt2` or `.onnx` file with its dropout live, whatever its training flags say.

The model is traced under the `DropoutMode` that finds and answers its calls elsewhere, so the file has the same dropout
layers in the same order, everything else in eval mode, and any number of rows. In a `.pt2` each kind of dropout is
torch's own operator. ONNX knows one kind, which draws per element: the others are made of it there, with the same draws
as in torch (`_onnx_dropout`), and attention is written out around it. ONNX Runtime's optimiser takes Dropout nodes out
whatever their training flag says (1.31, measured), so in other programs than this one it must be switched off.
"""

from __future__ import annotations

import importlib.util
import inspect
import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, export
from torch.nn import functional

from poolscore.engine.errors import ConfigError
from poolscore.engine.model.dropout import ALPHA, DropoutLayer, DropoutMode
from poolscore.engine.model.probe import Inputs, Probe, as_logits, probe_model
from poolscore.engine.model.program import load_program, needs_trust
from poolscore.engine.model.trace import MAX_ROWS, quietly

ATEN = torch.ops.aten
SUFFIXES = (".pt2", ".onnx")
OUTPUT = "logits"
ONE_FILE = 1 << 30  # bytes of weights; beyond that, ONNX keeps them in a file beside it (its format holds 2 GB)
OPERATORS = {
    "element": ATEN.dropout.default,
    "feature": ATEN.feature_dropout.default,
    "alpha": ATEN.alpha_dropout.default,
    "feature_alpha": ATEN.feature_alpha_dropout.default,
}


@dataclass(frozen=True)
class Exported:
    """What was written."""

    files: tuple[Path, ...]  # the model first
    layers: tuple[DropoutLayer, ...]  # kept live, in the order of execution
    inputs: tuple[str, ...]
    opset: int | None = None  # of ONNX
    trust: str | None = None  # of a .pt2: why it can only be opened with model.trust


def write_model(model: nn.Module, probe: Probe, sample: Inputs, path: Path) -> Exported:
    """Write a probed model.

    Args:
        sample: a few rows (at least 2), on the CPU as the model is.
        path: a `.pt2` or `.onnx` that is not there yet.

    Raises:
        ConfigError: it cannot be traced, or a dropout call would be lost; one line. Nothing is left behind.
    """
    onnx = path.suffix == ".onnx"
    if onnx and not all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript")):
        raise ConfigError("OUT: writing .onnx needs onnx and onnxscript: pip install 'poolscore[export]'")
    program = _export(model, sample, DropoutMode(_onnx_dropout) if onnx else _Kept(_torch_dropout))
    written = Exported((), probe.layers, _names(sample))
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as folder:
        draft = Path(folder) / path.name
        if onnx:
            opset, found = _write_onnx(program, draft)
            written = replace(written, opset=opset)
        else:
            torch.export.save(program, draft)
            reason = needs_trust(draft)
            reread = probe_model(load_program(draft, trust=reason is not None), sample).layers
            found = sum(replace(a, name=b.name) == b for a, b in zip(reread, probe.layers, strict=False))
            written = replace(written, trust=reason)
        if found != len(probe.layers):
            raise ConfigError(
                f"model: {len(probe.layers) - found} of its {len(probe.layers)} dropout calls lie where the exporter "
                "hides them, such as under torch.autocast or torch.cond; take them out of there"
            )
        files = sorted(Path(folder).iterdir(), key=lambda file: file != draft)
        return replace(written, files=tuple(file.replace(path.parent / file.name) for file in files))


def _names(sample: Inputs) -> tuple[str, ...]:
    return tuple(name or "input" for name in sample)


class _Kept(DropoutMode):
    """Leaves attention one operator, with its dropout."""

    def _attention(self, *args: Any, **kwargs: Any) -> Tensor:
        return functional.scaled_dot_product_attention(*args, **kwargs)


def _torch_dropout(kind: str, p: float, x: Tensor) -> Tensor:
    dropped: Tensor = OPERATORS[kind](x, p, True)
    return dropped


def _onnx_dropout(kind: str, p: float, x: Tensor) -> Tensor:
    """Dropout of any kind with one Dropout node, whose input has one entry for each draw.

    Channels: x·d with d = dropout(1) of [N, C, 1, …]. Alpha (Klambauer et al. 2017): keep = (d > 0), and
    a·(x·keep − α(1−keep)) + a·α·p. Where dropout is off, d is 1, and x stays as it is.
    """
    if kind in ("element", "attention"):
        return _torch_dropout("element", p, x)
    ones = x.new_ones([*x.shape[:2], *[1] * (x.ndim - 2)]) if kind.startswith("feature") else torch.ones_like(x)
    d = _torch_dropout("element", p, ones)
    if "alpha" not in kind:
        return x * d
    a = 1.0 / math.sqrt((ALPHA**2 * p + 1.0) * (1.0 - p))
    keep = (d > 0).to(x.dtype)
    return torch.where(d == 1, x, x * (keep * a) + ((keep - 1.0) * (ALPHA * a) + ALPHA * a * p))


def _export(model: nn.Module, sample: Inputs, mode: DropoutMode) -> ExportedProgram:
    rows = Dim("rows", min=1, max=MAX_ROWS)
    try:
        with torch.no_grad(), quietly(), _taken_by_position(model, sample, mode):
            shapes = tuple({0: rows} for _ in sample)
            program = export(model, tuple(sample.values()), dynamic_shapes=shapes, strict=False)
    except Exception as error:  # the exporter fails in many ways; the model itself was run before
        raise ConfigError(f"model: it cannot be traced: {_one_line(error)}") from error
    program.example_inputs = None  # they would be written as a pickle
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths and lines of the user's code
    return program


@contextmanager
def _taken_by_position(model: nn.Module, sample: Inputs, mode: DropoutMode) -> Iterator[None]:
    """Within it, the model takes its inputs by position, runs under the mode, and gives logits [N, C].

    The model itself is exported, rather than a module around it: its parts keep their names.
    """
    original = model.forward
    own = vars(model).get("forward")

    def forward(*tensors: Tensor) -> Tensor:
        with mode:
            output = original(tensors[0]) if "" in sample else original(**dict(zip(sample, tensors, strict=True)))
        return as_logits(output, tensors[0].shape[0])

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    signature = inspect.Signature([inspect.Parameter(name, kind) for name in _names(sample)])
    vars(forward)["__signature__"] = signature  # the exporter names the inputs after it
    vars(model)["forward"] = forward
    try:
        yield
    finally:
        del vars(model)["forward"]
        if own is not None:
            vars(model)["forward"] = own


def _write_onnx(program: ExportedProgram, path: Path) -> tuple[int, int]:
    """The opset, and the number of Dropout nodes."""
    try:
        with quietly():
            written: Any = torch.onnx.export(program, dynamo=True, optimize=False, verbose=False, output_names=[OUTPUT])
            written.save(path, external_data=sum(x.nbytes for x in program.state_dict.values()) > ONE_FILE)
    except Exception as error:
        raise ConfigError(f"model: it cannot be written as ONNX: {_one_line(error)}") from error
    proto = written.model
    return proto.opset_imports[""], sum(node.op_type == "Dropout" for node in proto.graph)


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
