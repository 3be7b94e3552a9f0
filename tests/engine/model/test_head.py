"""In half precision the logits are not rounded again."""

from __future__ import annotations

import pytest
import torch
from dropout_nets import keys_of, mlp, scorer

ROWS = 32


@pytest.mark.parametrize("masks", ["shared", "independent"])
@pytest.mark.parametrize("half", ["bf16", "fp16"])
def test_logits_have_more_digits_than_half_precision(masks: str, half: str) -> None:
    inputs = {"": torch.randn(ROWS, 6, generator=torch.Generator().manual_seed(0))}
    model = mlp()
    mc = scorer(model, inputs, count=4, masks=masks, precision=half)
    assert mc.cut is not None
    logits = mc.logits(inputs, keys_of(ROWS))
    rounded = logits.to(torch.bfloat16 if half == "bf16" else torch.float16).float()
    assert (logits != rounded).float().mean() > 0.9
    exact = scorer(model, inputs, count=4, masks=masks).logits(inputs, keys_of(ROWS))
    assert (logits - exact).abs().max() < 0.05 * exact.abs().max()


def test_a_model_in_half_precision_of_its_own() -> None:
    inputs = {"": torch.randn(ROWS, 6, generator=torch.Generator().manual_seed(0)).bfloat16()}
    logits = scorer(mlp().bfloat16(), inputs, count=4, masks="independent").logits(inputs, keys_of(ROWS))
    assert (logits != logits.bfloat16().float()).float().mean() > 0.9
