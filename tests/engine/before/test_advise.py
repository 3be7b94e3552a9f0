"""plan --advise: settings against each other on a sample."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from poolscore.engine.before.advise import PASSES, advise, spearman, top_overlap
from poolscore.engine.config import Config
from poolscore.engine.errors import ConfigError
from poolscore.engine.prepare import prepare_job
from poolscore.engine.run.directory import RunDirectory
from poolscore.engine.score import score_pool
from poolscore.engine.selection.batch import select_batch

Configure = Callable[..., Config]


def test_the_fullest_setting_agrees_with_itself_and_more_passes_agree_more(digit_config: Configure) -> None:
    prepared = prepare_job(digit_config(passes={"count": 8}))
    found = advise(prepared, 256)
    assert (found.score, found.rows, found.top) == ("bald", 256, 10)
    ways = {(one.layers, one.precision) for one in found.settings}
    assert ways == {(layers, precision) for layers in ("head", "all") for precision in ("fp32", "bf16")}
    by = {(one.passes, one.layers, one.precision): one for one in found.settings}
    assert sorted({passes for passes, _, _ in by}) == sorted({8, *PASSES})
    fullest = found.settings[-1]
    assert (fullest.passes, fullest.layers, fullest.precision) == (100, "all", "fp32")
    assert (fullest.correlation, fullest.overlap) == (pytest.approx(1.0), 1.0)
    full = [by[passes, "all", "fp32"] for passes in (5, 20, 100)]
    assert full[0].correlation < full[1].correlation < full[2].correlation
    assert full[0].stability < full[2].stability
    assert by[100, "all", "bf16"].correlation > 0.95
    assert by[100, "head", "fp32"].correlation < 0.999  # other dropout is another posterior
    assert all(one.seconds > 0 for one in found.settings)


def test_what_is_advised_is_what_a_run_gives(digit_config: Configure) -> None:
    """The scores of T passes are those of a run with that many: the overlap says what that run would select."""
    found = advise(prepare_job(digit_config(passes={"count": 5}, select={"k": 20}, run={"batch_size": 60})), 600)
    assert (found.rows, found.top) == (600, 20)
    selected = []
    for count in (5, 100):
        config = digit_config(
            passes={"count": count},
            select={"k": 20},
            run={"batch_size": 60, "dir": f"{digit_config().run.dir}-{count}"},
        )
        score_pool(config)
        selected.append(set(select_batch(RunDirectory(config.run.dir), config)["id"].to_pylist()))
    (five,) = (one for one in found.settings if (one.passes, one.layers, one.precision) == (5, "all", "fp32"))
    assert five.overlap == len(selected[0] & selected[1]) / 20


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"passes": {"count": 1}}, "passes.count is 1"),
        ({"select": {"score": "random"}}, "'random' does not come from the model"),
    ],
)
def test_there_must_be_something_to_choose(
    digit_config: Configure, sections: dict[str, dict[str, object]], message: str
) -> None:
    with pytest.raises(ConfigError, match=rf"^plan --advise: .*{message}"):
        advise(prepare_job(digit_config(**sections)))


def test_ranks() -> None:
    a = np.array([1, 2, 3, 4], np.float32)
    assert spearman(a, a**3) == pytest.approx(1.0)
    assert spearman(a, -a) == pytest.approx(-1.0)
    assert spearman(np.array([0, 0, 1, 2], np.float32), a) == pytest.approx(0.9486832980505138)
    assert np.isnan(spearman(a * 0, a))
    assert top_overlap(a, -a, 2) == 0.0
    assert top_overlap(a, np.array([1, 3, 2, 4], np.float32), 2) == 0.5
