"""`poolscore export`: the file stands for the factory, in a whole job and on the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import scores_of_run

from poolscore.engine.config import Config, parse_config
from poolscore.engine.errors import ConfigError
from poolscore.engine.export import export_model
from poolscore.engine.prepare import prepare_job
from poolscore.engine.score import score_pool
from poolscore.jobs.cli import before

Configure = Callable[..., Config]


def from_file(config: Config, file: Path, run: Path, trust: bool = False) -> Config:
    """The same job with the model from a file."""
    model = {"source": str(file), "weights": None, "trust": trust}
    return config.model_copy(
        update={
            "model": config.model.model_copy(update=model),
            "run": config.run.model_copy(update={"dir": str(run)}),
        }
    )


def test_a_job_scores_the_same_from_the_file(digit_config: Configure, tmp_path: Path) -> None:
    config = digit_config(run={"shard_rows": 300})
    exported = export_model(config, tmp_path / "net.pt2")
    assert [layer.name for layer in exported.layers] == ["3", "7"]
    factory = score_pool(config)
    file = score_pool(from_file(config, exported.files[0], tmp_path / "again"))
    assert scores_of_run(file.run_dir).equals(scores_of_run(factory.run_dir))
    moved = exported.files[0].rename(tmp_path / "moved.pt2")
    resumed = score_pool(from_file(config, moved, tmp_path / "again", trust=True), must_resume=True)
    assert resumed.run_dir == file.run_dir


def test_named_inputs(two_inputs_config: Configure, tmp_path: Path) -> None:
    import numpy as np

    config = two_inputs_config(np.ones((20, 6), dtype=np.int64), batch_size=8)
    exported = export_model(config, tmp_path / "net.pt2")
    assert exported.inputs == ("tokens", "numbers")
    again = prepare_job(from_file(config, exported.files[0], tmp_path / "again"))
    assert again.job.probe.layers == exported.layers


def test_where_it_is_written(digit_config: Configure, tmp_path: Path) -> None:
    config = digit_config()
    there = tmp_path / "there.pt2"
    there.touch()
    for out, message in (
        (tmp_path / "net.pt", r"'net\.pt' must end in \.pt2 or \.onnx"),
        (there, "exists already"),
        (tmp_path / "none" / "net.pt2", "is in no folder"),
    ):
        with pytest.raises(ConfigError, match=message):
            export_model(config, out)
    with pytest.raises(ConfigError, match="is ONNX already"):
        export_model(from_file(config, tmp_path / "net.onnx", tmp_path), tmp_path / "net.pt2")


@pytest.mark.parametrize(("key", "value"), [("args", {"classes": 3}), ("weights", "w.pt")])
def test_a_file_takes_neither_arguments_nor_weights(key: str, value: Any, tmp_path: Path) -> None:
    data = {
        "pool": {"uri": "pool", "input": "x"},
        "model": {"source": "net.pt2", "task": "multiclass"},
        "select": {"k": 1},
        "run": {"dir": "run"},
    }
    config = parse_config(data, base=tmp_path)
    assert config.model.source == str(tmp_path / "net.pt2")
    with pytest.raises(ConfigError, match=rf"{key}: a \.pt2 file holds all that there is"):
        parse_config({**data, "model": {**data["model"], key: value}}, base=tmp_path)


def test_the_command(digit_config: Configure, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(digit_config().model_dump(mode="json")))
    before.export(config, tmp_path / "net.onnx")
    written = capsys.readouterr()
    assert written.err == ""
    for shown in ("net.onnx", "opset", "input: any number of rows", "3: feature p=0.3 on [8]", "7: p=0.5 on [32]"):
        assert shown in written.out
    with pytest.raises(ConfigError, match="nets:not_a_model gave dict"):
        before.export(config, tmp_path / "net.pt2", ["model.source=nets:not_a_model", "model.weights=null"])
    before.export(config, tmp_path / "net.pt2", ["model.source=nets:no_dropout", "model.weights=null"])
    assert "has no dropout" in capsys.readouterr().err
