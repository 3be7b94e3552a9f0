"""Find a model's live dropout calls, and everything else in it that is random, by running it on a few rows.

It is run on 2 and on 3 rows: the dimension of a dropout call that grows between the two holds the batch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from poolscore.engine.errors import ConfigError
from poolscore.engine.model.dropout import DropoutLayer, DropoutMode

Inputs = Mapping[str, Tensor]  # by name; a single positional input is called ''

ROWS = (2, 3)
PROBE_ROWS = max(ROWS)
RANDOM_CALLS = {
    *(
        getattr(torch, name)
        for name in ("bernoulli", "rand", "randn", "rand_like", "randn_like", "randint", "randperm")
    ),
    *(torch.randint_like, torch.normal, torch.multinomial, torch.poisson, F.gumbel_softmax),
    *(getattr(Tensor, name) for name in ("bernoulli", "bernoulli_", "uniform_", "normal_", "exponential_", "random_")),
    *(Tensor.geometric_, Tensor.log_normal_, Tensor.cauchy_, Tensor.multinomial),
}
STOCHASTIC_DEPTH = re.compile("DropPath|StochasticDepth|DropBlock|ShakeShake|ShakeDrop")


@dataclass(frozen=True)
class Probe:
    """What a trial run found."""

    layers: tuple[DropoutLayer, ...]  # live, in the order of execution
    outputs: int  # C
    stays_off: dict[str, str]  # random layers that cannot be answered and are left off: module name → type


@dataclass(frozen=True)
class _Call:
    name: str
    kind: str
    p: float
    shape: tuple[int, ...]


def make_dropout_live(model: nn.Module, stays_off: Collection[str] = ()) -> None:
    """Eval mode for everything (BatchNorm!), training mode for the modules that would otherwise switch a dropout off
    before it becomes a call: attention, and whatever holds its dropout rate as a number; less those in `stays_off`."""
    model.eval()
    for name, module in model.named_modules():
        live = isinstance(module, nn.MultiheadAttention | nn.TransformerEncoderLayer) or _holds_rate(module)
        module.training = live and name not in stays_off


def probe_model(model: nn.Module, inputs: Inputs) -> Probe:
    """Run the model on the first rows of `inputs` (at least 3) and list its live dropout.

    The model is left ready for `DropoutMode`: live where it can be answered, off where it cannot.

    Raises:
        ConfigError: the model fails, draws random numbers in eval mode, gives no [N, C] tensor, or has a dropout that
            cannot be told apart by rows.
    """
    make_dropout_live(model)
    off = _switch_off_uncontrolled(model, inputs)
    runs = [_record(model, {name: x[:rows] for name, x in inputs.items()}, rows) for rows in ROWS]
    (first, outputs), (second, _) = runs
    if len(first) != len(second):
        raise ConfigError("model: it makes another number of dropout calls for 2 rows than for 3; it cannot be scored")
    layers = tuple(_layer(i, a, b) for i, (a, b) in enumerate(zip(first, second, strict=True)))
    return Probe(layers, outputs, off)


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
    if not isinstance(output, Tensor) or output.ndim != 2 or output.shape[0] != rows:
        found = f"a tensor {list(output.shape)}" if isinstance(output, Tensor) else f"a {type(output).__name__}"
        raise ConfigError(f"model.source: the model must give a tensor [N, C]; for N={rows} it gave {found}")
    return output


def _record(model: nn.Module, inputs: Inputs, rows: int) -> tuple[list[_Call], int]:
    calls: list[_Call] = []
    with _module_names(model) as current:

        def record(kind: str, p: float, x: Tensor) -> Tensor:
            if p >= 1.0:
                raise ConfigError(f"model: dropout '{current()}' has p={p:g}, which drops everything; use p below 1")
            calls.append(_Call(current(), kind, p, tuple(x.shape)))
            return x

        with torch.no_grad(), DropoutMode(record):
            output = _run(model, inputs)
    return calls, as_logits(output, rows).shape[1]


def _run(model: nn.Module, inputs: Inputs) -> Any:
    try:
        return call_model(model, inputs)
    except ConfigError:
        raise
    except Exception as error:
        shapes = ", ".join(f"{name or 'input'} {list(x.shape)} {x.dtype}" for name, x in inputs.items())
        raise ConfigError(
            f"model.source: the model fails on {shapes}: {type(error).__name__}: {' '.join(str(error).split())}"
        ) from error


def _layer(index: int, a: _Call, b: _Call) -> DropoutLayer:
    grows = [d for d, (x, y) in enumerate(zip(a.shape, b.shape, strict=False)) if x != y]
    batch_dim = grows[0] if len(grows) == 1 else -1
    if (a.kind, a.p, len(a.shape)) != (b.kind, b.p, len(b.shape)) or batch_dim < 0 or a.shape[batch_dim] % ROWS[0]:
        raise ConfigError(f"model: dropout '{a.name}' on {list(a.shape)} and {list(b.shape)} has no dimension of rows")
    fold = a.shape[batch_dim] // ROWS[0]
    if a.shape[batch_dim] != fold * ROWS[0] or b.shape[batch_dim] != fold * ROWS[1]:
        raise ConfigError(f"model: dropout '{a.name}' on {list(a.shape)} and {list(b.shape)} has no dimension of rows")
    shape = a.shape
    if a.kind.startswith("feature"):  # whole channels: one draw for each row and channel
        if batch_dim != 0 or len(shape) < 3:
            raise ConfigError(f"model: channel dropout '{a.name}' needs [N, C, ...], got {list(shape)}")
        shape = shape[:2]
    row = (*shape[:batch_dim], *([fold] if fold > 1 else []), *shape[batch_dim + 1 :])
    return DropoutLayer(index, a.name, a.kind, a.p, batch_dim, fold, row)


def _switch_off_uncontrolled(model: nn.Module, inputs: Inputs) -> dict[str, str]:
    """Put modules that draw random numbers of their own back to eval mode; refuse those that draw even there."""
    off = {name: type(module).__name__ for name, module in model.named_modules() if _random_in_training(module)}
    modules = dict(model.named_modules())
    while culprit := _first_random_call(model, {name: x[: ROWS[0]] for name, x in inputs.items()}):
        name, function = culprit
        kind = type(modules[name]).__name__
        if not modules[name].training:
            raise ConfigError(
                f"model: module '{name}' ({kind}) calls {function} even in eval mode, so scores could not be repeated; "
                "take the call out, or make it depend on self.training"
            )
        modules[name].training = False
        off[name] = kind
    return off


def _random_in_training(module: nn.Module) -> bool:
    return (
        (isinstance(module, nn.RNNBase) and module.dropout > 0 and module.num_layers > 1)
        or isinstance(module, nn.RReLU)
        or bool(STOCHASTIC_DEPTH.search(type(module).__name__))
    )


class _RandomCall(Exception):
    """A model drew random numbers."""


def _first_random_call(model: nn.Module, inputs: Inputs) -> tuple[str, str] | None:
    class Watch(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func in RANDOM_CALLS:
                raise _RandomCall(current(), func.__name__)
            return func(*args, **(kwargs or {}))

    with _module_names(model) as current, torch.no_grad(), Watch(), DropoutMode(lambda kind, p, x: x):
        try:
            call_model(model, inputs)
        except _RandomCall as call:
            return str(call.args[0]), str(call.args[1])
        except Exception:  # the model itself fails; `_record` tells
            return None
    return None


def _holds_rate(module: nn.Module) -> bool:
    """Whether a module keeps a dropout rate as a plain number, as attention layers written by hand do. Recurrent layers
    would draw inside one operator, stochastic depth is no dropout."""
    if isinstance(module, nn.RNNBase) or STOCHASTIC_DEPTH.search(type(module).__name__):
        return False
    return any("drop" in name and isinstance(value, float) and 0 < value < 1 for name, value in vars(module).items())


@contextmanager
def _module_names(model: nn.Module) -> Iterator[Callable[[], str]]:
    """A function that tells the name of the innermost module that is running."""
    stack: list[str] = [""]

    def enter(name: str) -> Callable[..., None]:
        return lambda *_: stack.append(name)

    def leave(*_: Any) -> None:  # a hook that returned anything else than None would replace the output
        stack.pop()

    handles = []
    for name, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(enter(name)))
        handles.append(module.register_forward_hook(leave, always_call=True))
    try:
        yield lambda: stack[-1]
    finally:
        for handle in handles:
            handle.remove()
