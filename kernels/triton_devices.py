"""Where the Triton kernels run."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec

import torch


def runs_triton(device: torch.device) -> bool:
    """Whether tensors on this device go to Triton kernels: a CUDA device where Triton is installed (not on Windows)."""
    return device.type == "cuda" and _has_triton()


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None
