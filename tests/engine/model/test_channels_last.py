"""Channels-last memory changes where numbers lie, not what they are."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from dropout_nets import Fn, cnn, scorer
from torch import Tensor, nn

from poolscore.engine.model.frontier import SplitModel

ROWS = 5


def viewed(self: Fn, x: Tensor) -> Tensor:
    h = self.conv(x).relu()
    return self.b(self.drop(h.view(h.shape[0], -1)))  # strides that a channels-last tensor does not have


def written_through_a_view(self: Fn, x: Tensor) -> Tensor:
    h = self.conv(x)
    flat = h.view(h.shape[0], -1)
    flat.clamp_(min=0.1)
    return self.b(self.drop(h.flatten(1)))


def functional_weights(self: Fn, x: Tensor) -> Tensor:
    return self.b(self.drop(F.conv2d(x, self.conv.weight * 2).flatten(1)))


def net(forward: Callable[..., Tensor]) -> nn.Module:
    torch.manual_seed(3)
    return Fn(forward, conv=nn.Conv2d(2, 5, 3), drop=nn.Dropout(0.3), b=nn.Linear(5 * 16, 3))


@pytest.mark.parametrize(
    ("build", "is_used"),
    [
        (cnn, True),
        (lambda: net(viewed), True),
        (lambda: net(written_through_a_view), False),
        (lambda: net(functional_weights), True),
    ],
    ids=["cnn", "a view", "written through a view", "a weight that is computed"],
)
def test_the_answer_is_that_of_the_whole_model(build: Callable[[], nn.Module], is_used: bool) -> None:
    model = build()
    inputs = {"": torch.randn(ROWS, 2, 6, 6, generator=torch.Generator().manual_seed(0))}
    strides = [p.stride() for p in model.parameters()]
    cut, whole = scorer(model, inputs, count=6), scorer(model, inputs, repeat="for the test", count=6)
    assert isinstance(cut.cut, SplitModel)
    assert cut.cut._channels_last is is_used
    assert [p.stride() for p in model.parameters()] == strides  # the user's model is left as it was
    keys = torch.arange(ROWS)
    torch.testing.assert_close(cut.logits(inputs, keys), whole.logits(inputs, keys), rtol=1e-5, atol=1e-6)
