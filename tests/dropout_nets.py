"""Small nets with every kind of dropout, and the oracle that says what T passes of them give.

The oracle knows nothing of `poolscore.engine.model`: it runs one row under one pass at a time, with torch's dropout
operators patched where Python reaches them last, and answers them with masks from the contract's numpy definition. With
one row, the flattened tensor of a call is the flattened feature shape, whichever dimension holds the batch.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.functional import dropout as dropout_by_name

from poolscore.engine.config import PassesConfig
from poolscore.engine.model.passes import McDropout
from poolscore.engine.model.torch_network import TorchNetwork
from poolscore.kernels.dropout_mask_numpy import keep_mask_numpy

CPU = torch.device("cpu")
SELU_ALPHA = 1.6732632423543772848170429916717 * 1.0507009873554804934193349852946  # −α' = λ·α


class Fn(nn.Module):
    """A net from a function of itself and its inputs; keywords become attributes."""

    def __init__(self, forward: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        self.run = forward
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.run(self, *args, **kwargs)


# ---------------------------------------------------------------------------------------------------- nets


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 3)
    )


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 5, 3), nn.BatchNorm2d(5), nn.Dropout2d(0.25), nn.ReLU(inplace=True), nn.Flatten(),
        nn.Dropout(0.5), nn.Linear(5 * 16, 3),
    )  # fmt: skip


def cnn_1d(layer: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv1d(2, 5, 3), layer, nn.ReLU(), nn.Flatten(), nn.Linear(5 * 6, 3))


def cnn_3d(layer: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv3d(1, 5, 2), layer, nn.ReLU(), nn.Flatten(), nn.Linear(5 * 8, 3))


def selu() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 16), nn.SELU(), nn.AlphaDropout(0.2), nn.Linear(16, 3))


def with_linears(forward: Callable[..., Any], **parts: Any) -> nn.Module:
    return Fn(forward, a=nn.Linear(6, 16), b=nn.Linear(16, 3), **parts)


def functional_eval(self: Any, x: Tensor) -> Tensor:
    return self.b(F.dropout(self.a(x).relu(), 0.4, training=self.training))


def functional_true(self: Any, x: Tensor) -> Tensor:
    return self.b(F.dropout(self.a(x).relu(), training=True))


def by_name(self: Any, x: Tensor) -> Tensor:
    return self.b(dropout_by_name(input=self.a(x).relu(), p=0.4, training=self.training))


def torch_calls(self: Any, x: Tensor) -> Tensor:
    x = torch.dropout(self.a(x), 0.1, self.training)
    x = torch.alpha_dropout(x, p=0.2, train=self.training)
    x = torch.feature_dropout(x[..., None], 0.3, True)[..., 0]
    return self.b(torch.feature_alpha_dropout(x[..., None], 0.4, True)[..., 0])


def torch_calls_in_place(self: Any, x: Tensor) -> Tensor:
    x = self.a(x)
    torch.dropout_(x, 0.1, self.training)
    torch.alpha_dropout_(x, 0.2, self.training)
    torch.feature_dropout_(x[..., None], 0.3, True)
    torch.feature_alpha_dropout_(x[..., None], 0.4, True)
    return self.b(x)


def in_place(self: Any, x: Tensor) -> Tensor:
    x = self.a(x)
    y = self.drop(x)  # x itself is changed as well
    z = F.dropout2d(x[..., None], 0.2, True, True)[..., 0]
    return self.b(x + y.relu() + F.alpha_dropout(z, 0.3, inplace=True))


def residual(self: Any, x: Tensor) -> Tensor:
    h = self.a(x).relu()
    return self.b(h + self.drop(self.inner(h)))


def shared_twice(self: Any, x: Tensor) -> Tensor:
    return self.b(self.drop(self.drop(self.a(x)).relu()))


def zero_rates(self: Any, x: Tensor) -> Tensor:
    x = self.off(self.a(x))
    x = F.dropout(x, 0.0, True, True)
    return self.b(self.drop(F.dropout(x, 0, True)))


def rate_zero_to_logits(self: Any, x: Tensor) -> Tensor:
    return self.drop(self.b(self.a(x)))


def windows(self: Any, x: Tensor) -> Tensor:  # [N, 4, 6]: two windows of two tokens for each row
    h = self.a(x).reshape(-1, 2, 16)  # Swin: [N·windows, tokens, D]
    h = self.channels(self.drop(h)).reshape(-1, 4, 16)
    return self.b(h.mean(1))


def batch_second(self: Any, x: Tensor) -> Tensor:  # [N, 4, 6]
    return self.b(self.drop(self.a(x).transpose(0, 1)).mean(0))


def batch_last(self: Any, x: Tensor) -> Tensor:
    return self.b(self.drop(self.a(x).permute(1, 2, 0)).mean(0).t())


def batch_second_folded(self: Any, x: Tensor) -> Tensor:  # heads folded into the batch, sequence first
    n = x.shape[0]
    h = self.a(x).transpose(0, 1).reshape(4, n * 2, 8)
    return self.b(self.drop(h).reshape(4, n, 16).mean(0))


def rows_in_one_line(self: Any, x: Tensor) -> Tensor:  # [1, N·16]
    h = self.a(x)
    return self.b(self.drop(h.reshape(1, -1)).view_as(h))


def vector(self: Any, x: Tensor) -> Tensor:  # [N]: one logit, dropped itself
    return self.drop(self.b(self.a(x).relu())[:, 0])


def two_inputs(self: Any, tokens: Tensor, features: Tensor) -> Tensor:
    h = self.drop(self.embed(tokens)).mean(1)
    return self.b(self.drop(h + self.a(features)))


def dropout2d_of_lines(self: Any, x: Tensor) -> Tensor:  # three dimensions are [N, C, L], two are [N, C]
    h = F.dropout2d(self.a(x), 0.3, self.training)
    return self.b(F.dropout2d(h.mean(1), 0.3, self.training))


def attends(self: Any, x: Tensor) -> Tensor:
    """nn.MultiheadAttention over [N, L, 6] with the masks of the case."""
    h = self.a(x) if self.mha.batch_first else self.a(x).transpose(0, 1)
    n, length = x.shape[:2]
    padding = attn = None
    if "padding" in self.masks:
        padding = torch.zeros(n, length, dtype=torch.bool)
        padding[:, -1] = x[:, -1, 0] > 0  # by row
    if "bool" in self.masks:
        attn = torch.ones(length, length, dtype=torch.bool).triu(1)
    if "float" in self.masks:
        attn = torch.linspace(-1, 1, length * length, dtype=x.dtype).reshape(length, length)
    if "3d" in self.masks:
        attn = (x[:, :, None, 0] - x[:, None, :, 0]).repeat_interleave(self.mha.num_heads, 0)
    if "causal" in self.masks:
        attn = torch.nn.Transformer.generate_square_subsequent_mask(length, dtype=x.dtype)
    y, weights = self.mha(
        h, h, h, key_padding_mask=padding, attn_mask=attn, need_weights=self.weights,
        average_attn_weights="per head" not in self.masks, is_causal="causal" in self.masks,
    )  # fmt: skip
    if "per head" in self.masks:
        assert weights.shape == (n, self.mha.num_heads, length, length)
        return self.b(y.mean(1 if self.mha.batch_first else 0)) + weights.sum((2,)).flatten(1)[:, :3]
    return self.b(y.mean(1 if self.mha.batch_first else 0))


def mha(masks: str, weights: bool, batch_first: bool, **options: Any) -> nn.Module:
    layer = nn.MultiheadAttention(16, 4, dropout=0.3, batch_first=batch_first, **options)
    return with_linears(attends, mha=layer, masks=masks, weights=weights)


def encoder(batch_first: bool, norm_first: bool) -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        h = self.a(x) if batch_first else self.a(x).transpose(0, 1)
        padding = torch.zeros(x.shape[:2], dtype=torch.bool)
        padding[:, -1] = x[:, -1, 0] > 0
        return self.b(self.encoder(h, src_key_padding_mask=padding).mean(1 if batch_first else 0))

    layer = nn.TransformerEncoderLayer(16, 2, 24, 0.2, batch_first=batch_first, norm_first=norm_first)
    nested = batch_first and not norm_first
    return with_linears(forward, encoder=nn.TransformerEncoder(layer, 2, enable_nested_tensor=nested))


def transformer() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        h = self.a(x)
        return self.b(self.both(h, h[:, :2], tgt_is_causal=True, tgt_mask=self.tgt_mask.to(x.dtype)).mean(1))

    layers = nn.Transformer(16, 2, 1, 1, 24, 0.2, batch_first=True)
    return with_linears(forward, both=layers, tgt_mask=torch.full((2, 2), -math.inf).triu(1))


def heads(self: Any, x: Tensor) -> Tensor:
    """F.scaled_dot_product_attention over [N, 4, 6]."""
    q = self.a(x).unflatten(-1, (4, 4)).transpose(1, 2)  # [N, 4 heads, 4, 4]
    k, v = q * 0.5 + 0.1, q.sin()
    options = dict(self.options)
    if options.get("enable_gqa"):
        k, v = k[:, :2], v[:, :2]
    if options.pop("cross", False):
        q = q[:, :, :3]
    if options.pop("by row", False):
        options["attn_mask"] = x[:, None, :, None, 0] > x[:, None, None, :, 0]  # some rows of it are empty
    if "attn_mask" in options and options["attn_mask"].is_floating_point():
        options["attn_mask"] = options["attn_mask"].to(x.dtype)
    if options.pop("flat", False):
        q, k, v = (y.flatten(0, 1) for y in (q, k, v))
    y = F.scaled_dot_product_attention(q, k, v, dropout_p=0.3, **options)
    return self.b(y.reshape(x.shape[0], 4, -1, 4).mean(2).flatten(1))


def sdpa(**options: Any) -> nn.Module:
    return with_linears(heads, options=options)


class HandWritten(nn.Module):
    """Attention as in Hugging Face models: the rate is a number, and it is switched off before the call."""

    def __init__(self, eager: bool = False) -> None:
        super().__init__()
        self.attention_dropout = 0.3
        self.eager = eager

    def forward(self, x: Tensor) -> Tensor:
        rate = self.attention_dropout if self.training else 0.0
        if self.eager:
            weights = nn.functional.dropout((x @ x.transpose(-1, -2)).softmax(-1), p=rate, training=self.training)
            return weights @ x
        return F.scaled_dot_product_attention(x[:, None], x[:, None], x[:, None], dropout_p=rate)[:, 0]


def hand_written(self: Any, x: Tensor) -> Tensor:
    return self.b(self.one(self.two(self.a(x))).mean(1))


@dataclass(frozen=True)
class Case:
    """A net, its inputs, and which of its modules must train for the oracle to see all dropout."""

    build: Callable[[], nn.Module]
    shape: tuple[int, ...] = (6,)
    layers: int = 1  # live dropout calls

    def model(self) -> nn.Module:
        torch.manual_seed(7)
        model = copy.deepcopy(self.build())
        for module in model.modules():  # some parts are older than the seed
            if isinstance(module, nn.Linear | nn.Embedding):
                module.reset_parameters()
        return model.eval().requires_grad_(False)

    def inputs(self, rows: int, dtype: torch.dtype = torch.float32, seed: int = 3) -> dict[str, Tensor]:
        g = torch.Generator().manual_seed(seed)
        x = torch.randn(rows, *self.shape, generator=g, dtype=torch.float64).to(dtype)
        if self.build is TWO_INPUTS:
            return {"tokens": torch.randint(0, 11, (rows, 4), generator=g), "features": x}
        return {"": x}


TWO_INPUTS = partial(with_linears, two_inputs, embed=nn.Embedding(11, 16), drop=nn.Dropout(0.3))
BOOL_MASK = torch.tensor([[1, 0, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 1]], dtype=torch.bool)
FLOAT_MASK = torch.linspace(-2, 2, 16).reshape(4, 4).masked_fill(BOOL_MASK, -math.inf)
SEQUENCE = (4, 6)

CASES: dict[str, Case] = {
    "mlp": Case(mlp, layers=2),
    "cnn, Dropout2d": Case(cnn, (2, 6, 6), 2),
    "Dropout1d": Case(partial(cnn_1d, nn.Dropout1d(0.4)), (2, 8)),
    "Dropout3d": Case(partial(cnn_3d, nn.Dropout3d(0.4, inplace=True)), (1, 3, 3, 3)),
    "AlphaDropout": Case(selu),
    "FeatureAlphaDropout": Case(partial(cnn_1d, nn.FeatureAlphaDropout(0.3)), (2, 8)),
    "functional, eval": Case(partial(with_linears, functional_eval)),
    "functional, True": Case(partial(with_linears, functional_true)),
    "imported by name": Case(partial(with_linears, by_name)),
    "torch.dropout": Case(partial(with_linears, torch_calls), layers=4),
    "torch.dropout_": Case(partial(with_linears, torch_calls_in_place), layers=4),
    "in place": Case(partial(with_linears, in_place, drop=nn.Dropout(0.3, inplace=True)), layers=3),
    "root": Case(partial(nn.Dropout, 0.5)),
    "root, in place": Case(partial(nn.Dropout, 0.5, True)),
    "residual": Case(partial(with_linears, residual, drop=nn.Dropout(0.3), inner=nn.Linear(16, 16))),
    "shared twice": Case(partial(with_linears, shared_twice, drop=nn.Dropout(0.3)), layers=2),
    "p = 0": Case(partial(with_linears, zero_rates, off=nn.Dropout(0.0), drop=nn.Dropout(0.3))),
    "p = 1e-6, 0.9": Case(
        partial(with_linears, residual, drop=nn.Dropout(1e-6), inner=nn.Sequential(nn.Linear(16, 16), nn.Dropout(0.9))),
        layers=2,
    ),
    "two inputs": Case(TWO_INPUTS, layers=2),
    "windows": Case(
        partial(with_linears, windows, drop=nn.Dropout(0.3), channels=nn.Dropout1d(0.2)), SEQUENCE, layers=2
    ),
    "batch second": Case(partial(with_linears, batch_second, drop=nn.AlphaDropout(0.3)), SEQUENCE),
    "batch last": Case(partial(with_linears, batch_last, drop=nn.Dropout(0.3)), SEQUENCE),
    "batch second, folded": Case(partial(with_linears, batch_second_folded, drop=nn.Dropout(0.3)), SEQUENCE),
    "rows in one line": Case(partial(with_linears, rows_in_one_line, drop=nn.Dropout(0.3))),
    "vector": Case(partial(with_linears, vector, drop=nn.Dropout(0.3))),
    "Dropout2d of lines": Case(partial(with_linears, dropout2d_of_lines), SEQUENCE, 2),
    **{
        f"MultiheadAttention, {masks or 'no mask'}, {'weights' if weights else 'no weights'}, {first}": Case(
            partial(mha, masks, weights, first == "batch first"), SEQUENCE
        )
        for masks in ("", "padding", "bool", "padding, bool", "float", "3d", "causal")
        for weights in (False, True)
        for first in ("batch first", "sequence first")
    },
    "MultiheadAttention, per head": Case(partial(mha, "per head", True, True), SEQUENCE),
    "MultiheadAttention, bias_kv": Case(
        partial(mha, "", False, True, add_bias_kv=True, add_zero_attn=True), SEQUENCE
    ),
    "MultiheadAttention, kdim": Case(partial(mha, "", True, True, kdim=16, vdim=16), SEQUENCE),
    **{
        f"encoder, {first}, norm {norm}": Case(
            partial(encoder, first == "batch first", norm == "first"), SEQUENCE, 8
        )
        for first in ("batch first", "sequence first")
        for norm in ("first", "last")
    },
    "transformer": Case(transformer, SEQUENCE, 10),
    "sdpa": Case(sdpa, SEQUENCE),
    "sdpa, causal": Case(partial(sdpa, is_causal=True), SEQUENCE),
    "sdpa, causal, cross": Case(partial(sdpa, is_causal=True, cross=True), SEQUENCE),
    "sdpa, bool mask": Case(partial(sdpa, attn_mask=BOOL_MASK), SEQUENCE),
    "sdpa, bool mask by row": Case(partial(sdpa, **{"by row": True}), SEQUENCE),
    "sdpa, float mask": Case(partial(sdpa, attn_mask=FLOAT_MASK), SEQUENCE),
    "sdpa, scale": Case(partial(sdpa, scale=0.7), SEQUENCE),
    "sdpa, grouped queries": Case(partial(sdpa, enable_gqa=True), SEQUENCE),
    "sdpa, heads in the batch": Case(partial(sdpa, flat=True), SEQUENCE),
    "hand-written attention": Case(
        partial(with_linears, hand_written, one=HandWritten(), two=HandWritten(eager=True)), SEQUENCE, 2
    ),
}  # fmt: skip


# -------------------------------------------------------------------------------------------------- oracle


@contextmanager
def answered(seed: int, t: int, key: int | None) -> Iterator[list[tuple[str, float]]]:
    """Within it, torch's dropout does to one row what pass t does to it. Gives the calls that were made."""
    calls: list[tuple[str, float]] = []

    def keep(kind: str, p: float, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        keys = None if key is None else np.array([key], dtype=np.uint64)
        bits = keep_mask_numpy(seed, len(calls), range(t, t + 1), math.prod(shape), p, keys)
        calls.append((kind, p))
        return torch.from_numpy(bits.reshape(shape).copy()).to(dtype)

    def drop(x: Tensor, p: float, train: bool = True, *, channels: bool, alpha: bool, in_place: bool) -> Tensor:
        if p == 0:
            return x
        shape = (*x.shape[:2], *[1] * (x.ndim - 2)) if channels else tuple(x.shape)
        kind = ("feature" if channels else "") + ("_" if channels and alpha else "") + ("alpha" if alpha else "")
        kept = keep(kind or "element", p, shape, x.dtype)
        if alpha:  # Klambauer et al. 2017, 3: drop to −α', then a·y + b with mean 0 and variance 1
            q = 1 - p
            a = (q + SELU_ALPHA**2 * q * p) ** -0.5
            y = a * torch.where(kept > 0, x, -SELU_ALPHA) + a * p * SELU_ALPHA
        else:
            y = x * kept / (1 - p)
        return x.copy_(y) if in_place else y

    attention = F.scaled_dot_product_attention

    def attend(
        q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
        is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
    ) -> Tensor:  # fmt: skip
        plain = partial(attention, attn_mask=attn_mask, is_causal=is_causal, scale=scale, enable_gqa=enable_gqa)
        if dropout_p == 0:
            return plain(q, k, v)
        unit = torch.eye(k.shape[-2], dtype=q.dtype).expand(*k.shape[:-1], -1)  # as values, shows the probabilities
        probabilities = plain(q, k, unit)
        kept = keep("attention", dropout_p, probabilities.shape, q.dtype)
        if enable_gqa:
            v = torch.stack([v] * (q.shape[1] // v.shape[1]), 2).flatten(1, 2)
        return (probabilities * kept / (1 - dropout_p)) @ v

    with mock.patch.object(F, "scaled_dot_product_attention", attend), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="dropout2d: Received")
        patches = [
            mock.patch.object(
                where,
                ("feature_" if channels else "") + ("alpha_" if alpha else "") + "dropout" + ("_" if in_place else ""),
                lambda input, p, train, *, of=(channels, alpha, in_place): drop(  # noqa: A006
                    input, p, train, channels=of[0], alpha=of[1], in_place=of[2]
                ),
            )
            for where in (torch, torch._VF)
            for channels in (False, True)
            for alpha in (False, True)
            for in_place in (False, True)
        ]
        for patch in patches:
            patch.start()
        try:
            yield calls
        finally:
            for patch in reversed(patches):
                patch.stop()


def expected(
    model: nn.Module,
    inputs: dict[str, Tensor],
    passes: int,
    seed: int = 0,
    keys: Sequence[int] | None = None,
    hides: tuple[type[nn.Module], ...] = (nn.MultiheadAttention, HandWritten),
) -> tuple[Tensor, list[tuple[str, float]]]:
    """logits_NTC in the model's dtype, and the calls of a pass as (kind, p); `keys` for independent masks, `hides` for
    modules that make their calls only in training mode."""
    model = copy.deepcopy(model).eval()
    for module in model.modules():
        if isinstance(module, hides):
            module.training = True
    rows = len(next(iter(inputs.values())))
    calls: list[tuple[str, float]] = []
    logits = []
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        for n in range(rows):
            row = {name: x[n : n + 1].clone() for name, x in inputs.items()}
            for t in range(passes):
                fresh = {name: x.clone() for name, x in row.items()}
                with torch.no_grad(), answered(seed, t, None if keys is None else keys[n]) as calls:
                    output = model(fresh[""]) if "" in fresh else model(**fresh)
                logits.append(getattr(output, "logits", output).reshape(-1))
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return torch.stack(logits).view(rows, passes, -1), calls


# ---------------------------------------------------------------------------------------------- ours


def keys_of(rows: int, first: int = 0) -> Tensor:
    """Row keys with all 64 bits in use."""
    values = (np.arange(first, first + rows, dtype=np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    return torch.from_numpy(values.view(np.int64).copy())


def scorer(model: nn.Module, inputs: dict[str, Tensor], repeat: str | None = None, **passes: Any) -> McDropout:
    """Probe and wrap the model; `inputs` need three rows. It is split, unless `repeat` says why not."""
    network = TorchNetwork(model)
    return McDropout(network, network.probe(inputs), PassesConfig(**passes), CPU, inputs, repeat_because=repeat)
