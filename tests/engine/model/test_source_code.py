"""The digest of a model's code changes with what the code does, and with nothing else."""

from __future__ import annotations

import importlib
import linecache
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn

from poolscore.engine.model.source_code import code_digest

LAYERS = """
import torch
import torch.nn.functional as F
import other_layers
from torch import nn

def act(x):
    return torch.relu(x)

def train():
    return 1

class Base(nn.Module):
    def scale(self, x):
        return 2 * x

class Net(Base):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2, 2)

    def forward(self, x):
        return self.scale(other_layers.twist(act(self.fc(x))))
"""
OTHER = """
def twist(x):
    return x + 1
"""

Digest = Callable[..., str]


@pytest.fixture
def digest_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Digest:
    """Digest of the network above, with a text replaced in its file or in the other."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def digest(old: str = "", new: str = "") -> str:
        for name, text in (("layers", LAYERS), ("other_layers", OTHER)):
            (tmp_path / f"{name}.py").write_text(text.replace(old, new) if old else text)
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        linecache.clearcache()
        found = code_digest(importlib.import_module("layers").Net())
        for name in ("layers", "other_layers"):
            sys.modules.pop(name)
        return found

    return digest


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("torch.relu(x)", "torch.sigmoid(x)"),  # a function that forward calls
        ("self.scale(", "("),  # forward
        ("2 * x", "3 * x"),  # a class it is made from
        ("x + 1", "x + 2"),  # a function of another file
    ],
)
def test_what_a_model_computes_is_in_it(digest_of: Digest, old: str, new: str) -> None:
    assert digest_of(old, new) != digest_of()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("return torch.relu(x)", "return torch.relu( x )  # so"),
        ("return 1", "return 2"),  # of a function that the model does not call
    ],
)
def test_nothing_else_is(digest_of: Digest, old: str, new: str) -> None:
    assert digest_of(old, new) == digest_of()


def test_libraries_have_versions_and_no_code() -> None:
    assert code_digest(nn.Linear(2, 2)) == code_digest(nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU()))
