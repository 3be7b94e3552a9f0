"""Where the tests of the Triton kernels run: on a GPU, or in Triton's interpreter on the CPU (TRITON_INTERPRET=1).

The interpreter is chosen when a kernel's module is imported, so it needs a process of its own:
`kernels/test_interpreter.py` starts one for the very tests that `-m gpu` runs on a GPU.
"""

from __future__ import annotations

import os

import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
RUNS_TRITON = [
    pytest.mark.gpu,
    pytest.mark.skipif(not INTERPRETED and not torch.cuda.is_available(), reason="needs a CUDA device"),
    # numpy's, in the interpreter, where NaN and infinity are what is tested
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]
