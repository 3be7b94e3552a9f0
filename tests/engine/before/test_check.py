"""The check on labelled rows: its figures against definitions, and labels that do not fit."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from poolscore.engine.before.check import CheckResult, auroc, check_labelled
from poolscore.engine.config import Config, parse_config
from poolscore.engine.errors import ConfigError
from poolscore.engine.prepare import prepare_job
from poolscore.engine.score import score_pool
from poolscore.engine.scores import SCORES, Task, scores_of
from poolscore.kernels.row_stats import row_stats

T = 2


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=12))
@settings(max_examples=200, deadline=None)
def test_auroc_is_the_chance_that_a_wrong_row_scores_higher(rows: list[tuple[int, bool]]) -> None:
    pairs = [(a, b) for a, wrong in rows if wrong for b, other in rows if not other]
    wins = sum((a > b) + 0.5 * (a == b) for a, b in pairs)
    found = auroc(np.array([a for a, _ in rows], np.float32), np.array([wrong for _, wrong in rows], bool))
    assert math.isnan(found) if not pairs else math.isclose(found, wins / len(pairs), rel_tol=1e-12)


class Stand:
    """In place of a Scorer: the logits of a row are its features; with dropout on, each pass adds `noise`."""

    def __init__(self, config: Config, noise: float = 0.0, bad: tuple[float, ...] = ()) -> None:
        self.config, self.bad, self.blocks = config, bad, 0
        self.decoder = SimpleNamespace(decode=self.decode, padded_keys=lambda rows: None)
        self.model = SimpleNamespace(
            logits=lambda x, _: torch.stack([x, x + noise], 1), without_dropout=lambda x: x[:, None]
        )

    def decode(self, rows: Any) -> tuple[torch.Tensor, dict[int, Any]]:
        self.blocks += 1
        x = torch.tensor(rows.table["x"].to_pylist(), dtype=torch.float32)
        padded = torch.zeros(self.config.run.batch_size, x.shape[1])
        padded[: len(x)] = x
        return padded, {i: ("decode", "bad") for i in range(len(x)) if float(x[i, 0]) in self.bad}

    def statistics(self, logits_NTC: torch.Tensor, scores: tuple[str, ...] | None = None) -> Any:
        task = self.config.model.task
        names = [name for name in scores_of(task, T) if SCORES[name].from_logits] if scores is None else scores
        return row_stats(logits_NTC, task.value, names, predicts_noise=self.config.model.predicts_noise)


def check(
    folder: Path, x: list[list[float]], labels: Any, *, stand: dict[str, Any] | None = None, **model: Any
) -> CheckResult:
    pq.write_table(pa.table({"x": x, "label": labels}), folder / "labelled.parquet")
    options = {"labelled": str(folder / "labelled.parquet"), **model.pop("check", {})}
    config = parse_config(
        {
            "pool": {"uri": "p", "input": "x", "decode": {"kind": "tensor"}},
            "model": {"source": "m:f", "task": "multiclass", **model},
            "passes": {"count": T},
            "select": {"k": 1},
            "check": options,
            "run": {"dir": "r", "batch_size": 3, "shard_rows": 4},
        }
    )
    return check_labelled(config, Stand(config, **(stand or {})))  # type: ignore[arg-type]


ROWS = [[2.0, 0.0], [0.0, 2.0], [3.0, 0.0], [0.0, 0.125], [0.25, 0.0]]


def test_multiclass_accuracy_and_how_well_scores_rank_the_errors(tmp_path: Path) -> None:
    result = check(tmp_path, ROWS, [0, 1, 0, 0, 1])
    assert (result.rows, result.rejected, result.quality, result.quality_without_dropout) == (5, 0, 0.6, 0.6)
    assert result.is_accuracy
    assert set(result.auroc) == {name for name in scores_of(Task.MULTICLASS, T) if name != "random"}
    assert result.auroc["entropy"] == result.auroc["margin"] == 1.0


def test_class_names_stand_for_their_place(tmp_path: Path) -> None:
    assert check(tmp_path, ROWS, ["cat", "dog", "cat", "dog", "cat"], classes=["cat", "dog"]).quality == 1.0
    assert check(tmp_path, ROWS, ["cat", "dog", "cat", "dog", "cat"], classes=["dog", "cat"]).quality == 0.0
    words = pa.array(["cat", "dog", "cat", "dog", "cat"]).dictionary_encode()
    assert check(tmp_path, ROWS, words, classes=["cat", "dog"]).quality == 1.0


def test_binary_multilabel_and_regression(tmp_path: Path) -> None:
    binary = check(tmp_path, [[1.0], [-1.0], [2.0], [-3.0]], [True, False, False, False], task="binary")
    assert binary.quality == 0.75
    multilabel = check(tmp_path, [[1.0, -1.0], [1.0, 1.0]], [[1, 0], [0, 1]], task="multilabel")
    assert multilabel.quality == 0.75
    regression = check(tmp_path, [[1.0], [2.0]], [4.0, 6.0], task="regression")
    assert math.isclose(regression.quality, math.sqrt((9 + 16) / 2))
    assert not regression.is_accuracy
    vectors = check(tmp_path, [[0.0, 0.0, 9.0, 9.0]], [[3.0, 4.0]], task="regression", predicts_noise=True)
    assert vectors.quality == 5.0


def test_the_mean_over_the_passes_differs_from_no_dropout(tmp_path: Path) -> None:
    result = check(tmp_path, [[1.0], [2.0]], [1.5, 2.5], task="regression", stand={"noise": 1.0})
    assert (result.quality, result.quality_without_dropout) == (0.0, 0.5)


def test_bad_rows_are_counted_and_left_out(tmp_path: Path) -> None:
    result = check(tmp_path, ROWS, [0, 1, 0, 0, 1], stand={"bad": (2.0, 3.0)})
    assert (result.rows, result.rejected) == (3, 2)
    with pytest.raises(ConfigError, match=r"check.labelled: no row of .* can be decoded"):
        check(tmp_path, ROWS, [0] * 5, stand={"bad": (2.0, 3.0, 0.0, 0.25)})


@pytest.mark.parametrize("rows", [1, 3, 4, 5, 9])
def test_at_most_so_many_rows_are_scored(tmp_path: Path, rows: int) -> None:
    assert check(tmp_path, ROWS, [0] * 5, check={"rows": rows}).rows == min(rows, 5)


@pytest.mark.parametrize(
    ("labels", "model", "message"),
    [
        ([0, 1, None, 0, 1], {}, "holds nulls"),
        ([1, 2, 2, 1, 1], {}, "holds classes .* to 2; the model has 0 to 1"),
        ([0, -1, 0, 0, 0], {}, "holds classes -1 to 0"),
        ([0.5, 1, 0, 0, 0], {}, "has type double"),
        (["cat"] * 5, {}, "holds text; give the names"),
        (["cat"] * 5, {"classes": ["dog", "bird"]}, "holds 'cat', which is not in model.classes"),
        ([[1, 0, 0]] * 5, {"task": "multilabel"}, "has 3 values a row; the model has 2 outputs"),
        ([[1, 0], [1]] * 2 + [[1, 1]], {"task": "multilabel"}, "must hold numbers, or lists"),
        ([1, 0, 1, 0, 1], {"task": "multilabel"}, "has 1 value a row; the model has 2 outputs"),
        ([1.0, math.nan, 0, 0, 0], {"task": "regression"}, "holds NaN"),
        ([1.0, 1, 0, 0, 0], {"task": "regression"}, "has 1 value.* a row; the model has 2 outputs"),
        (["a"] * 5, {"task": "regression"}, "must hold numbers"),
    ],
)
def test_labels_that_do_not_fit_are_refused(tmp_path: Path, labels: Any, model: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^check.label column 'label' {message}"):
        check(tmp_path, ROWS, labels, **model)


def test_files_that_do_not_fit_are_refused_under_their_own_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^check.label: column 'truth' is not in labelled.parquet"):
        check(tmp_path, ROWS, [0] * 5, check={"label": "truth"})
    with pytest.raises(ConfigError, match=r"^check.labelled: there is nothing at"):
        check(tmp_path, ROWS, [0] * 5, check={"labelled": str(tmp_path / "none")})
    with pytest.raises(ConfigError, match=r"^check.labelled: the pool at .* has no rows"):
        check(tmp_path, [], pa.array([], pa.int64()))
    with pytest.raises(ConfigError, match=r"^check.min_accuracy: task 'regression' has no accuracy"):
        check(tmp_path, [[1.0]], [1.0], task="regression", check={"min_accuracy": 0.5})


def test_too_low_an_accuracy_is_refused() -> None:
    result = CheckResult(10, 0, 0.5, 0.5, {}, True)
    result.require(None)
    result.require(0.5)
    with pytest.raises(ConfigError, match=r"accuracy 0.500 on 10 labelled rows is below check.min_accuracy=0.6"):
        result.require(0.6)


def test_a_run_is_verified_without_its_labelled_rows(digit_config: Callable[..., Config], tmp_path: Path) -> None:
    config = digit_config(check={"labelled": str(tmp_path / "gone.parquet"), "label": "label"})
    assert prepare_job(config).plan.rows  # as `verify` and `export` do, which ask for no check
    with pytest.raises(ConfigError, match=r"^check.labelled: .*gone.parquet"):
        score_pool(config)
