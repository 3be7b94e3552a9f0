"""torch.compile, so that every worker of a job runs the same code.

The driver compiles the two parts of the model for the one shape of a batch; what the compiler made is kept as one
artefact in the run directory, and workers take it from there: they start faster, and their bits are the driver's.
Kernels are chosen by rule, never by timing them. A worker that must compile something itself has another numeric
profile.
"""

from __future__ import annotations

import copyreg
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import torch
from torch.fx import GraphModule


def _memory_format(name: str) -> torch.memory_format:
    found: torch.memory_format = getattr(torch, name)
    return found


# The compiler's cache is keyed by pickles. A memory format pickles as the attribute `torch.contiguous_format` of the
# first imported module that has a `torch`: two processes with other imports would not find each other's programs.
copyreg.pickle(torch.memory_format, lambda this: (_memory_format, (str(this).removeprefix("torch."),)))


@dataclass(frozen=True)
class Artefact:
    """What a driver's compiler made."""

    programs: str  # digest of what was compiled: the same wherever the same was
    content: str  # SHA-256 of the bytes

    @property
    def name(self) -> str:
        """In the run directory."""
        return f"compiled/{self.content[:16]}.bin"

    def load(self, content: bytes) -> None:
        """Let this process compile nothing that the artefact holds.

        Raises:
            ValueError: these are other bytes. They hold code, so no others are taken.
        """
        if sha256(content).hexdigest() != self.content:
            raise ValueError(f"{self.name} is not what the driver wrote")
        torch.compiler.load_cache_artifacts(content)


NOT_THERE = Artefact("", "")  # a worker that is told of it finds nothing, and compiles by itself


def compile_part(graph: GraphModule) -> Callable[..., Any]:
    """The graph, compiled when it is first called; for each shape anew."""
    from torch._inductor import config

    options: dict[str, Any] = {"deterministic": True} if hasattr(config, "deterministic") else {}
    return torch.compile(graph, fullgraph=True, dynamic=False, options=options)


@contextmanager
def only_these_programs() -> Iterator[None]:
    """What `save_artefact` gives in the block is what was compiled, or taken from a cache, in the block."""
    from torch.compiler._cache import CacheArtifactManager

    with CacheArtifactManager.with_fresh_cache():
        yield


def save_artefact() -> tuple[Artefact, bytes] | None:
    """What was compiled or taken from a cache; None: torch's caches are switched off, or cannot hold it."""
    saved = torch.compiler.save_cache_artifacts()
    if saved is None or not saved[1].inductor_artifacts:
        return None
    content, info = saved
    programs = sha256("".join(sorted(info.inductor_artifacts)).encode()).hexdigest()[:32]
    return Artefact(programs, sha256(content).hexdigest()), content


def programs_compiled() -> int:
    """How many programs this process compiled itself, rather than took from a cache."""
    from torch._dynamo.utils import counters

    return int(counters["inductor"]["fxgraph_cache_miss"] + counters["inductor"]["fxgraph_cache_bypass"])
