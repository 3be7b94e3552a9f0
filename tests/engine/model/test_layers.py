"""passes.layers: which dropout is live."""

from __future__ import annotations

import pytest
import torch
from dropout_nets import CASES, CPU
from torch import Tensor, nn

from poolscore.engine.config import PassesConfig
from poolscore.engine.errors import ConfigError
from poolscore.engine.model.layers import choose_layers
from poolscore.engine.model.passes import McDropout
from poolscore.engine.model.torch_network import TorchNetwork

KEYS = torch.arange(6)


def live(model: nn.Module, inputs: dict[str, Tensor], wanted: str | tuple[str, ...]) -> list[int]:
    return [layer.index for layer in choose_layers(TorchNetwork(model).probe(inputs), wanted).live]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("all", [0, 1, 2, 3, 4, 5, 6, 7]),
        ("head", [7]),
        (("encoder.layers.1",), [4, 5, 6, 7]),
        (("encoder.layers.0.dropout1", "encoder.layers.1.dropout2"), [1, 7]),
        (("encoder",), [0, 1, 2, 3, 4, 5, 6, 7]),
    ],
)
def test_layers_are_chosen_by_name_or_place(wanted: str | tuple[str, ...], expected: list[int]) -> None:
    case = CASES["encoder, batch first, norm first"]
    assert live(case.model(), case.inputs(6), wanted) == expected


def test_the_model_itself_has_a_name_too() -> None:
    assert live(nn.Dropout(0.3), {"": torch.randn(6, 4)}, ("(root)",)) == [0]


@pytest.mark.parametrize(
    ("name", "hint"), [("encoder.layers.1.dropout3", "did you mean 'encoder.layers.1."), ("x", "there are: encoder.")]
)
def test_an_unknown_name_is_refused(name: str, hint: str) -> None:
    case = CASES["encoder, batch first, norm first"]
    with pytest.raises(ConfigError, match=f"passes.layers: no dropout is called '{name}'; {hint}"):
        live(case.model(), case.inputs(6), (name,))


@pytest.mark.parametrize("name", ["encoder, batch first, norm first", "hand-written attention", "cnn, Dropout2d"])
@pytest.mark.parametrize("masks", ["shared", "independent"])
def test_a_layer_keeps_its_masks_whatever_others_are_live(name: str, masks: str) -> None:
    """The split model agrees with the whole one, and both differ from the model with every layer live."""
    case = CASES[name]
    inputs = case.inputs(6)
    network = TorchNetwork(case.model())
    probe = choose_layers(network.probe(inputs), "head")
    config = PassesConfig(count=4, masks=masks)
    cut = McDropout(network, probe, config, CPU, inputs)
    whole = McDropout(network, probe, config, CPU, inputs, repeat_because="for the test")
    assert cut.cut is not None
    a, b = cut.logits(inputs, KEYS), whole.logits(inputs, KEYS)
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    assert a.std(dim=1).max() > 1e-4  # something is live
    every = McDropout(network, network.probe(inputs), config, CPU, inputs, repeat_because="for the test")
    assert (every.logits(inputs, KEYS) - b).abs().max() > 1e-4  # and something is not
    (last,) = probe.live
    factor, _ = whole._masks.affine(last.index, KEYS, range(4))
    same, _ = every._masks.affine(last.index, KEYS, range(4))
    assert factor.equal(same)


def test_attention_that_is_off_stays_one_operator() -> None:
    case = CASES["encoder, batch first, norm first"]
    network = TorchNetwork(case.model())
    inputs = case.inputs(6)
    probe = choose_layers(network.probe(inputs), "head")
    cut = McDropout(network, probe, PassesConfig(count=2), CPU, inputs).cut
    assert cut is not None
    targets = [str(node.target) for node in cut.parts.prefix.graph.nodes]  # type: ignore[attr-defined]
    assert sum("scaled_dot_product" in target for target in targets) == 2
    assert not any("softmax" in target for target in targets)


def test_one_name_needs_no_list() -> None:
    assert PassesConfig.model_validate({"layers": "drop1"}).layers == ("drop1",)
    assert PassesConfig.model_validate({"layers": "head"}).layers == "head"
