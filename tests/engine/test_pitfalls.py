"""Every way in which other libraries go wrong (measured on them), and the test that shows that this one does not.

Dropout that is silently off
    the fused fast path of TransformerEncoderLayer    model/test_probe.py: test_the_fast_path_does_not_lose_dropout
    functional, attention, MultiheadAttention, root,  model/test_passes.py: test_the_oracle_agrees, over CASES of
    Dropout1d/2d/3d, AlphaDropout, in place             dropout_nets.py
    behind a module's training flag                   model/test_probe.py: test_a_hidden_rate_becomes_live and the next
    between the layers of LSTM, GRU, RNN              model/test_recurrent.py
    two passes that do not differ                     test_dropout_that_reaches_nothing_is_noticed (here),
                                                        refused in jobs/test_cli.py: test_wrong_models_…
BatchNorm in training mode                            model/test_passes.py: test_batch_norm_stays_as_it_is
A model that was cut wrongly                          test_a_wrong_cut_is_not_believed (here)
Logits or probabilities guessed from the data         test_scores_are_of_logits_whatever_they_look_like (here)
Logits averaged before the softmax, log(p + ε),       kernels/test_row_stats.py: against row_stats_oracle.py, in
  naive p log p, fp16 softmax, formulas that differ     float64, for every dtype and 2 to 1000 classes
Logits of −inf                                        test_masked_classes (here), kernels/test_row_stats_cases.py
NaN ranked first                                      test_select.py: test_what_is_not_finite_is_never_ranked
BALD below 0 where it is 0                            test_rows_whose_passes_agree_have_no_bald (here; over random
                                                        logits in kernels/test_row_stats_cases.py)
Masks that are never redrawn                          kernels/test_dropout_mask.py: test_every_coordinate_changes_…
Masks that are redrawn for each batch                 model/test_models.py: test_bits_do_not_depend_on_…
Scores that change with the order of the pool         test_a_shuffled_pool_has_the_same_scores (here)
Scores served for weights that have changed           test_changed_weights_are_scored_anew (here); test_score.py:
                                                        test_a_changed_pool_or_weight_is_refused_and_fresh_keeps_the_old_run
Weights that a patch initialises anew                 model/test_passes.py: test_nothing_is_left_behind
Batches changed in place                              model/test_passes.py: test_inputs_changed_in_place_are_copies
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from conftest import scores_of_run, write_pool
from dropout_nets import CASES, CPU, Fn, keys_of, scorer, with_linears
from torch import Tensor, nn

from poolscore.engine.config import Config, PassesConfig
from poolscore.engine.model.masks import SharedMasks
from poolscore.engine.model.network import Build, Cut
from poolscore.engine.model.passes import McDropout
from poolscore.engine.model.probe import Inputs, Probe
from poolscore.engine.model.torch_network import TorchNetwork
from poolscore.engine.score import score_pool
from poolscore.kernels.row_stats import SCORES_OF_TASK, row_stats

Configure = Callable[..., Config]
BOTH = ["shared", "independent"]
ALL = SCORES_OF_TASK["multiclass"]


def masked(net: nn.Module) -> nn.Module:
    """Its last class is masked, as for classes that a row cannot have."""

    def forward(self: Any, x: Tensor) -> Tensor:
        logits = self.net(x)
        return logits.masked_fill(torch.arange(logits.shape[1]) == logits.shape[1] - 1, -math.inf)

    return Fn(forward, net=net).eval()


@pytest.mark.parametrize("masks", BOTH)
def test_masked_classes(masks: str) -> None:
    """−inf is a logit: the model is split, and its scores are those of the other classes."""
    case = CASES["mlp"]
    inputs = case.inputs(8)
    mc = scorer(masked(case.model()), inputs, count=5, masks=masks)
    assert mc.cut is not None
    logits_NTC = mc.logits(inputs, keys_of(8))
    assert logits_NTC[..., -1].eq(-math.inf).all()
    stats, others = row_stats(logits_NTC, "multiclass", ALL), row_stats(logits_NTC[..., :-1], "multiclass", ALL)
    assert stats.finite.all()
    for name in ALL - {"mean_std"}:  # which is a mean over the classes
        torch.testing.assert_close(stats.scores[name], others.scores[name], rtol=0, atol=1e-6)


class WronglyCut(TorchNetwork):
    """The masks behind its frontier are those of another seed."""

    def cut(self, probe: Probe, sample: Inputs, masks: Any, build: Build) -> Cut:
        return super().cut(probe, sample, SharedMasks(probe.live, 99, masks.passes, CPU), build)


@pytest.mark.parametrize("wrap", [masked, lambda net: net], ids=["masked class", "plain"])
def test_a_wrong_cut_is_not_believed(wrap: Any) -> None:
    model, inputs = wrap(CASES["mlp"].model()), CASES["mlp"].inputs(4)
    right, wrong = (
        McDropout(network, network.probe(inputs), PassesConfig(count=5), CPU, inputs, verify=True)
        for network in (TorchNetwork(model), WronglyCut(model))
    )
    assert right.cut is not None
    assert wrong.cut is None
    assert wrong.repeated_because is not None
    assert wrong.repeated_because.startswith("the split model differs by ")
    assert 1e-4 < float(wrong.repeated_because.split()[5]) < 10
    torch.testing.assert_close(wrong.logits(inputs, keys_of(4)), right.logits(inputs, keys_of(4)), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("masks", BOTH)
@pytest.mark.parametrize("repeat", [None, "for the test"])
def test_rows_whose_passes_agree_have_no_bald(masks: str, repeat: str | None) -> None:
    """Dropout of zeros is nothing. For other libraries' sums of such rows, BALD fell to −3.8e-6."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 40)).eval()
    x = torch.randn(400, 6)
    x[:200] = -x[:200].abs()
    mc = scorer(model, {"": x}, repeat, count=20, masks=masks)
    bald = row_stats(mc.logits({"": x}, keys_of(400)), "multiclass", ["bald"]).scores["bald"]
    assert bald.min() >= 0
    assert bald[:200].max() < 2e-6
    assert bald[200:].median() > 1e-3


def test_scores_are_of_logits_whatever_they_look_like() -> None:
    """Logits between 0 and 1 that sum to 1 get their softmax like others, alone and beside any neighbour."""
    like_probabilities = torch.tensor([[[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]]])
    others = torch.tensor([[[9.0, -4.0, 0.0], [2.0, 3.0, -7.0]]])
    p = like_probabilities.double().softmax(-1)
    entropy = -(p.mean(1) * p.mean(1).log()).sum().item()
    alone = row_stats(like_probabilities, "multiclass", ["entropy"]).scores["entropy"]
    beside = row_stats(torch.cat([others, like_probabilities]), "multiclass", ["entropy"]).scores["entropy"]
    assert alone.item() == pytest.approx(entropy, rel=1e-6)
    assert beside[1].item() == alone.item()


def drops_aside(self: Any, x: Tensor) -> Tensor:
    self.drop(self.a(x))
    return self.b(self.a(x))


def test_dropout_that_reaches_nothing_is_noticed() -> None:
    x = {"": torch.randn(3, 6)}
    aside = scorer(with_linears(drops_aside, drop=nn.Dropout(0.3)), x, count=3)
    assert aside.layers
    assert not aside.dropout_matters(x)
    for name in ("root", "AlphaDropout", "MultiheadAttention, no mask, no weights, batch first"):
        x = CASES[name].inputs(3)
        assert scorer(CASES[name].model(), x, "for the test", count=3).dropout_matters(x)


# --------------------------------------------------------------------------------------------- whole runs


def by_id(config: Config) -> dict[str, np.ndarray[Any, Any]]:
    table = scores_of_run(score_pool(config).run_dir).sort_by("id")
    return {name: table[name].to_numpy() for name in ("id", "key", "bald", "entropy", "mean_std", "confidence")}


@pytest.mark.parametrize("masks", BOTH)
def test_a_shuffled_pool_has_the_same_scores(
    digit_config: Configure, digits: pa.Table, tmp_path: Path, masks: str
) -> None:
    """To rounding: rows lie in other batches and other places of them. Other masks would move BALD by 1e-3."""
    passes = {"count": 5, "masks": masks}
    before = by_id(digit_config(passes=passes, run={"dir": str(tmp_path / "before")}))
    order = np.random.default_rng(0).permutation(600)
    write_pool(tmp_path / "pool", digits.take(order))
    after = by_id(digit_config(passes=passes))
    for name in ("id", "key"):
        assert (after[name] == before[name]).all()
    for name in ("bald", "entropy", "mean_std", "confidence"):
        np.testing.assert_allclose(after[name], before[name], rtol=0, atol=2e-6)
    assert before["bald"].std() > 2e-4


def test_changed_weights_are_scored_anew(digit_config: Configure, tmp_path: Path) -> None:
    """In one process, in the same run directory: what was traced, folded and scored before is not served again."""
    config = digit_config()
    old = by_id(config)
    state = torch.load(tmp_path / "weights.pt", weights_only=True)
    state["5.weight"] *= 1.5
    torch.save(state, tmp_path / "weights.pt")
    score_pool(config, fresh=True)
    again, elsewhere = by_id(config), by_id(digit_config(run={"dir": str(tmp_path / "elsewhere")}))
    for name in ("bald", "entropy", "confidence"):
        assert (again[name] == elsewhere[name]).all()
        assert np.abs(again[name] - old[name]).max() > 1e-3
