"""Who draws random numbers while a model runs."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode


class RandomCalls(TorchDispatchMode):
    """Knows the innermost module that is running, and which one drew the first random number: torch's, Python's or
    NumPy's."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.random: tuple[str, str] | None = None
        self._model = model
        self._stack = [""]
        self._handles: list[Any] = []
        self._host = _host_state()

    @property
    def module(self) -> str:
        """The name of the innermost module that is running."""
        return self._stack[-1]

    def __enter__(self) -> RandomCalls:
        for name, module in self._model.named_modules():
            if isinstance(module, torch.jit.ScriptModule):  # takes no hooks; what it calls is out of our sight
                continue
            self._handles.append(module.register_forward_pre_hook(self._enters(name)))
            self._handles.append(module.register_forward_hook(self._leaves, always_call=True))
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)  # type: ignore[no-untyped-call]
        for handle in self._handles:
            handle.remove()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        state = torch.get_rng_state()  # the tag says that an operator may draw
        result = func(*args, **kwargs)
        if kwargs.get("generator") is not None or not torch.equal(state, torch.get_rng_state()):
            self._found(func.overloadpacket.__name__)
        return result

    def _enters(self, name: str) -> Callable[..., None]:
        def enter(*_: Any) -> None:
            self._look_at_host()
            self._stack.append(name)

        return enter

    def _leaves(self, *_: Any) -> None:  # a hook that returned anything else than None would replace the output
        self._look_at_host()
        self._stack.pop()

    def _look_at_host(self) -> None:
        if self._host != (now := _host_state()):
            self._host = now
            self._found("Python's or NumPy's random")

    def _found(self, function: str) -> None:
        self.random = self.random or (self.module, function)


def _host_state() -> tuple[Any, ...]:
    _, keys, position, *_ = np.random.get_state()
    return random.getstate(), np.asarray(keys).tobytes(), position
