"""`poolscore bench`: what it says follows from what it measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from report_workshop import require_harmless
from typer.testing import CliRunner

from poolscore.engine.config import Config
from poolscore.engine.errors import ConfigError
from poolscore.engine.stages import STAGES
from poolscore.jobs.bench.compare import compare, read_result
from poolscore.jobs.bench.networks import bert_base, mlp, resnet18, resnet50, vgg16, vit_b16
from poolscore.jobs.bench.page import bench_page
from poolscore.jobs.bench.pools import write_pool
from poolscore.jobs.bench.subjects import subject_of
from poolscore.jobs.bench.sweep import Asked, run_bench
from poolscore.jobs.cli import app


@pytest.fixture(scope="module")
def swept() -> dict[str, Any]:
    """A sweep over T and one more batch size."""
    asked = Asked("mlp", passes=[1, 3], batches=[16, 32], rows=256, rounds=2, device="cpu", price=3.6, pool_rows=10**6)
    return run_bench(asked)


def test_a_sweep(swept: dict[str, Any]) -> None:
    assert [(point["passes"], point["batch"]) for point in swept["points"]] == [(1, 16), (1, 32), (3, 16), (3, 32)]
    for point in swept["points"]:
        rate = point["rows_per_second"]
        assert point["rows"] == 2 * 256
        assert (len(point["rounds"]), point["rejected"]) == (2, 0)
        assert set(point["stage_rows_per_second"]) <= {*STAGES} - {"idle"}
        assert {"read", "decode", "model"} <= set(point["stage_rows_per_second"])
        assert point["price_per_million_rows"] == pytest.approx(1e6 / rate / 3600 * 3.6, rel=0.01)
        assert point["hours"] == pytest.approx(1e6 / rate / 3600, rel=0.1, abs=0.001)
        assert point["reduction"]["bytes"] == 4 * point["batch"] * point["passes"] * 10
        assert point["reduction"]["fraction_of_copy"] > 0
    assert swept["subject"]["device"] == "cpu"
    assert swept["environment"]["packages"]["torch"] == torch.__version__
    one, three = (swept["points"][i]["flops_per_row"]["all_passes"] for i in (0, 2))
    assert one < three < 3.01 * one


def test_a_job_of_ones_own(digit_config: Callable[..., Config], tmp_path: Path) -> None:
    config = digit_config()
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    out, page = tmp_path / "out.json", tmp_path / "out.html"
    asked = ["bench", str(tmp_path / "job.yaml"), "--rows", "64", "-T", "2", "--batch", "16", "--rounds", "1"]
    result = CliRunner().invoke(app, [*asked, "--out", str(out), "--page", str(page), "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert read_result(out) == told
    assert (told["subject"]["pool"], told["points"][0]["passes"]) == (config.pool.uri, 2)
    assert not Path(config.run.dir).exists()  # the user's run is left alone
    require_harmless(page.read_text())


def test_a_page_shows_what_was_swept_over(swept: dict[str, Any]) -> None:
    swept = {**swept, "subject": {**swept["subject"], "name": "<script>alert(1)</script>"}}
    page = require_harmless(bench_page(swept))
    assert (
        len([svg for svg in page.all("svg") if svg.get("role") == "img"]) == 4
    )  # over T and over batch sizes, end to end and the model by itself
    assert len(page.all("tr")) == 1 + 4


def test_two_results_side_by_side(swept: dict[str, Any], tmp_path: Path) -> None:
    faster = json.loads(json.dumps(swept))
    for point in faster["points"]:
        point["rows_per_second"] *= 2
        point["rounds"] = [10 * rate for rate in point["rounds"]]
    faster["points"].pop()
    faster["environment"]["packages"]["torch"] = "3.0"
    found = compare(swept, faster)
    assert [point["ratio"] for point in found["points"]] == [2.0] * 3
    assert all(point["rounds_apart"] for point in found["points"])
    assert found["differs"] == {"packages.torch": [torch.__version__, "3.0"]}
    assert not any(point["rounds_apart"] for point in compare(swept, swept)["points"])
    with pytest.raises(ConfigError, match="in common"):
        compare(swept, {**swept, "points": []})
    (tmp_path / "other.json").write_text("[1]")
    with pytest.raises(ConfigError, match=r"other\.json is no result of"):
        read_result(tmp_path / "other.json")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["nothing"], "neither a file nor a built-in network"),
        (["vit_b16", "--size", "30"], "multiple of 16"),
        (["mlp", "--pixels"], "no pictures"),
        (["resnet18", "--picture", "big"], "no HEIGHTxWIDTH"),
        ([], "name a built-in network"),
        (["missing.yaml"], "missing.yaml"),
    ],
)
def test_what_is_refused(asked: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["bench", *asked])
    assert isinstance(result.exception, ConfigError)
    assert message in str(result.exception)


def test_pools_hold_what_the_networks_take(tmp_path: Path) -> None:
    each = write_pool(tmp_path / "jpeg", subject_of("resnet18", 64, False), 600, 96, 128)
    table = pq.read_table(tmp_path / "jpeg")
    assert table.num_rows == len(set(table["id"].to_pylist())) == 600
    assert len(set(table["image"].to_pylist())) == 512
    assert 3_000 < each < 10_000
    write_pool(tmp_path / "tokens", subject_of("bert_base", None, False), 100, 0, 0)
    lengths = pa.compute.list_value_length(pq.read_table(tmp_path / "tokens")["tokens"])
    assert 16 <= pa.compute.min(lengths).as_py() <= pa.compute.max(lengths).as_py() <= 64


def test_networks_have_the_sizes_of_the_papers() -> None:
    sizes = {  # parameters, as torchvision and transformers count them, heads for as many classes
        resnet18: 11_689_512,
        resnet50: 25_557_032,
        vgg16: 138_357_544,
        vit_b16: 86_567_656,
    }
    for network, parameters in sizes.items():
        with torch.device("meta"):
            model = network(1000)
        assert sum(p.numel() for p in model.parameters()) == parameters, network.__name__
    with torch.device("meta"):
        # Without the two embeddings of segments, which texts of one segment do not need.
        assert sum(p.numel() for p in bert_base(77).parameters()) == 109_482_240 - 2 * 768 + 77 * 769
    assert mlp(10)(torch.zeros(2, 64)).shape == (2, 10)
