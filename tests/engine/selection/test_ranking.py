"""Stochastic batch acquisition against its distributions, with fixed seeds; and its noise."""

from __future__ import annotations

import math
from itertools import permutations
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from test_select import make_run

from poolscore.engine.errors import ConfigError
from poolscore.engine.keys import keys_of
from poolscore.engine.selection.batch import select_batch
from poolscore.engine.selection.choice import Choice
from poolscore.engine.selection.ranking import ranking_of, softranks
from poolscore.kernels.gumbel import LARGEST, gumbel_may_reach, gumbel_of, log
from poolscore.kernels.philox import WORD, philox_numpy

SCORES = np.array([0.5, 0.2, 0.2, 0.1], np.float32)
KEYS = keys_of([f"r{i}" for i in range(4)])
DRAWS = 4000  # so that the rarest pair is expected 14 times: chi-square wants more than 5
WEIGHTS = {  # of a row, from which k rows are drawn one after another without replacement
    "power": lambda scores, beta: scores**beta,
    "softmax": lambda scores, beta: np.exp(beta * scores),
    "softrank": lambda scores, beta: np.array([1.0, 2.0, 3.0, 4.0]) ** -beta,
}


def pairs(method: str, beta: float) -> dict[tuple[int, ...], int]:
    """How often each ordered pair of rows came first, over DRAWS seeds."""
    order = np.lexsort((KEYS, -SCORES))  # the total order, which softrank goes by
    counts: dict[tuple[int, ...], int] = {}
    for seed in range(DRAWS):
        if method == "softrank":
            values = softranks(KEYS[order], 1, beta, seed)
        else:
            _, values = ranking_of(method, beta, seed).at_least(SCORES, KEYS, -np.inf)
        best = np.argsort(-values)[:2]
        pair = tuple(best.tolist())
        counts[pair] = counts.get(pair, 0) + 1
    return counts


@pytest.mark.parametrize("beta", [1.0, 2.0])
@pytest.mark.parametrize("method", WEIGHTS)
def test_pairs_are_drawn_without_replacement(method: str, beta: float) -> None:
    weights = WEIGHTS[method](SCORES.astype(np.float64), beta)
    counts = pairs(method, beta)
    chi_square = 0.0
    for first, second in permutations(range(4), 2):
        rest = weights.sum() - weights[first]
        expected = DRAWS * weights[first] / weights.sum() * weights[second] / rest
        chi_square += (counts.get((first, second), 0) - expected) ** 2 / expected
    assert chi_square < 31.3  # of 11 degrees of freedom: exceeded by chance once in 1,000 times; the seeds are fixed


def test_the_noise_is_a_gumbel() -> None:
    noise = np.sort(gumbel_of(keys_of([str(i) for i in range(100_000)]), 3))
    distance = np.abs(np.exp(-np.exp(-noise)) - (np.arange(100_000) + 0.5) / 100_000).max()
    assert distance < 1.95 / math.sqrt(100_000)  # Kolmogorov-Smirnov, once in 1,000 times
    assert len(np.unique(noise)) == 100_000


def test_the_noise_never_changes() -> None:
    keys = np.array([0, 1, 13020603013274838756, 2**64 - 1], np.uint64)
    for seed in (0, 2**64 - 1):
        high, low, _, _ = philox_numpy(keys & np.uint64(WORD), keys >> np.uint64(32), WORD, WORD - 1, seed=seed)
        draws = [(int(h) << 32) | int(w) for h, w in zip(high, low, strict=True)]
        exact = [-math.log(-math.log1p(-(draw + 0.5) * 2.0**-64)) for draw in draws]
        assert gumbel_of(keys, seed) == pytest.approx(exact, rel=1e-14)
    assert gumbel_of(keys, 0).tolist() == GOLDEN


# Selections that were made must come out again, on every machine.
GOLDEN = [1.7466387632972604, -0.7068759342091764, -0.7942742990626599, -0.4450173270291125]


def test_noise_is_a_function_of_key_and_seed() -> None:
    keys = keys_of([str(i) for i in range(20_000)])  # more than a block
    whole = gumbel_of(keys, 1)
    assert whole[7:9000].tolist() == gumbel_of(keys[7:9000], 1).tolist()
    assert whole[::-1].tolist() == gumbel_of(keys[::-1], 1).tolist()
    assert not (whole == gumbel_of(keys, 2)).any()
    with pytest.raises(ValueError, match="uint64"):
        gumbel_of(keys.view(np.int64), 1)  # type: ignore[arg-type]


@pytest.mark.parametrize("edge", [-3.0, 0.0, 2.0, 7.5, 40.0])
def test_what_may_reach_is_all_that_does_and_little_more(edge: float) -> None:
    keys = keys_of([str(i) for i in range(30_000)])
    does = gumbel_of(keys, 5) >= edge
    may = gumbel_may_reach(keys, 5, np.full(len(keys), np.exp(-edge)))
    assert (may | ~does).all()
    if edge > 0:
        assert may.sum() <= does.sum() * (1 + np.exp(-edge)) + 5 * math.sqrt(does.sum() + 1)
    assert gumbel_may_reach(keys[:1], 5, np.array([np.nan])).all()


def test_the_logarithm_is_one() -> None:
    random = np.random.default_rng(0)
    x = np.concatenate(
        [random.random(20_000), np.exp(random.uniform(-700, 700, 20_000)), 1 + random.normal(0, 1e-9, 9999)]
    )
    x = np.append(x, [5e-324, 1.7e308, 1.0, 0.5, 2.0])
    exact = np.log(x.astype(np.longdouble))
    assert (np.abs(log(x) - exact) <= 2 * np.spacing(np.abs(exact).astype(np.float64))).all()


def test_the_extremes_of_the_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    def words(keys: NDArray[np.uint64], seed: int):  # type: ignore[no-untyped-def]
        yield 0, keys >> np.uint64(32), keys & np.uint64(WORD)

    monkeypatch.setattr("poolscore.kernels.gumbel._words", words)
    ends = np.array([0, 1, 2**62 - 1, 2**62, 2**63, 2**64 - 1], np.uint64)
    noise = gumbel_of(ends, 0)
    assert (np.diff(noise[[0, 1, 2, 4, 5]]) < 0).all()
    assert abs(noise[2] - noise[3]) < 1e-15  # neighbours on both sides of a seam
    assert noise[0] < LARGEST
    assert noise[5] > -4


@pytest.mark.parametrize("method", ["power", "softmax", "softrank"])
def test_a_selection_by_chance(tmp_path: Path, method: str) -> None:
    scores = np.random.default_rng(1).random(40).tolist()
    run = make_run(tmp_path, [scores[:15], scores[15:]])
    table = select_batch(run, run.config, k=10, method=method, beta=2.0, seed=4)
    names = table.schema.names
    assert names[5:8] == ["method", "score_name", "perturbed_score"]
    rows, values = table["row_id"].to_pylist(), table["perturbed_score"].to_pylist()
    assert values == sorted(values, reverse=True)
    assert table["score"].to_pylist() == [float(np.float32(scores[i])) for i in rows]
    assert set(table["method"].to_pylist()) == {method}
    ranked = select_batch(run, run.config, k=40)
    ranks = dict(zip(ranked["row_id"].to_pylist(), range(1, 41), strict=True))
    location = {
        "power": lambda i: 2 * math.log(np.float32(scores[i])),
        "softmax": lambda i: 2 * np.float32(scores[i]).item(),
        "softrank": lambda i: -2 * math.log(ranks[i]),
    }[method]
    noise = gumbel_of(keys_of([f"r{i}" for i in range(40)]), 4)
    expected = {i: location(i) + noise[i] for i in range(40)}
    assert rows == sorted(expected, key=lambda i: -expected[i])[:10]
    assert values == pytest.approx([expected[i] for i in rows], rel=1e-12)
    assert rows != select_batch(run, run.config, k=10, method=method, beta=2.0, seed=5)["row_id"].to_pylist()


@pytest.mark.parametrize("method", ["power", "softmax"])
def test_the_growth_of_a_pool_changes_no_row(tmp_path: Path, method: str) -> None:
    scores = np.random.default_rng(2).random(60).tolist()
    small, large = make_run(tmp_path / "a", [scores[:30]]), make_run(tmp_path / "b", [scores[:30], scores[30:]])
    few, many = (select_batch(run, run.config, k=30, method=method) for run in (small, large))
    of = dict(zip(few["row_id"].to_pylist(), few["perturbed_score"].to_pylist(), strict=True))
    both = [
        (i, v) for i, v in zip(*(many[c].to_pylist() for c in ("row_id", "perturbed_score")), strict=True) if i < 30
    ]
    assert both
    assert all(of[i] == v for i, v in both)


def test_scores_of_zero_come_last_by_key_under_power(tmp_path: Path) -> None:
    run = make_run(tmp_path, [[0.0, 0.3, 0.0], [0.0, -1.0, 0.1]])
    table = select_batch(run, run.config, k=6, method="power")
    last = sorted([0, 2, 3, 4], key=lambda i: keys_of([f"r{i}"])[0])
    assert set(table["row_id"].to_pylist()[:2]) == {1, 5}
    assert table["row_id"].to_pylist()[2:] == last
    assert table["perturbed_score"].to_pylist()[2:] == [-math.inf] * 4


def test_choices_that_are_none(tmp_path: Path) -> None:
    run = make_run(tmp_path, [[1.0, 2.0]])
    assert Choice.of(run.config) == Choice("bald", 3, "topk", 1.0, 0)
    for wanted, message in (
        ({"method": "powr"}, "--method powr: there are topk, power, softmax, softrank"),
        ({"beta": 0.0}, "--beta 0.0: must be above 0"),
        ({"beta": math.inf}, "--beta inf"),
        ({"beta": math.nan}, "--beta nan"),
        ({"seed": -1}, "--seed -1"),
        ({"k": -1}, "k must be 0 or more"),
    ):
        with pytest.raises(ConfigError, match=message):
            Choice.of(run.config, **wanted)  # type: ignore[arg-type]


def test_the_selection_of_a_run_is_by_its_method(tmp_path: Path) -> None:
    from poolscore.engine.selection.write import write_batch

    run = make_run(tmp_path, [np.random.default_rng(0).random(30).tolist()], k=5)
    config = run.config.model_copy(
        update={"select": run.config.select.model_copy(update={"method": "power", "seed": 9})}
    )
    write_batch(run, config)
    written = pq.read_table(run.storage.path("selection.parquet"))
    assert written.equals(select_batch(run, run.config, method="power", seed=9))
