"""Models written as files: their dropout stays live, in its order, with the same draws, whatever kind it is."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import dropout_nets as dn
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch import Tensor, nn

from poolscore.engine.errors import ConfigError
from poolscore.engine.model import export
from poolscore.engine.model.export import Exported, write_model
from poolscore.engine.model.probe import Inputs, probe_model
from poolscore.engine.model.program import load_program
from poolscore.kernels.dropout_mask_numpy import keep_mask_numpy

SCORED_ALIKE = [
    "cnn, Dropout2d", "Dropout1d", "AlphaDropout", "FeatureAlphaDropout", "torch.dropout_", "in place", "root",
    "shared twice", "two inputs", "windows", "batch second, folded", "sdpa, causal", "hand-written attention",
    "MultiheadAttention, padding, bool, weights, sequence first",
]  # fmt: skip
IN_ONNX = [
    "cnn, Dropout2d", "torch.dropout", "Dropout3d", "FeatureAlphaDropout", "in place", "two inputs", "windows",
    "sdpa, bool mask by row", "MultiheadAttention, padding, no weights, batch first",
]  # fmt: skip
PASSES, ROWS = 3, 2


def write(model: nn.Module, inputs: Inputs, path: Path) -> Exported:
    return write_model(model, probe_model(model, inputs), inputs, path)


@pytest.mark.parametrize("name", SCORED_ALIKE)
def test_a_program_scores_as_the_model_it_was_written_from(name: str, tmp_path: Path) -> None:
    """Bit for bit, with layers of the same names in the same order."""
    case = dn.CASES[name]
    model, inputs = case.model(), case.inputs(3)
    exported = write(model, inputs, tmp_path / "net.pt2")
    program = load_program(exported.files[0], trust=False)
    ours, theirs = dn.scorer(model, inputs, count=PASSES), dn.scorer(program, inputs, count=PASSES)
    assert exported.layers == theirs.layers == ours.layers
    assert len(ours.layers) == case.layers
    assert exported.trust is None
    rows, keys = case.inputs(5, seed=4), dn.keys_of(5)
    assert theirs.logits(rows, keys).equal(ours.logits(rows, keys))
    assert theirs.without_dropout(rows).equal(ours.without_dropout(rows))


def test_a_program_holds_no_pickle_and_no_source_code(tmp_path: Path) -> None:
    case = dn.CASES["cnn, Dropout2d"]
    write(case.model(), case.inputs(3), tmp_path / "net.pt2")
    with ZipFile(tmp_path / "net.pt2") as file:
        content = {info.filename: file.read(info) for info in file.infolist()}
    assert content["net/data/sample_inputs/model.pt"] == b""
    assert not [name for name, data in content.items() if data[:1] == b"\x80" or data[:2] == b"PK"]
    assert b".py" not in content["net/models/model.json"]
    parameters = {"0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var", "6.weight", "6.bias"}
    weights = json.loads(content["net/data/weights/model_weights_config.json"])["config"]
    assert parameters <= set(weights)


# ------------------------------------------------------------------------------------------------- ONNX


def masked(model: onnx.ModelProto) -> list[tuple[str, float]]:
    """Put x·mask in the place of every Dropout, with masks as flat inputs; gives their names and rates in order."""
    constants = {node.output[0]: node.attribute[0].t for node in model.graph.node if node.op_type == "Constant"}
    nodes, masks = [], []
    for node in model.graph.node:
        if node.op_type != "Dropout":
            nodes.append(node)
            continue
        assert onnx.numpy_helper.to_array(constants[node.input[2]]).item() is True  # training mode
        rate = onnx.numpy_helper.to_array(constants[node.input[1]]).item()
        name = f"mask_{len(masks)}"
        masks.append((name, rate))
        model.graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [f"length of {name}"]))
        nodes += [
            helper.make_node("Shape", [node.input[0]], [f"{name}_shape"]),
            helper.make_node("Reshape", [name, f"{name}_shape"], [f"{name}_fitted"]),
            helper.make_node("Mul", [node.input[0], f"{name}_fitted"], [node.output[0]]),
        ]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return masks


@pytest.mark.parametrize("name", IN_ONNX)
def test_an_onnx_file_has_the_same_layers_and_draws(name: str, tmp_path: Path) -> None:
    """Its Dropout nodes, answered with the contract's masks in their order, give what the model gives with them."""
    case = dn.CASES[name]
    model, inputs = case.model(), case.inputs(3)
    exported = write(model, inputs, tmp_path / "net.onnx")
    assert exported.files == (tmp_path / "net.onnx",)
    proto = onnx.load(exported.files[0])
    onnx.checker.check_model(proto, full_check=True)
    assert [x.version for x in proto.opset_import if not x.domain] == [exported.opset]
    assert [x.name for x in proto.graph.input] == [name or "input" for name in inputs]
    assert [x.name for x in proto.graph.output] == ["logits"]
    masks = masked(proto)
    assert [rate for _, rate in masks] == pytest.approx([layer.p for layer in exported.layers])
    assert len(masks) == case.layers
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    rows = case.inputs(ROWS, seed=4)

    def run(n: int, answers: list[NDArray[np.float32]]) -> Tensor:
        feed = {name or "input": x[n : n + 1].numpy() for name, x in rows.items()}
        feed |= {name: answer for (name, _), answer in zip(masks, answers, strict=True)}
        return torch.from_numpy(session.run(["logits"], feed)[0])[0]

    elements = [layer.elements for layer in exported.layers]
    wanted, _ = dn.expected(model, rows, PASSES)
    for n in range(ROWS):
        for t in range(PASSES):
            keep = [keep_mask_numpy(0, i, range(t, t + 1), e, exported.layers[i].p) for i, e in enumerate(elements)]
            scaled = [(k.ravel() / (1 - p)).astype(np.float32) for k, (_, p) in zip(keep, masks, strict=True)]
            torch.testing.assert_close(run(n, scaled), wanted[n, t], rtol=1e-5, atol=1e-5)
        off = run(n, [np.ones(e, dtype=np.float32) for e in elements])
        plain = dn.scorer(model, inputs).without_dropout({k: x[n : n + 1] for k, x in rows.items()})[0, 0]
        torch.testing.assert_close(off, plain, rtol=1e-5, atol=1e-5)


def test_large_weights_lie_beside_the_onnx_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "ONE_FILE", 100)
    exported = write(dn.CASES["mlp"].model(), dn.CASES["mlp"].inputs(3), tmp_path / "net.onnx")
    assert [file.name for file in exported.files] == ["net.onnx", "net.onnx.data"]
    onnx.checker.check_model(exported.files[0])


def test_an_onnx_file_takes_any_number_of_rows(tmp_path: Path) -> None:
    case = dn.CASES["mlp"]
    write(case.model(), case.inputs(3), tmp_path / "net.onnx")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # it takes Dropout out
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx", options, providers=["CPUExecutionProvider"])
    for rows in (1, 7):
        first, second = (session.run(None, {"input": case.inputs(rows)[""].numpy()})[0] for _ in range(2))
        assert first.shape == (rows, 3)
        assert not np.array_equal(first, second)  # ONNX Runtime draws by itself


# ------------------------------------------------------------------------------------ what goes wrong


class Wanting(nn.Module):
    """What the exporter cannot trace, or keeps in a graph within the graph."""

    def __init__(self, branches: bool, p: float = 0.3) -> None:
        super().__init__()
        self.drop = nn.Dropout(p)
        self.a = nn.Linear(6, 3)
        self.branches = branches

    def forward(self, x: Tensor) -> Tensor:
        if self.branches:
            return self.drop(self.a(x)) * (2 if bool(x.sum() > 0) else 3)
        with torch.autocast("cpu", enabled=False):
            h = self.drop(x)
        return self.drop(self.a(h))


@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
def test_models_that_cannot_be_traced(suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, inputs = Wanting(branches=True).eval(), dn.CASES["mlp"].inputs(3)
    probe = probe_model(model, inputs)
    with pytest.raises(ConfigError, match="it cannot be traced: ") as caught:
        write_model(model, probe, inputs, tmp_path / f"net{suffix}")
    assert "\n" not in str(caught.value)
    assert capsys.readouterr() == ("", "")
    assert "forward" not in vars(model)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
def test_no_dropout_call_is_lost(suffix: str, tmp_path: Path) -> None:
    model, inputs = dn.CASES["mlp"].model(), dn.CASES["mlp"].inputs(3)
    probe = probe_model(model, inputs)
    with pytest.raises(ConfigError, match="1 of its 3 dropout calls lie where the exporter hides them"):
        write_model(model, replace(probe, layers=(*probe.layers, probe.layers[0])), inputs, tmp_path / f"net{suffix}")
    assert not list(tmp_path.iterdir())


def test_a_file_that_needs_trust_says_so(tmp_path: Path) -> None:
    model, inputs = Wanting(branches=False).eval(), dn.CASES["mlp"].inputs(3)
    exported = write(model, inputs, tmp_path / "net.pt2")
    assert exported.trust is not None
    assert "calls torch.ops.higher_order.wrap_with_autocast" in exported.trust
    ours, theirs = (dn.scorer(m, inputs) for m in (model, load_program(exported.files[0], trust=True)))
    assert theirs.logits(inputs, dn.keys_of(3)).equal(ours.logits(inputs, dn.keys_of(3)))


def test_onnx_needs_its_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec

    def missing(name: str, *args: Any) -> Any:
        return None if name == "onnxscript" else found(name, *args)

    monkeypatch.setattr(importlib.util, "find_spec", missing)
    case = dn.CASES["mlp"]
    with pytest.raises(ConfigError, match=r"pip install 'poolscore\[export\]'"):
        write(case.model(), case.inputs(3), tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []
