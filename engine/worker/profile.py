"""The numeric profile: everything that the last bits of a score depend on, beside the plan.

Within one profile a run gives the same bits on any number of workers. A worker with another profile is refused, unless
`run.allow_mixed` says otherwise (`engine/run/mixed.py`).
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

# Large tensors on the CPU come in pages of 2 MB, where Linux has them: most of the time that filling one takes goes to
# asking for its memory, 4 kB at a time. Torch looks at it when it makes its first tensor.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

import torch

from poolscore.engine.config import Config, RunConfig, TextDecode
from poolscore.engine.errors import ConfigError
from poolscore.engine.inputs.tokenizer import tokenizer_digest
from poolscore.engine.run.mixed import Profile

LIBRARIES = ("torch", "numpy", "pillow", "simplejpeg", "poolscore")


def choose_device(config: Config) -> torch.device:
    """The device that `run.device` asks for on this machine.

    Raises:
        ConfigError: cuda is asked for and there is none.
    """
    wanted = config.run.device
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError("run.device: 'cuda' is asked for, but torch finds no GPU here; use 'auto' or 'cpu'")
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)


def device_of_driver(config: Config) -> torch.device:
    """Where a job is tried before it is handed out: a driver on a machine without a GPU may have workers with one.

    Raises:
        ConfigError: cuda is asked for, and there are no such workers, nor a GPU here.
    """
    run = config.run
    if run.device == "cuda" and is_on_cluster(run) and not torch.cuda.is_available():
        return torch.device("cpu")
    return choose_device(config)


def is_on_cluster(run: RunConfig) -> bool:
    """Whether the workers' machines are a cluster's, and perhaps of another kind than this one."""
    return run.executor == "ray" and bool(run.address or os.environ.get("RAY_ADDRESS"))


def numeric_profile(config: Config, device: torch.device, of_model: Mapping[str, str | int]) -> Profile:
    """The profile of a worker on this machine, with what its model adds."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu: {_cpu_name()}",
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": config.run.threads,
        "precision": config.passes.precision,
        "batch_size": config.run.batch_size,
        **of_model,
        **_of_text(config),
        **{library: version(library) for library in LIBRARIES},
    }


def tokenizer_digests(config: Config) -> dict[str, str]:
    """Column → digest of its tokenizer."""
    return {
        str(decode.column): tokenizer_digest(decode)
        for decode in config.pool.named_inputs().values()
        if isinstance(decode, TextDecode) and decode.tokenizer is not None
    }


def _of_text(config: Config) -> dict[str, str]:
    digests = {f"tokenizer of {column}": digest for column, digest in tokenizer_digests(config).items()}
    return digests | {"tokenizers": version("tokenizers")} if digests else {}


@contextmanager
def numeric_settings(threads: int) -> Iterator[None]:
    """Settings of torch that bits depend on, for the time of the block: CPU threads, true fp32 (no TF32), and kernels
    that do not choose themselves by timing."""
    before = (
        torch.get_num_threads(),
        torch.backends.cudnn.allow_tf32,
        torch.backends.cuda.matmul.allow_tf32,
        torch.backends.cudnn.benchmark,
        torch.backends.cudnn.deterministic,
    )

    def put(count: int, conv_tf32: bool, matmul_tf32: bool, benchmark: bool, deterministic: bool) -> None:
        torch.set_num_threads(count)
        torch.backends.cudnn.allow_tf32 = conv_tf32
        torch.backends.cuda.matmul.allow_tf32 = matmul_tf32
        torch.backends.cudnn.benchmark = benchmark
        torch.backends.cudnn.deterministic = deterministic

    put(threads, False, False, False, True)
    try:
        yield
    finally:
        put(*before)


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()
