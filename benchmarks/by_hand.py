"""T passes and their BALD as one writes them by hand: what a user compares with first."""

from __future__ import annotations

from collections.abc import Callable

import torch
from bench_row_stats import eager
from torch import Tensor, nn

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def loop(model: nn.Module, x: Tensor, precision: str, passes: int, compiled: bool = False) -> Callable[[], Tensor]:
    """A call that runs the whole model `passes` times, its dropout on and channels last, and gives BALD [N].

    Args:
        model: on the device of `x`; it is changed.
        compiled: the model, by torch.compile.
    """
    for module in model.modules():
        module.train(isinstance(module, nn.Dropout))
    if x.dim() == 4:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        x = x.contiguous(memory_format=torch.channels_last)
    # On a CPU it is only traced: a dry run has no minutes for the compiler.
    backend = "inductor" if x.is_cuda else "eager"
    run = torch.compile(model, dynamic=False, backend=backend) if compiled else model

    @torch.no_grad()
    def passes_and_bald() -> Tensor:
        with torch.autocast(x.device.type, dtype=DTYPES[precision], enabled=precision != "fp32"):
            logits_NTC = torch.stack([run(x) for _ in range(passes)], 1)
        return eager(logits_NTC)

    return passes_and_bald
