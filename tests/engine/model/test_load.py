"""Building the network and reading its weights; nothing that a file hides is run."""

from __future__ import annotations

import argparse
import os
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from poolscore.engine.config import ModelConfig
from poolscore.engine.errors import ConfigError
from poolscore.engine.model.load import load_model
from poolscore.engine.model.torch_network import weights_digest
from poolscore.engine.scores import Task

FACTORIES = """
import torch
from torch import nn

def net(width=4):
    return nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.Dropout(0.5), nn.Linear(width, 2)).train()

def broken():
    raise ValueError("no such\\nwidth")

def number():
    return 7

def lazy():
    return nn.LazyLinear(3)

def bare():
    return nn.ReLU()

VALUE = 3
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "factories_of_test.py").write_text(FACTORIES)
    (tmp_path / "bad_syntax_of_test.py").write_text("def net(:\n")
    (tmp_path / "raises_of_test.py").write_text("raise RuntimeError('on import')\n")
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in ("factories_of_test", "bad_syntax_of_test", "raises_of_test"):
        sys.modules.pop(name, None)


def load(folder: Path, source: str = "factories_of_test:net", **more: Any) -> nn.Module:
    return load_model(ModelConfig(source=source, path=str(folder), task=Task.MULTICLASS, **more))


def error_of(folder: Path, **more: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load(folder, **more)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture
def state(folder: Path) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in load(folder).state_dict().items()}


def test_it_is_ready(folder: Path) -> None:
    model = load(folder, args={"width": 5})
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert model[0].out_features == 5


@pytest.mark.parametrize("form", ["safetensors", "plain", "state_dict", "model", "both", "legacy"])
def test_every_form_of_weights(folder: Path, state: dict[str, Tensor], form: str) -> None:
    path = folder / ("w.safetensors" if form == "safetensors" else "w.pt")
    if form == "safetensors":
        save_file(state, path)
    elif form == "legacy":
        torch.save(state, path, _use_new_zipfile_serialization=False)
    else:
        wrapped = {"state_dict": {"state_dict": state, "epoch": 3}, "model": {"model": state, "lr": 0.1}}
        torch.save({**wrapped, "both": {"state_dict": {"model": state}}}.get(form, state), path)
    model, again = load(folder, weights=str(path)), load(folder, weights=str(path))
    assert all(value.equal(state[key]) for key, value in model.state_dict().items())
    assert weights_digest(model) == weights_digest(again)
    assert weights_digest(model) != weights_digest(load(folder))


def test_weights_that_do_not_fit(folder: Path, state: dict[str, Tensor]) -> None:
    path = folder / "w.pt"

    def save(**parts: Any) -> None:
        torch.save(parts["state"], path)

    save(state={key: value for key, value in state.items() if key != "0.bias"})
    assert "does not fit the model: missing 0.bias; check" in error_of(folder, weights=str(path))
    save(state=state | {f"x{i}": torch.ones(1) for i in range(5)})
    assert "unknown x0, x1, x2 and 2 more; check" in error_of(folder, weights=str(path))
    save(state=state | {"0.weight": torch.ones(4, 2)})
    assert "'0.weight' is [4, 2] there, [4, 3] in the model" in error_of(folder, weights=str(path))
    save(state={f"module.{key}": value for key, value in state.items()})
    message = error_of(folder, weights=str(path))
    assert "missing 0.bias" in message
    assert "unknown module.0.bias" in message


class Payload:
    """A pickle that makes a folder when it is read without care."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle", "wrapped"])
def test_a_payload_is_not_run(folder: Path, state: dict[str, Tensor], form: str) -> None:
    mark, path = folder / "payload_ran", folder / "w.pt"
    holder: dict[str, Any] = (
        {"state_dict": state, "x": Payload(mark)} if form == "wrapped" else state | {"x": Payload(mark)}
    )
    if form == "pickle":
        path.write_bytes(pickle.dumps(holder))
    else:
        torch.save(holder, path, _use_new_zipfile_serialization=form != "legacy")
    message = error_of(folder, weights=str(path))
    assert "holds more than tensors and is not opened" in message or form == "pickle"
    assert not mark.exists()
    torch.load(path, weights_only=False) if form != "pickle" else pickle.loads(path.read_bytes())
    assert mark.exists()  # it was live


def test_other_things_than_weights(folder: Path, state: dict[str, Tensor]) -> None:
    path = folder / "w.pt"
    torch.save({"state_dict": state, "args": argparse.Namespace(lr=1)}, path)
    assert "holds more than tensors" in error_of(folder, weights=str(path))
    for thing in ([torch.ones(1)], torch.ones(2), {"a": 3}, {0: torch.ones(1)}, {**state, 7: torch.ones(1)}):
        torch.save(thing, path)
        assert "is no state dict" in error_of(folder, weights=str(path))
    torch.save(nn.Linear(2, 2), path)
    assert "holds more than tensors" in error_of(folder, weights=str(path))


def test_missing_files(folder: Path) -> None:
    assert "there is no file" in error_of(folder, weights=str(folder / "none.pt"))
    assert "there is no file" in error_of(folder, weights=str(folder))


@pytest.mark.parametrize("form", ["w.pt", "w.safetensors", "legacy"])
def test_damaged_files(folder: Path, state: dict[str, Tensor], form: str) -> None:
    """Cut off, overwritten or of another kind: an error in one line, or (a flipped number) another digest."""
    path = folder / form
    if form == "w.safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=form != "legacy")
    whole, digest = path.read_bytes(), weights_digest(load(folder, weights=str(path)))
    random = np.random.default_rng(0)
    for i in range(60):
        damaged = bytearray(whole)
        if i % 3 == 0:
            damaged = damaged[: int(random.integers(0, len(damaged)))]
        else:
            for place in random.integers(0, len(damaged) if i % 3 == 1 else min(400, len(damaged)), size=3):
                damaged[place] ^= int(random.integers(1, 256))
        path.write_bytes(damaged)
        message = ""
        try:
            load(folder, weights=str(path))
        except ConfigError as error:
            message = str(error)
        assert message.startswith("model.weights: ") or not message
        assert "\n" not in message
    for content in (b"", b"hello", b"\x80", whole[:100], random.bytes(1000)):
        path.write_bytes(content)
        assert "cannot be read" in error_of(folder, weights=str(path))
    path.write_bytes(whole)
    assert weights_digest(load(folder, weights=str(path))) == digest


def test_factories_that_do_not_work(folder: Path) -> None:
    at = "factories_of_test"
    assert "fails: ValueError: no such width" in error_of(folder, source=f"{at}:broken")
    assert "fails: TypeError" in error_of(folder, args={"depth": 3})
    assert "fails: TypeError" in error_of(folder, source=f"{at}:VALUE")
    assert "gave int, not a torch.nn.Module" in error_of(folder, source=f"{at}:number")
    assert "lazy layers" in error_of(folder, source=f"{at}:lazy")
    assert "has no 'nothing'" in error_of(folder, source=f"{at}:nothing")
    assert "cannot import 'no_such_module_of_test'" in error_of(folder, source="no_such_module_of_test:net")
    assert "fails: SyntaxError" in error_of(folder, source="bad_syntax_of_test:net")
    assert "fails: RuntimeError: on import" in error_of(folder, source="raises_of_test:net")
    for source in ("net", ":net", "factories_of_test:"):
        assert "is not of the form" in error_of(folder, source=source)
    assert isinstance(load(folder, source=f"{at}:bare"), nn.ReLU)


class Everything(nn.Module):
    """Parameters and buffers of all kinds."""

    def __init__(self) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(0)
        for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
            self.register_parameter(str(dtype)[6:] + "_", nn.Parameter(torch.randn(3, 2, generator=g).to(dtype)))
        self.register_buffer("flags", torch.tensor([True, False]))
        self.register_buffer("count", torch.tensor(3))
        self.register_buffer("none", torch.empty(0, 4))
        self.register_buffer("turned", torch.randn(4, 3, generator=g).t())
        self.register_buffer("not_saved", torch.randn(2, generator=g), persistent=False)


def test_the_digest_sees_every_bit() -> None:
    model = Everything()
    digest = weights_digest(model)
    assert digest == weights_digest(Everything())
    assert len(digest) == 32
    seen = {digest}
    for value in (*model.parameters(), *model.buffers()):
        if value.numel():
            bits = value.data[(0,) * value.ndim][None].view(torch.uint8)  # of the first number
            bits[0] ^= 1
            seen.add(weights_digest(model))
            bits[0] ^= 1
    assert weights_digest(model) == digest
    assert len(seen) == 1 + 8


def test_the_digest_sees_names_shapes_and_types() -> None:
    def net(name: str, value: Tensor) -> nn.Module:
        model = nn.Module()
        model.register_buffer(name, value)
        return model

    zeros = torch.zeros(2, 3)
    forms = [
        net("a", zeros), net("b", zeros), net("a", zeros.view(3, 2)), net("a", zeros.view(-1)), net("a", zeros.int()),
        net("a", zeros[:1]), nn.Module(),
    ]  # fmt: skip
    assert len({weights_digest(form) for form in forms}) == len(forms)
