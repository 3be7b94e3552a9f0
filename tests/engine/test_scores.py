"""The table of scores against the contract's, written out again by hand."""

from __future__ import annotations

import pytest

from poolscore.engine.errors import ConfigError
from poolscore.engine.scores import SCORES, Task, require_score, scores_of

CONTRACT = {
    Task.MULTICLASS: "entropy expected_entropy bald variation_ratio mean_std least_confidence margin random",
    Task.BINARY: "entropy expected_entropy bald variation_ratio mean_std least_confidence margin random",
    Task.MULTILABEL: "entropy expected_entropy bald mean_std random",
    Task.REGRESSION: "predictive_variance random",
}
ONE_PASS = {"entropy", "margin", "least_confidence", "random"}


@pytest.mark.parametrize("task", Task)
def test_a_task_has_the_contracts_scores(task: Task) -> None:
    assert scores_of(task, 20) == tuple(CONTRACT[task].split())
    assert set(scores_of(task, 1)) == set(CONTRACT[task].split()) & ONE_PASS
    assert scores_of(task, 2) == scores_of(task, 20)


@pytest.mark.parametrize("task", Task)
@pytest.mark.parametrize("passes", [1, 2])
@pytest.mark.parametrize("name", [*SCORES, "max_entropy", ""])
def test_exactly_the_other_scores_are_refused(task: Task, passes: int, name: str) -> None:
    if name in scores_of(task, passes):
        require_score(name, task, passes)
        return
    with pytest.raises(ConfigError, match=f"^select.score: .*'{name}'.*{', '.join(scores_of(task, passes))}$"):
        require_score(name, task, passes)


def test_names_are_their_own_keys() -> None:
    assert all(name == score.name for name, score in SCORES.items())
    assert [name for name, score in SCORES.items() if not score.from_logits] == ["random"]
