"""A pool scored with an ONNX file, from the configuration to the selection."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nets
import numpy as np
import onnx_nets
import pytest
import torch
from conftest import scores_of_run

from poolscore.engine.config import Config
from poolscore.engine.errors import ConfigError
from poolscore.engine.prepare import prepare_job
from poolscore.engine.run.directory import RunDirectory
from poolscore.engine.score import score_pool
from poolscore.engine.verify.verify import verify_run
from poolscore.engine.worker.job import build_scorer


@pytest.fixture
def onnx_file(tmp_path: Path, digit_config: Callable[..., Config]) -> Path:
    """The model of `digit_config`, with the same weights."""
    model = nets.cnn()
    model.load_state_dict(torch.load(tmp_path / "weights.pt"))
    return onnx_nets.export(model.requires_grad_(False), {"": torch.rand(3, 1, 8, 8)}, tmp_path / "model.onnx")


def with_file(configure: Callable[..., Config], file: Path, **sections: dict[str, Any]) -> Config:
    model = {"source": str(file), "weights": None}
    run = {"dir": str(file.parent / "run-onnx")}
    return configure(**{**sections, "model": {**model, **sections.get("model", {})}, "run": run})


def test_the_scores_are_those_of_the_torch_model(digit_config: Callable[..., Config], onnx_file: Path) -> None:
    """In other kernels, so to 2e-6."""
    runs = [score_pool(digit_config()), score_pool(with_file(digit_config, onnx_file))]
    theirs, ours = (scores_of_run(run.run_dir) for run in runs)
    assert ours["id"].equals(theirs["id"])
    assert ours["prediction"].equals(theirs["prediction"])
    for name in ("bald", "entropy", "mean_std", "confidence"):
        a, b = (np.array(table[name].to_pylist()) for table in (ours, theirs))
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-6)
        assert a.std() > 1e-4
    profile = RunDirectory(runs[1].run_dir).info["profile"]
    assert (profile["passes"], profile["provider"]) == ("split", "CPUExecutionProvider")
    assert "onnxruntime" in profile
    assert "onnxruntime" not in RunDirectory(runs[0].run_dir).info["profile"]


def test_a_file_that_moved_is_the_same_model(digit_config: Callable[..., Config], onnx_file: Path) -> None:
    first = prepare_job(with_file(digit_config, onnx_file)).identity
    moved = onnx_file.with_name("elsewhere.onnx")
    shutil.move(onnx_file, moved)
    assert prepare_job(with_file(digit_config, moved)).identity == first


def test_a_file_that_changed_is_refused_by_the_workers(digit_config: Callable[..., Config], onnx_file: Path) -> None:
    job = prepare_job(with_file(digit_config, onnx_file)).job
    onnx_nets.export(nets.cnn().requires_grad_(False), {"": torch.rand(3, 1, 8, 8)}, onnx_file)
    with pytest.raises(ConfigError, match=r"model.onnx is not the driver's file; leave it as it is till the end"):
        build_scorer(job)


def test_named_inputs(two_inputs_config: Callable[..., Config], tmp_path: Path) -> None:
    tokens = np.random.default_rng(1).integers(0, 20, (40, 6))
    config = two_inputs_config(tokens, batch_size=8)
    model = nets.TwoInputs().requires_grad_(False)
    model.load_state_dict(torch.load(tmp_path / "two.pt"))
    inputs = {"tokens": torch.from_numpy(tokens[:3]), "numbers": torch.rand(3, 2)}
    file = onnx_nets.export(model, inputs, tmp_path / "two.onnx")
    source = config.model.model_copy(update={"source": str(file), "weights": None})
    other_run = config.run.model_copy(update={"dir": str(tmp_path / "run-onnx")})
    runs = [score_pool(config), score_pool(config.model_copy(update={"model": source, "run": other_run}))]
    theirs, ours = (np.array(scores_of_run(run.run_dir)["bald"].to_pylist()) for run in runs)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


def test_a_file_without_dropout_has_one_pass(digit_config: Callable[..., Config], tmp_path: Path) -> None:
    model = nets.no_dropout().requires_grad_(False)
    file = onnx_nets.export(model, {"": torch.rand(3, 1, 8, 8)}, tmp_path / "plain.onnx")
    with pytest.raises(ConfigError, match=r"has no Dropout node .* write it with `poolscore export`, or"):
        prepare_job(with_file(digit_config, file))
    prepared = prepare_job(with_file(digit_config, file, passes={"count": 1}))
    assert prepared.cost.one_pass == 2 * 64 * 10


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"passes": {"precision": "bf16"}},
            "passes.precision: 'bf16' is for torch models; an ONNX file computes",
        ),
        ({"passes": {"compile": True}}, "passes.compile: is for torch models; ONNX Runtime optimises a file"),
        ({"model": {"args": {"classes": 10}}}, "model: args: a .onnx file holds all that there is; take it out"),
        ({"model": {"weights": "weights.pt"}}, "model: weights: a .onnx file holds all that there is; take it out"),
    ],
)
def test_settings_that_a_file_does_not_take(
    digit_config: Callable[..., Config], tmp_path: Path, sections: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as error:
        with_file(digit_config, tmp_path / "model.onnx", **sections)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_its_rows_are_verified_in_its_own_type(digit_config: Callable[..., Config], onnx_file: Path) -> None:
    config = with_file(digit_config, onnx_file)
    prepared = prepare_job(config)
    run = RunDirectory(score_pool(config, prepared=prepared).run_dir)
    found = verify_run(run, prepared, 50)
    assert (found.rows, found.precision, found.strange, found.wrong) == (50, "fp32", 0, [])
    assert found.note == "an ONNX file computes in its own types"
    assert 0 < found.scores["bald"].largest < 2e-6
