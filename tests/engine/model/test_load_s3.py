"""Models and weights in object storage give what the local files give."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import nets
import onnx
import onnx_nets
import pytest
import torch
from safetensors.torch import save_file

from poolscore.engine.config import ModelConfig
from poolscore.engine.errors import ConfigError
from poolscore.engine.model.load import load_network
from poolscore.engine.scores import Task
from poolscore.engine.storage.filesystem import locate

TESTS = Path(__file__).parents[2]


def config(source: object, **more: Any) -> ModelConfig:
    return ModelConfig(source=str(source), path=str(TESTS), task=Task.MULTICLASS, **more)


def put(file: Path, bucket: str) -> str:
    at = locate(f"{bucket}/models/{file.name}")
    with at.filesystem.open_output_stream(at.path) as to:
        to.write(file.read_bytes())
    return f"{bucket}/models/{file.name}"


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    yield
    assert not list((tmp_path / "temporary").glob("poolscore-*"))


def test_weights(tmp_path: Path, bucket: str) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        state = nets.cnn().state_dict()
    torch.save(state, tmp_path / "net.pt")
    save_file(state, tmp_path / "net.safetensors")
    here = load_network(config("nets:cnn", weights=str(tmp_path / "net.pt"))).weights
    for name in ("net.pt", "net.safetensors"):
        assert load_network(config("nets:cnn", weights=put(tmp_path / name, bucket))).weights == here


def test_a_program(tmp_path: Path, bucket: str) -> None:
    sample = torch.rand(2, 1, 8, 8)
    rows = {0: torch.export.Dim("rows", min=1)}
    torch.export.save(torch.export.export(nets.cnn().eval(), (sample,), dynamic_shapes=(rows,)), tmp_path / "net.pt2")
    here = load_network(config(tmp_path / "net.pt2"))
    there = load_network(config(put(tmp_path / "net.pt2", bucket)))
    assert (here.weights, here.description) == (there.weights, there.description)


def test_an_onnx_file_and_its_weights_beside_it(tmp_path: Path, bucket: str) -> None:
    proto = onnx_nets.mlp([onnx_nets.constant("p", 0.3), onnx_nets.node("Dropout", ["r", "p"], "d")])
    onnx.save(proto, tmp_path / "net.onnx", save_as_external_data=True, location="net.bin", size_threshold=0)
    here = load_network(config(tmp_path / "net.onnx"))
    uri = put(tmp_path / "net.onnx", bucket)
    with pytest.raises(ConfigError, match=r"^model.source: s3://.*/net.onnx cannot be read: .*net.bin"):
        load_network(config(uri))
    put(tmp_path / "net.bin", bucket)
    there = load_network(config(uri))
    assert (here.weights, here.description) == (there.weights, there.description)
    with pytest.raises(ConfigError, match=f"^model.source: {uri} has the inputs"):  # by its own name, also later
        there.probe({"other": torch.rand(2, 6)})


@pytest.mark.parametrize("name", ["net.pt2", "net.onnx", "net.pt", "net.safetensors"])
def test_what_is_missing_or_damaged_is_named_as_in_the_configuration(tmp_path: Path, bucket: str, name: str) -> None:
    def error(uri: str) -> str:
        given = config("nets:cnn", weights=uri) if name in ("net.pt", "net.safetensors") else config(uri)
        with pytest.raises(ConfigError) as caught:
            load_network(given)
        return str(caught.value)

    assert f"there is no file {bucket}/models/{name}" in error(f"{bucket}/models/{name}")
    (tmp_path / name).write_bytes(b"no model")
    uri = put(tmp_path / name, bucket)
    assert uri in error(uri)
    assert "temporary" not in error(uri)
