"""Answer a model's dropout calls with masks that are given as data.

The model runs as its author wrote it, under a `TorchFunctionMode` that sees every dropout call: layers of all kinds,
functional dropout, the dropout inside attention, and the operators of an exported program. Instead of drawing random
numbers the call is answered with masks. `probe.py` finds the calls beforehand, `masks.py` holds the masks, `passes.py`
brings them together.

Legend: N rows, T passes; the model sees N·T rows, row n under pass t at index n·T + t.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode, has_torch_function

ALPHA = 1.7580993408473766  # −α' of SELU: what AlphaDropout puts in place of a dropped value

ATEN = torch.ops.aten

# call → (kind, position of p). 'feature' drops whole channels.
DROPOUT_CALLS: dict[Any, tuple[str, int]] = {
    F.dropout: ("element", 1),
    F.dropout1d: ("feature", 1),
    F.dropout2d: ("feature", 1),
    F.dropout3d: ("feature", 1),
    F.alpha_dropout: ("alpha", 1),
    F.feature_alpha_dropout: ("feature_alpha", 1),
    torch.dropout: ("element", 1),
    torch.dropout_: ("element", 1),
    torch.feature_dropout: ("feature", 1),
    torch.feature_dropout_: ("feature", 1),
    torch.alpha_dropout: ("alpha", 1),
    torch.alpha_dropout_: ("alpha", 1),
    torch.feature_alpha_dropout: ("feature_alpha", 1),
    torch.feature_alpha_dropout_: ("feature_alpha", 1),
    # in the graph of an exported program
    ATEN.dropout.default: ("element", 1),
    ATEN.dropout_.default: ("element", 1),
    ATEN.feature_dropout.default: ("feature", 1),
    ATEN.feature_dropout_.default: ("feature", 1),
    ATEN.alpha_dropout.default: ("alpha", 1),
    ATEN.alpha_dropout_.default: ("alpha", 1),
    ATEN.feature_alpha_dropout.default: ("feature_alpha", 1),
    ATEN.feature_alpha_dropout_.default: ("feature_alpha", 1),
    ATEN.native_dropout.default: ("element", 1),
}
NATIVE = {ATEN.native_dropout.default}  # what decompositions make of it; gives the mask as well, which nobody reads
ATTENTION = {F.scaled_dot_product_attention, ATEN.scaled_dot_product_attention.default}
UNBATCHED = {F.dropout1d: 2, F.dropout3d: 4}  # with so many dimensions they take the first for channels, not for rows


@dataclass(frozen=True)
class DropoutLayer:
    """One live dropout call, by its place in the order of execution."""

    index: int
    name: str  # of the module that makes the call
    kind: str  # element, feature, alpha, feature_alpha or attention
    p: float
    batch_dim: int  # the dimension that grows with the rows
    fold: int  # how many entries a row has there: attention heads or windows folded into the batch; usually 1
    shape: tuple[int, ...]  # of one row's mask: that dimension is left out, or `fold` long
    live: bool = True  # False: left off, because the user chose other layers (`layers.py`)
    dtype: torch.dtype = torch.float32  # of factor and offset: float64 where the model drops from float64

    @property
    def elements(self) -> int:
        """Bits in one mask."""
        return math.prod(self.shape)

    def fits(self, kind: str, p: float, shape: tuple[int, ...], rows: int) -> bool:
        """Whether this is the layer of a call on `rows` rows."""
        d = self.batch_dim
        same_row = row_shape(kind, shape, d, self.fold) == self.shape
        return (kind, p) == (self.kind, self.p) and same_row and shape[d : d + 1] == (rows * self.fold,)


class Calls:
    """The layers of one forward, taken in their order; for the two arguments of DropoutMode."""

    def __init__(self, layers: Sequence[DropoutLayer]) -> None:
        self.left = list(reversed(layers))

    def next(self) -> DropoutLayer | None:
        """The layer of the call that is being made; None if there should be none."""
        return self.left.pop() if self.left else None

    def skips(self) -> bool:
        """Passes over the next layer if it is not live."""
        return bool(self.left) and not self.left[-1].live and self.left.pop() is not None


class DropoutMode(TorchFunctionMode):
    """Hands every dropout call of the block whose p is above 0 to `answer(kind, p, x) -> Tensor`.

    Whatever its `training` flag says: the flag of a functional call is usually the module's, and the modules are in
    eval mode. Before an attention call `skips()` is asked whether its dropout is to be left off; it then stays one
    operator, and `answer` does not see it. One thread at a time.
    """

    def __init__(
        self, answer: Callable[[str, float, Tensor], Tensor], skips: Callable[[], bool] = lambda: False
    ) -> None:
        super().__init__()
        self._answer = answer
        self._skips = skips

    def __enter__(self) -> DropoutMode:
        # F.multi_head_attention_forward, the only one to ask by this name, would hand itself over as a whole (and lose
        # an argument on the way); the calls inside it are what we want.
        vars(F)["has_torch_function"] = lambda _: False
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)  # type: ignore[no-untyped-call]
        vars(F)["has_torch_function"] = has_torch_function

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in DROPOUT_CALLS:
            y = self._dropout(func, args, kwargs)
            return (y, y != 0) if func in NATIVE else y
        if func in ATTENTION:
            call = _ATTENTION_SIGNATURE.bind(*args, **kwargs)
            call.apply_defaults()
            if call.arguments["dropout_p"] > 0.0:
                if self._skips():
                    return func(**{**call.arguments, "dropout_p": 0.0})
                return self._attention(**call.arguments)
        return func(*args, **kwargs)

    def _dropout(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        kind, position = DROPOUT_CALLS[func]
        x: Tensor = args[0] if args else kwargs["input"]
        p = float(args[position] if len(args) > position else kwargs.get("p", 0.5))
        if p == 0.0:
            return x
        if UNBATCHED.get(func) == x.ndim:
            y = self._answer(kind, p, x[None])[0]
        else:
            y = self._answer(kind, p, x)
        return x.copy_(y) if _in_place(func, args, kwargs) else y

    def _attention(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None,
        dropout_p: float,
        is_causal: bool,
        scale: float | None,
        enable_gqa: bool,
    ) -> Tensor:
        """softmax(q kᵀ·scale + bias) with dropout on the probabilities, written out as PyTorch documents it."""
        if enable_gqa:
            key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
            value = value.repeat_interleave(query.shape[-3] // value.shape[-3], -3)
        logits = query @ key.transpose(-2, -1) * (scale if scale is not None else query.shape[-1] ** -0.5)
        if is_causal:
            causal = torch.ones(logits.shape[-2:], dtype=torch.bool, device=query.device).tril()
            logits = logits.masked_fill(~causal, -math.inf)
        if attn_mask is not None:
            if attn_mask.dtype == torch.bool:
                logits = logits.masked_fill(~attn_mask, -math.inf)
            else:
                logits = logits + attn_mask
        nothing = (logits == -math.inf).all(-1, keepdim=True)  # to attend to: zeros, where softmax alone gives NaN
        return self._answer("attention", dropout_p, logits.softmax(-1).masked_fill(nothing, 0.0)) @ value


def row_shape(kind: str, shape: tuple[int, ...], batch_dim: int, fold: int) -> tuple[int, ...]:
    """The shape of one row's mask, for a call on a tensor of this shape."""
    if kind.startswith("feature"):  # whole channels: one draw for each row and channel
        shape = shape[:2]
    return (*shape[:batch_dim], *([fold] if fold > 1 else []), *shape[batch_dim + 1 :])


def apply_affine(x: Tensor, factor: Tensor, offset: Tensor | None, batch_dim: int, fold: int, passes: int) -> Tensor:
    """x·factor + offset for each row under each pass.

    Args:
        x: what the model drops from; N·passes·fold long in `batch_dim`.
        factor, offset: [1 or N, T, *layer.shape]; every kind of dropout is such a map (`masks.py`).
        passes: T; or 1 where `x` holds each row once, and the broadcast repeats it.

    Returns:
        N·T·fold long in `batch_dim`, otherwise like `x`.
    """
    d = batch_dim
    unfolded = x.unflatten(d, (-1, passes, fold))

    def placed(mask: Tensor) -> Tensor:
        # [n, T, *shape] → what comes before the batch, then n, T, fold, then the rest; channels broadcast over it
        if fold == 1:
            mask = mask.unsqueeze(2 + d)
        mask = mask.movedim((0, 1), (d, d + 1))
        return mask.reshape(*mask.shape, *[1] * (unfolded.ndim - mask.ndim))

    y: Tensor = unfolded * placed(factor)
    if offset is not None:
        y = y + placed(offset)
    return y.flatten(d, d + 2).to(x.dtype)


def _in_place(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    name: str = func.__name__.partition(".")[0]  # of an operator: without its overload
    return name.endswith("_") or bool(kwargs.get("inplace", args[3] if len(args) > 3 else False))


def _attention_signature() -> inspect.Signature:
    def scaled_dot_product_attention(  # the builtin has no signature of its own
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> None: ...

    return inspect.signature(scaled_dot_product_attention)


_ATTENTION_SIGNATURE = _attention_signature()
