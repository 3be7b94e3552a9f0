"""What torch's exporter writes (dynamo=True, optimize=False, only the dropout in training mode), scored as in torch.

One net with all that is special about it: token ids and a padding mask as inputs, attention dropout, an LSTM whose
dropout between the layers becomes a Dropout node between two LSTM nodes.
"""

from __future__ import annotations

import logging
import warnings

import pytest
import torch
from dropout_nets import CPU, keys_of
from torch import Tensor, nn

from poolscore.engine.config import PassesConfig
from poolscore.engine.model.network import Network
from poolscore.engine.model.onnx.network import OnnxNetwork
from poolscore.engine.model.passes import McDropout
from poolscore.engine.model.torch_network import TorchNetwork

D = 8


class TwoLayers(nn.Module):
    """The LSTM as torch's exporter writes it, for torch: layer by layer, with the dropout between them in sight."""

    def __init__(self, lstm: nn.LSTM) -> None:
        super().__init__()
        self.below, self.above = nn.LSTM(D, D, batch_first=True), nn.LSTM(D, D, batch_first=True)
        self.drop = nn.Dropout(lstm.dropout)
        for layer, part in enumerate((self.below, self.above)):
            for name, value in part.named_parameters():
                value.data.copy_(getattr(lstm, name.replace("l0", f"l{layer}")))

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        return self.above(self.drop(self.below(x)[0]))[0], None


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, D)
        self.encode = nn.TransformerEncoderLayer(D, 2, 12, 0.2, batch_first=True)
        self.read: nn.Module = nn.LSTM(D, D, 2, batch_first=True, dropout=0.3)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(D, 3)

    def forward(self, tokens: Tensor, padding: Tensor) -> Tensor:
        h = self.encode(self.embed(tokens), src_key_padding_mask=padding)
        return self.head(self.drop(self.read(h)[0][:, -1]))


def inputs_of(rows: int) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(rows)
    padding = torch.zeros(rows, 5, dtype=torch.bool)
    padding[1::2, 3:] = True
    return {"tokens": torch.randint(0, 20, (rows, 5), generator=g), "padding": padding}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Network]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Net().eval().requires_grad_(False)
    for module in model.modules():
        module.training = isinstance(module, nn.Dropout | nn.MultiheadAttention | nn.TransformerEncoderLayer | nn.LSTM)
    path = tmp_path_factory.mktemp("dynamo") / "model.onnx"
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns about libraries that are not there
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = torch.export.Dim("rows", min=1)
        torch.onnx.export(
            model, tuple(inputs_of(3).values()), str(path), dynamo=True, optimize=False, verbose=False,
            input_names=["tokens", "padding"], output_names=["logits"], dynamic_shapes=[{0: rows}] * 2,
        )  # fmt: skip
    model.read = TwoLayers(model.read)  # type: ignore[arg-type]
    return {"torch": TorchNetwork(model.eval()), "onnx": OnnxNetwork(path)}


@pytest.mark.parametrize("masks", ["shared", "independent"])
def test_the_same_as_in_torch(models: dict[str, Network], masks: str) -> None:
    inputs, keys, found = inputs_of(6), keys_of(6), {}
    for name, network in models.items():
        probe = network.probe(inputs)
        repeat = "takes seconds to trace" if name == "torch" else None
        mc = McDropout(network, probe, PassesConfig(count=4, masks=masks), CPU, inputs, repeat_because=repeat)
        assert mc.repeated_because == repeat
        found[name] = mc.logits(inputs, keys), [(x.p, x.shape, x.batch_dim, x.fold) for x in probe.layers]
    assert [p for p, *_ in found["onnx"][1]] == [p for p, *_ in found["torch"][1]]
    assert found["onnx"][1][4] == (0.3, (5, D), 1, 1)  # ONNX's LSTM takes the sequence first; the masks are the same
    assert found["onnx"][0].std(dim=1).min() > 1e-3
    torch.testing.assert_close(found["onnx"][0], found["torch"][0], rtol=0, atol=1e-5)


def test_layers_are_called_as_in_torch(models: dict[str, Network]) -> None:
    names = [layer.name for layer in models["onnx"].probe(inputs_of(3)).layers]
    assert names == ["encode.self_attn", "encode.dropout1", "encode.dropout", "encode.dropout2", "read", "drop"]


def test_what_lies_behind_the_frontier_is_told_by_module(models: dict[str, Network]) -> None:
    inputs = inputs_of(3)
    mc = McDropout(models["onnx"], models["onnx"].probe(inputs), PassesConfig(count=2), CPU, inputs)
    assert mc.cut is not None
    before, behind = mc.cut.modules
    assert before[:2] == ("embed", "encode")
    assert behind[-3:] == ("read", "drop", "head")
