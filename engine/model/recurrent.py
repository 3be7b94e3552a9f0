"""Recurrent networks layer by layer, so that the dropout between their layers becomes calls like any other.

`nn.LSTM`, `nn.GRU` and `nn.RNN` run all their layers, and the dropout between them, in one operator that draws its own
random numbers. Here each layer is a recurrent network of its own, with the same weights, and between two of them stands
an ordinary `nn.Dropout`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from poolscore.engine.errors import ConfigError

State = Tensor | tuple[Tensor, Tensor]  # an LSTM has two


class LayerByLayer(nn.RNNBase):
    """Gives what its base gives in eval mode; the calls of its dropout can be answered.

    Its layers are the modules `rnn_l0`, `rnn_l1`, …, and the dropout behind a layer is `dropout_l0`, …; the parameters
    keep their names.
    """

    def forward(self, input: Tensor, hx: State | None = None) -> tuple[Tensor, State]:  # noqa: A002
        """See nn.LSTM, nn.GRU, nn.RNN; inputs are [N, length, features], or [length, N, features].

        Raises:
            ConfigError: the input is packed or has no batch dimension, so masks cannot be told apart by rows.
        """
        if isinstance(input, PackedSequence) or input.ndim != 3:
            packed = isinstance(input, PackedSequence)
            found = "a PackedSequence, which hides its full length" if packed else f"a tensor {list(input.shape)}"
            raise ConfigError(
                f"model: a {type(self).__name__} with dropout={self.dropout:g} between its layers was given {found}; "
                "give it padded tensors [N, length, features], or build it with dropout=0"
            )
        if hx is not None:
            self.check_forward_args(input, hx, None)  # type: ignore[arg-type]
        x, states = input, list[Any]()
        for i in range(self.num_layers):
            x, state = self.get_submodule(f"rnn_l{i}")(x, self._of_layer(hx, i))
            states.append(state)
            if i + 1 < self.num_layers:
                x = self.get_submodule(f"dropout_l{i}")(x)
        if isinstance(states[0], Tensor):
            return x, torch.cat(states)
        h, c = zip(*states, strict=True)
        return x, (torch.cat(h), torch.cat(c))

    def flatten_parameters(self) -> None:
        """Each layer's weights in one piece of memory, as cuDNN wants them."""
        for module in self.children():
            if isinstance(module, nn.RNNBase):
                module.flatten_parameters()

    def _of_layer(self, hx: State | None, layer: int) -> State | None:
        directions = 2 if self.bidirectional else 1
        place = slice(layer * directions, (layer + 1) * directions)
        if hx is None or isinstance(hx, Tensor):
            return None if hx is None else hx[place]
        return hx[0][place], hx[1][place]


def split_recurrent_layers(model: nn.Module) -> None:
    """Make every recurrent network of the model that drops between its layers a LayerByLayer, in place.

    Those with a `forward` of their own, and those whose weights are computed anew in each forward, are left alone.
    """
    for module in list(model.modules()):
        if isinstance(module, nn.RNNBase) and hides_dropout(module) and _is_plain(module):
            for i in range(module.num_layers):
                module.add_module(f"rnn_l{i}", _layer(module, i))
                if i + 1 < module.num_layers:
                    module.add_module(f"dropout_l{i}", nn.Dropout(module.dropout))
            kind = type(module)
            module.__class__ = type(kind.__name__, (LayerByLayer, kind), {})


def hides_dropout(module: nn.Module) -> bool:
    """Whether it is a recurrent network that drops inside its one operator."""
    if not isinstance(module, nn.RNNBase) or isinstance(module, LayerByLayer):
        return False
    return module.dropout > 0 and module.num_layers > 1


def _is_plain(rnn: nn.RNNBase) -> bool:
    weights = {name for names in rnn._all_weights for name in names}
    own = dict(rnn.named_parameters(recurse=False, remove_duplicate=False))
    return type(rnn).forward in (nn.LSTM.forward, nn.GRU.forward, nn.RNN.forward) and weights <= own.keys()


def _layer(rnn: nn.RNNBase, i: int) -> nn.RNNBase:
    """Layer i alone, with the same Parameter objects."""
    kind: Any = next(kind for kind in (nn.LSTM, nn.GRU, nn.RNN) if isinstance(rnn, kind))
    options: dict[str, Any] = {"proj_size": rnn.proj_size} if kind is nn.LSTM else {}
    if kind is nn.RNN:
        options["nonlinearity"] = rnn.nonlinearity
    names = ("bias", "batch_first", "bidirectional")
    options |= {name: getattr(rnn, name) for name in names}
    directions = 2 if rnn.bidirectional else 1
    features = rnn.input_size if i == 0 else (rnn.proj_size or rnn.hidden_size) * directions
    layer: nn.RNNBase = kind(features, rnn.hidden_size, device="meta", **options)
    for name in layer._flat_weights_names:
        setattr(layer, name, getattr(rnn, name.replace("_l0", f"_l{i}")))
    return layer


def _flops(x: Sequence[int], weights: Sequence[Sequence[int]]) -> int:
    """For the shapes of an input [N, length, features], or [length, N, features], and of the weights of a layer."""
    return 2 * x[0] * x[1] * sum(math.prod(shape) for shape in weights if len(shape) == 2)


# What torch's FlopCounterMode does not know: the operators that run a whole layer, on a CPU and on a GPU.
RECURRENT_FLOPS: dict[Any, Callable[..., int]] = {
    torch.ops.aten.mkldnn_rnn_layer: lambda x, *weights, **_: _flops(x, weights[:2]),
    torch.ops.aten._cudnn_rnn: lambda x, weights, *_, **__: _flops(x, weights),
}
