"""The comparison with peers on a toy scale: that all score the same rows, and what the figures come to."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import bench_peers  # which finds the folder of the peers
from agreement import agreement
from contestants import OURS, WAYS, of_library
from poolscore_peer import configuration
from torch_peer import MonteCarlo
from workloads import WORKLOADS, frontier
from write_pools import write_subject

from poolscore.engine.prepare import read_sample

NOWHERE = Path("nowhere")  # no MNIST: random pictures


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders with every workload's pools of 3 and 5 rows; networks that were hardly trained."""
    folder = tmp_path_factory.mktemp("peers")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("write_pools.EPOCHS", 1)
        patch.setattr("write_pools.LABELLED", 8)
        for name in WORKLOADS:
            if name != "resnet50":
                write_subject(name, folder / name, NOWHERE, [3, 5])
    return folder


@pytest.mark.parametrize("name", [name for name in WORKLOADS if name != "resnet50"])
def test_a_peer_and_poolscore_see_the_same_rows(small: Path, name: str) -> None:
    workload = WORKLOADS[name]
    (ours,) = read_sample(configuration(workload, small / name, 5)).values()
    theirs = workload.load_pool(small / name, 5)
    rows = min(len(ours), 5)
    torch.testing.assert_close(ours[:rows], theirs[:rows], rtol=0, atol=1e-6)
    assert workload.load_pool(small / name, 3).equal(theirs[:3])
    assert workload.load_network(small / name)(theirs).shape == (5, 10)


def test_they_see_the_same_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("write_pools.LABELLED", 1)
    monkeypatch.setattr(nn.Module, "state_dict", lambda self: {})  # 100 MB of ResNet-50
    write_subject("resnet50", tmp_path, NOWHERE, [2])
    (ours,) = read_sample(configuration(WORKLOADS["resnet50"], tmp_path, 2)).values()
    theirs = WORKLOADS["resnet50"].load_pool(tmp_path, 2)
    assert theirs.shape == (2, 3, 224, 224)
    torch.testing.assert_close(ours[:2], theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", list(WORKLOADS))
def test_what_is_cut_by_hand_has_no_dropout(name: str) -> None:
    network = WORKLOADS[name].network()
    before = frontier(network)
    assert 0 < before < len(network)
    assert not any(isinstance(layer, nn.Dropout) for part in network[:before] for layer in part.modules())
    assert isinstance(network[before], nn.Dropout)


def test_the_loop_by_hand(small: Path) -> None:
    torch.manual_seed(0)
    workload = WORKLOADS["mlp"]
    x = workload.load_pool(small / "mlp", 5)
    whole = MonteCarlo(workload.load_network(small / "mlp"), cut=False)
    logits_TNC = whole.logits(x, passes=2)
    assert not logits_TNC[0].equal(logits_TNC[1])
    many = whole.bald(x.repeat(100, 1)).view(100, 5).mean(0)
    cut = MonteCarlo(workload.load_network(small / "mlp"), cut=True)
    found = cut.bald(x.repeat(100, 1)).view(100, 5).mean(0)
    torch.testing.assert_close(found, many, rtol=0.1, atol=0)


def test_contestants_in_processes_of_their_own() -> None:
    names = [OURS, "torch by hand, loop"]
    found = bench_peers.compare("mlp", names, Path(sys.executable), NOWHERE, rounds=2, threads=1, most=24)
    assert found["agreement"]["rows"] == 24  # all, being less than a batch
    assert found["agreement"]["spearman"][OURS]["torch by hand, loop"] > 0.3
    for one in found["contestants"].values():
        assert (one["pool"], one["rows"], len(one["seconds"]["24"])) == ("Parquet", 24, 2)
    assert found["times"]["torch by hand, loop"] > 0
    text = bench_peers.table(found)
    assert all(f"| {name} | Parquet | 24 |" in text for name in names)
    assert len({line.count("|") for line in text.splitlines()[2:]}) == 1


def test_a_rate_without_the_start() -> None:
    found = bench_peers.timed("Ray Data, loop", {10: [6.0, 5.0, 9.0], 110: [26.0, 20.0, 50.0]})
    assert (found["rows"], found["rows_per_s"], found["marginal_rows_per_s"]) == (110, 4.23, 5.0)
    one_size = bench_peers.timed("baal, loop", {50: [10.0]})
    assert (one_size["pool"], one_size["marginal_rows_per_s"], one_size["rows_per_s"]) == ("memory", 5.0, 5.0)


def test_ratios_name_the_fastest_library_as_it_comes() -> None:
    rates = {OURS: 100.0, "baal, loop": 10.0, "batchbald_redux": 20.0, "batchbald_redux, cut by hand": 50.0}
    found = bench_peers.ratios({**rates, "torch by hand, loop": 80.0})
    assert found["fastest_library"] == "batchbald_redux"
    assert found["times"]["torch by hand, loop"] == 1.25
    assert bench_peers.ratios({"baal, loop": 10.0}) == {}
    assert {name for name in WAYS if not of_library(name)} >= {OURS, "Ray Data, loop", "torch by hand, loop"}


def test_scores_that_are_others() -> None:
    bald = np.arange(1.0, 9.0)
    found = agreement({"a": bald, "b": bald[::-1], "c": bald * 1.2})
    assert found["spearman"] == {"a": {"b": -1.0, "c": 1.0}, "b": {"c": -1.0}}
    assert found["mean_bald_nats"] == {"a": 4.5, "b": 4.5, "c": 5.4}
    for wrong in (bald * 1.3, bald * np.nan):
        with pytest.raises(RuntimeError, match="mean BALD of c"):
            agreement({"a": bald, "b": bald, "c": wrong})
