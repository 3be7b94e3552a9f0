"""The examples of the Python interface run as they stand."""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from conftest import write_pool

from poolscore.engine import load_config
from poolscore.jobs.demo.model import digits_cnn
from poolscore.jobs.examples import loop_code


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, digits: object) -> Path:
    """What `poolscore demo` leaves, smaller and not trained."""
    folder = tmp_path_factory.mktemp("demo")
    write_pool(folder / "pool", digits.slice(0, 200))  # type: ignore[attr-defined]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        torch.save(digits_cnn().state_dict(), folder / "weights.pt")
    config = {
        "pool": {"uri": "pool", "id": "id", "input": "image"}
        | {"decode": {"kind": "image", "mode": "L", "mean": [0.5], "std": [0.5]}},
        "model": {"source": "poolscore.jobs.demo.model:digits_cnn", "weights": "weights.pt", "task": "multiclass"},
        "passes": {"count": 5},
        "select": {"k": 10},
        "run": {"dir": "run", "executor": "local", "verify_rows": 0},
    }
    (folder / "poolscore.yaml").write_text(yaml.safe_dump(config))
    return folder


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Examples write beside where they are started; seeds that they set are theirs."""
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng(devices=[]):
        yield


def example(name: str) -> str:
    runpy.run_module(f"poolscore.jobs.examples.{name}", run_name="__main__")
    return name


def test_look_and_again(
    demo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("CONFIG", str(demo / "poolscore.yaml"))
    monkeypatch.setenv("RUN", str(demo / "run"))
    example("look")
    shown = capsys.readouterr().out
    assert "200 rows scored, 0 rejected" in shown
    assert "'rank': 1, " in shown
    assert "10 pictures in batch.html" in shown
    assert (tmp_path / "batch.html").read_text().count("<img") == 10
    example("again")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["topk", "power", "batchbald", "no two alike"]
    assert "100% of topk" in lines[0]
    means = [float(line.split("mean bald ")[1].split()[0]) for line in lines]
    assert means[0] == max(means) > 0


def test_own(capsys: pytest.CaptureFixture[str]) -> None:
    example("own")
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "499 rows scored; set aside: {'ValueError: 6 bytes, not 64': 1}"
    assert "its 20 passes say [" in shown[1]
    assert float(shown[2].split()[-2]) < 1e-6


def test_the_loop_and_its_training(digits: pa.Table, tmp_path: Path) -> None:
    """The loop itself takes a minute; tests/jobs/test_loop.py has quicker ones."""
    config = load_config(Path(loop_code.__file__).with_name("loop.yaml"))
    assert config.loop is not None
    assert config.loop.train == f"{loop_code.__name__}:train"
    pq.write_table(digits.slice(0, 20), tmp_path / "labelled.parquet")
    threads = torch.get_num_threads()
    metrics = [loop_code.train(tmp_path / "labelled.parquet", tmp_path, 0, seed) for seed in (1, 1, 2)]
    torch.set_num_threads(threads)
    assert metrics[0] == metrics[1] != metrics[2]
    assert 0.2 < metrics[0]["accuracy"] < 0.9
