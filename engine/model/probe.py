"""Find a model's dropout calls, and everything else in it that is random, by running it on a few rows.

It is run on 2 and on 3 rows: the dimension of a dropout call that grows between the two holds the batch, and what the
first two rows see must not change.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from poolscore.engine.errors import ConfigError
from poolscore.engine.model.dropout import DropoutLayer, DropoutMode, row_shape
from poolscore.engine.model.random_calls import RandomCalls
from poolscore.engine.model.recurrent import hides_dropout

Inputs = Mapping[str, Tensor]  # by name; a single positional input is called ''

ROWS = (2, 3)
ROOT = "(root)"  # how the model itself is called among the names of its modules
PROBE_ROWS = max(ROWS)
STOCHASTIC_DEPTH = re.compile("DropPath|StochasticDepth|DropBlock|ShakeShake|ShakeDrop")


@dataclass(frozen=True)
class Probe:
    """What a trial run found."""

    layers: tuple[DropoutLayer, ...]  # in the order of execution
    outputs: int  # C
    stays_off: dict[str, str]  # random layers that cannot be answered and are left off: module name → type
    training: tuple[str, ...] = ()  # modules that hide a dropout unless they are in training mode

    @property
    def live(self) -> tuple[DropoutLayer, ...]:
        """The layers that are answered with masks."""
        return tuple(layer for layer in self.layers if layer.live)


@dataclass(frozen=True)
class Call:
    """A dropout call, as it was made."""

    name: str
    kind: str
    p: float
    x: Tensor


@dataclass(frozen=True)
class Run:
    """What a model did on a few rows."""

    calls: list[Call]
    logits: Tensor
    random: tuple[str, str] | None = None  # who drew the first random number: module and function


def make_dropout_live(model: nn.Module, training: Collection[str]) -> None:
    """Eval mode for everything (BatchNorm!), training mode for the modules that would otherwise switch a dropout off
    before it becomes a call."""
    model.eval()
    for name, module in model.named_modules():
        module.training = name in training


def probe_model(model: nn.Module, inputs: Inputs) -> Probe:
    """Run the model on the first rows of `inputs` (at least 3) and list its dropout. All on the CPU.

    The model is left ready for `DropoutMode`: live where it can be answered, off where it cannot.

    Raises:
        ConfigError: the model fails, draws random numbers in eval mode, gives no [N, C] tensor, lets rows of a batch
            see each other, or has a dropout that cannot be told apart by rows.
    """
    modules = dict(model.named_modules())
    off = {name: type(module).__name__ for name, module in modules.items() if _random_in_training(module)}
    training = [n for n, m in modules.items() if isinstance(m, nn.MultiheadAttention | nn.TransformerEncoderLayer)]
    make_dropout_live(model, training)
    first = _record(model, inputs, ROWS[0])
    if first.random:
        name, function = first.random
        raise ConfigError(
            f"model: module '{name or ROOT}' ({type(modules[name]).__name__}) calls {function} even in eval mode, so "
            "scores could not be repeated; take the call out, or make it depend on self.training"
        )
    for kind, names in _own_types(modules, {*off, *training}).items():
        trial, drew = _in_training(model, [*training, *names], inputs)
        if drew:
            off |= dict.fromkeys(names, kind.__name__)
        elif trial and trial.logits.shape == first.logits.shape and len(trial.calls) > len(first.calls):
            training += names
            first = trial
    make_dropout_live(model, training)
    second = _record(model, inputs, ROWS[1])
    layers = compare_runs(first, second)
    stays_off = {name or ROOT: kind for name, kind in off.items()}
    return Probe(layers, first.logits.shape[1], stays_off, tuple(training))


def compare_runs(first: Run, second: Run) -> tuple[DropoutLayer, ...]:
    """The dropout layers of a model, from what it did on 2 rows and on 3, the first two of which are the same.

    Raises:
        ConfigError: rows see each other, or cannot be told apart in a dropout call.
    """
    if len(first.calls) != len(second.calls):
        raise ConfigError("model: it makes another number of dropout calls for 2 rows than for 3; it cannot be scored")
    layers = tuple(_layer(i, a, b) for i, (a, b) in enumerate(zip(first.calls, second.calls, strict=True)))
    if first.logits.shape[1] != second.logits.shape[1] or _differ(first.logits, second.logits[: ROWS[0]]):
        raise ConfigError("model: its output for a row depends on the other rows of the batch; it cannot be scored")
    return layers


def call_model(model: nn.Module, inputs: Inputs) -> Any:
    """Call the model with its one positional input, or with its named inputs as keywords."""
    return model(inputs[""]) if "" in inputs else model(**inputs)


def as_logits(output: Any, rows: int) -> Tensor:
    """The model's output as [rows, C]; a [rows] vector counts as one column, and Hugging Face's `.logits` are taken.

    Raises:
        ConfigError: it is something else.
    """
    output = getattr(output, "logits", output)
    if isinstance(output, Tensor) and output.shape == (rows,):
        output = output[:, None]
    fits = isinstance(output, Tensor) and output.ndim == 2 and output.shape[0] == rows and output.is_floating_point()
    if not fits:
        shown = isinstance(output, Tensor)
        found = f"a tensor {list(output.shape)} {output.dtype}" if shown else f"a {type(output).__name__}"
        raise ConfigError(f"model.source: the model must give a float tensor [N, C]; for N={rows} it gave {found}")
    logits: Tensor = output
    return logits


def _in_training(model: nn.Module, training: Collection[str], inputs: Inputs) -> tuple[Run | None, bool]:
    """A run with these modules in training mode; None where that makes another model of it: it fails, gives something
    else, or changes its buffers (which are put back). And whether it drew random numbers, in any case."""
    make_dropout_live(model, training)
    buffers = [
        (module, name, buffer, buffer._version, buffer.clone())
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    trace = RandomCalls(model)
    run: Run | None = None
    with contextlib.suppress(ConfigError):
        run = _record(model, inputs, ROWS[0], trace)
    for module, name, buffer, version, was in buffers:
        if buffer._version != version:
            buffer.copy_(was)
            run = None
        if getattr(module, name) is not buffer:
            setattr(module, name, buffer)
            run = None
    return run, trace.random is not None


def _record(model: nn.Module, inputs: Inputs, rows: int, trace: RandomCalls | None = None) -> Run:
    calls: list[Call] = []
    trace = trace or RandomCalls(model)

    def record(kind: str, p: float, x: Tensor) -> Tensor:
        name = trace.module or ROOT
        if p >= 1.0:
            raise ConfigError(f"model: dropout '{name}' has p={p:g}, which drops everything; use p below 1")
        calls.append(Call(name, kind, p, x))
        return x

    first_rows = {name: x[:rows].clone() for name, x in inputs.items()}  # the model may change them in place
    with torch.no_grad(), trace, DropoutMode(record):
        try:
            output = call_model(model, first_rows)
        except ConfigError:
            raise
        except Exception as error:
            shapes = ", ".join(f"{name or 'input'} {list(x.shape)} {x.dtype}" for name, x in first_rows.items())
            raise ConfigError(
                f"model.source: the model fails on {shapes}: {type(error).__name__}: {' '.join(str(error).split())}"
            ) from error
    return Run(calls, as_logits(output, rows), trace.random)


def _layer(index: int, a: Call, b: Call) -> DropoutLayer:
    shape, other = tuple(a.x.shape), tuple(b.x.shape)
    where = f"model: dropout '{a.name}' on {list(shape)} and {list(other)}"
    grows = [d for d, (x, y) in enumerate(zip(shape, other, strict=False)) if x != y]
    if (a.kind, a.p, len(shape)) != (b.kind, b.p, len(other)) or len(grows) != 1:
        raise ConfigError(f"{where} has no dimension of rows")
    batch_dim = grows[0]
    fold = shape[batch_dim] // ROWS[0]
    if (shape[batch_dim], other[batch_dim]) != (fold * ROWS[0], fold * ROWS[1]):
        raise ConfigError(f"{where} has no dimension of rows")
    if a.kind.startswith("feature") and (batch_dim != 0 or len(shape) < 2):
        raise ConfigError(f"model: channel dropout '{a.name}' needs [N, C, ...], got {list(shape)}")
    if _differ(a.x, b.x.narrow(batch_dim, 0, shape[batch_dim])):
        raise ConfigError(f"{where}: rows are not in their order along dimension {batch_dim}, or see each other")
    of_a_row, dtype = row_shape(a.kind, shape, batch_dim, fold), torch.promote_types(a.x.dtype, torch.float32)
    return DropoutLayer(index, a.name, a.kind, a.p, batch_dim, fold, of_a_row, dtype=dtype)


def _differ(a: Tensor, b: Tensor) -> bool:
    """By more than another batch size may change in the last bits: by a fourth root of the precision, 2 % in fp32.
    What is not finite, such as the logit −inf of a masked class, must be so in both."""
    finite = a.isfinite()
    if not finite.equal(b.isfinite()):
        return True
    a, b = a[finite], b[finite]
    if not a.numel():
        return False
    return bool((a - b).abs().max() > a.abs().max() * torch.finfo(a.dtype).eps ** 0.25)


def _random_in_training(module: nn.Module) -> bool:
    return (
        hides_dropout(module)
        or isinstance(module, nn.RReLU)
        or (isinstance(module, torch.jit.ScriptModule) and "Dropout" in module.original_name)
        or bool(STOCHASTIC_DEPTH.search(type(module).__name__))
    )


def _own_types(modules: Mapping[str, nn.Module], known: Collection[str]) -> dict[type, list[str]]:
    """The modules that are not torch's own, but for the known ones, by type: only a run in training mode shows what
    such a type does there."""
    found: dict[type, list[str]] = {}
    for name, module in modules.items():
        torchs = all(base.__module__.startswith(("torch.", "builtins")) for base in type(module).__mro__)
        if not torchs and name not in known:
            found.setdefault(type(module), []).append(name)
    return found
