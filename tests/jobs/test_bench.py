"""`poolscore bench`: what it says follows from what it measured."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
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
from poolscore.engine.errors import ConfigError, StoppedError
from poolscore.engine.run.journal import ShardReport
from poolscore.engine.worker.stages import STAGES
from poolscore.jobs.bench import sweep
from poolscore.jobs.bench.compare import compare, read_result
from poolscore.jobs.bench.environment import environment
from poolscore.jobs.bench.measure import measure
from poolscore.jobs.bench.networks import bert_base, mlp, resnet18, resnet50, vgg16, vit_b16
from poolscore.jobs.bench.page import bench_page
from poolscore.jobs.bench.point import Point
from poolscore.jobs.bench.pools import write_pool
from poolscore.jobs.bench.steady import Round
from poolscore.jobs.bench.subjects import subject_of
from poolscore.jobs.bench.sweep import Asked, run_bench
from poolscore.jobs.bench.words import in_hours, number
from poolscore.jobs.cli import app

REPORT = ShardReport(0, "s", None, 100, 0, 0, {}, {}, 1.0, "w", 1)


@pytest.fixture(scope="module")
def swept() -> dict[str, Any]:
    """A sweep over T and one more batch size."""
    asked = Asked(
        *("mlp", [1, 3, 1], [16, 32, 32]), rows=256, rounds=2, device="cpu", price=3.6, pool_rows=10**6, workers=2
    )
    return run_bench(asked)


@pytest.mark.parametrize(
    ("argv", "command"),
    [
        (["/venv/bin/poolscore", "bench", "resnet50", "--out", "/tmp/a.json"], "poolscore bench resnet50 --out a.json"),
        (["/anywhere/benchmarks/bench_peers.py", "--quick"], "python bench_peers.py --quick"),
    ],
)
def test_the_command_is_told_as_it_is_typed_elsewhere(
    argv: list[str], command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", argv)
    assert environment()["command"] == command


def test_a_tool_that_hangs_costs_no_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    def hangs(command: object, **options: object) -> None:
        raise subprocess.TimeoutExpired("nvidia-smi", 20)

    monkeypatch.setattr(subprocess, "run", hangs)
    assert environment()["commit"] == ""


def test_a_sweep(swept: dict[str, Any]) -> None:
    assert [(point["passes"], point["batch"]) for point in swept["points"]] == [(1, 16), (1, 32), (3, 16), (3, 32)]
    for point in swept["points"]:
        rate = point["rows_per_second"]
        assert (point["rows"], point["shards"], point["shard_rows"]) == (2 * 256, 2 * 4, 64)
        assert (len(point["rounds"]), len(point["round_seconds"]), point["rejected"]) == (2, 2, 0)
        assert "--rows" in point["notes"][0]  # 64 rows take no time
        assert {"read", "decode", "model"} <= set(point["stage_rows_per_second"]) <= {*STAGES} - {"idle"}
        assert point["price_per_million_rows"] == pytest.approx(1e6 / rate / 3600 * 3.6, rel=0.01)
        assert point["hours"] == pytest.approx(1e6 / rate / 3600 / 2, rel=0.01)
        assert point["price_of_pool"] == point["price_per_million_rows"]
        assert (point["price_per_hour"], point["pool_rows"], point["workers"]) == (3.6, 10**6, 2)
        assert point["reduction"]["bytes"] == 4 * point["batch"] * point["passes"] * 10
        assert point["reduction"]["fraction_of_copy"] > 0
        for part, ms in point["batch_ms"].items():
            assert point["part_rows_per_second"][part] == pytest.approx(point["batch"] / ms * 1e3, rel=0.05)
    assert (swept["subject"]["device"], swept["subject"]["precision"]) == ("cpu", "fp32")
    assert swept["environment"]["packages"]["torch"] == torch.__version__
    one, three = (swept["points"][i]["flops_per_row"]["all_passes"] for i in (0, 2))
    assert one < three < 3.01 * one


def made_up_point(passes: int = 1, batch: int = 50, seconds: Sequence[float] = (10.0,)) -> Point:
    rounds = [Round([REPORT], one, one) for one in seconds]
    parts = dict.fromkeys(("prefix", "suffix", "reduce"), 1.0)
    return Point(passes, batch, rounds, 100, 100, 100, parts, 1, 1.0, {}, False, {})


def test_rounds_that_are_far_apart_are_told() -> None:
    assert list(made_up_point(seconds=(10.0, 11.0, 10.5)).notes()) == []
    assert "differ by a factor of 2.2" in next(made_up_point(seconds=(10.0, 22.0, 10.5)).notes())


def test_batches_that_auto_chose_by_the_passes_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(config: Config, *others: object, made_up: bool) -> Point:
        return made_up_point(config.passes.count, 100 // config.passes.count)

    monkeypatch.setattr(sweep, "measure", measured)
    points = run_bench(Asked("mlp", [1, 4], device="cpu", overrides=["run.batch_size=auto"]))["points"]
    assert [point["notes"] for point in points] == [
        [],
        ["'auto' chose batches of 25 here, of 100 at T = 1; give --batch to compare numbers of passes by themselves"],
    ]
    chosen = run_bench(Asked("mlp", [1, 4], batches=[16], device="cpu"))["points"]
    assert [point["notes"] for point in chosen] == [[], []]


def test_batches_of_a_built_in_network_are_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "ROWS_LIGHT", {"cpu": 1500})
    (point,) = run_bench(Asked("mlp", [1], [1000], rows=6000, rounds=1, device="cpu"))["points"]
    assert (point["shard_rows"], point["rows"]) == (1000, 6 * 1000)
    assert not [note for note in point["notes"] if "padding" in note]


def test_a_built_in_network_takes_settings() -> None:
    changes = ["passes.count=2", "prices.gpu_hour=2", "passes.masks=independent"]
    found = run_bench(Asked("mlp", batches=[16], rows=64, rounds=1, device="cpu", size=32, overrides=changes))
    assert found["points"][0]["passes"] == 2
    assert found["points"][0]["price_per_hour"] == 2
    assert found["subject"]["masks"] == "independent"
    assert found["subject"]["about"].startswith("perceptron of 32-512-512-10, ")


@pytest.fixture
def own_job(digit_config: Callable[..., Config], tmp_path: Path) -> Callable[..., Path]:
    """A configuration file; sections can be changed."""

    def write(name: str = "job.yaml", **sections: dict[str, Any]) -> Path:
        (tmp_path / name).write_text(yaml.safe_dump(digit_config(**sections).model_dump(mode="json")))
        return tmp_path / name

    return write


def test_a_job_of_ones_own(own_job: Callable[..., Path], tmp_path: Path) -> None:
    out, page = tmp_path / "out.json", tmp_path / "out.html"
    asked = ["bench", str(own_job("job.conf")), "--rows", "64", "-T", "2", "--batch", "16", "--rounds", "1"]
    asked += ["--price", "2", "--workers", "3"]
    result = CliRunner().invoke(app, [*asked, "--out", str(out), "--page", str(page), "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert read_result(out) == told
    assert told["subject"]["pool"] == str(tmp_path / "pool")
    point = told["points"][0]
    assert (point["passes"], point["pool_rows"], point["workers"]) == (2, 600, 3)  # of the pool itself
    assert f"600 rows on 3 such workers: {in_hours(point['hours'])}, " in result.stderr
    for said in ("nets:cnn", "fp32", "cpu"):
        assert said in result.stderr
    assert not (tmp_path / "run").exists()  # the user's run is left alone
    require_harmless(page.read_text())


def test_shards_are_those_of_the_job(own_job: Callable[..., Path]) -> None:
    (point,) = run_bench(Asked(str(own_job()), [1], [64], rows=260, rounds=1))["points"]
    assert (point["job_shard_rows"], point["shard_rows"], point["rows"]) == (100, 100, 400)
    assert [note for note in point["notes"] if "78% full" in note]  # 100 rows in two batches of 64, as the job has them


def test_what_does_not_matter_for_speed(own_job: Callable[..., Path]) -> None:
    """Random weights, and a selection that the pool has no rows for."""
    job = own_job(model={"weights": None}, select={"k": 10_000})
    (point,) = run_bench(Asked(str(job), [2], rows=32, rounds=1))["points"]
    assert point["rows"] >= 32


def test_of_a_pool_that_is_filtered_the_rest_counts(own_job: Callable[..., Path], tmp_path: Path) -> None:
    job = own_job(pool={"filter": "label = 3"})
    (point,) = run_bench(Asked(str(job), [1], rows=400, rounds=1))["points"]  # the whole pool, several times
    threes = pq.read_table(tmp_path / "pool")["label"].to_pylist().count(3)
    assert point["pool_rows"] == pytest.approx(threes, rel=0.1)


def test_a_sweep_that_is_broken_off_leaves_what_it_had(
    own_job: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stops(config: Config, *given: Any, **named: Any) -> Any:
        if config.passes.count == 3:
            raise StoppedError("enough")
        return measure(config, *given, **named)

    monkeypatch.setattr(sweep, "measure", stops)
    out, page = tmp_path / "out.json", tmp_path / "out.html"
    asked = ["bench", str(own_job()), "--rows", "64", "-T", "2", "-T", "3", "--rounds", "1"]
    result = CliRunner().invoke(app, [*asked, "--out", str(out), "--page", str(page)])
    assert isinstance(result.exception, StoppedError)
    assert [point["passes"] for point in read_result(out)["points"]] == [2]
    require_harmless(page.read_text())


@pytest.mark.parametrize("option", ["--out", "--page"])
def test_files_that_cannot_be_written_are_told_first(
    option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "run_bench", None)
    other = {"--out": "--page", "--page": "--out"}[option]
    asked = ["bench", "mlp", option, str(tmp_path / "no" / "file"), other, str(tmp_path / "good")]
    result = CliRunner().invoke(app, asked)
    assert isinstance(result.exception, ConfigError)
    assert str(result.exception).endswith("cannot be written (No such file or directory)")
    assert not (tmp_path / "good").exists()


def test_a_page_shows_what_was_swept_over(swept: dict[str, Any]) -> None:
    swept = {**swept, "subject": {**swept["subject"], "name": "<script>alert(1)</script>"}}
    html = bench_page(swept)
    page = require_harmless(html)
    assert (
        len([svg for svg in page.all("svg") if svg.get("role") == "img"]) == 4
    )  # over T and over batch sizes, end to end and the model by itself
    assert len(page.all("tr")) == 3 * (1 + 4)  # end to end, stages, the model
    assert html.count('y="264.0">0</text>') == 4  # where the axes of the rates begin
    point = swept["points"][0]
    figures = [number(point[name]) for name in ("price_per_million_rows", "price_per_hour", "price_of_pool")]
    figures += [number(point["stage_rows_per_second"]["decode"]), in_hours(point["hours"])]
    for figure in figures:
        assert f"<td>{figure}</td>" in html
    for words in (f"torch {torch.__version__}", "<dt>command</dt>", "<dt>threads of the model</dt>"):
        assert words in html


def test_two_results_side_by_side(swept: dict[str, Any]) -> None:
    faster = json.loads(json.dumps(swept))
    for point in faster["points"]:
        point["rows_per_second"] *= 2
        point["hours"] /= 2
        point["rounds"] = [10 * rate for rate in point["rounds"]]
    faster["points"].pop()
    faster["environment"]["packages"]["torch"] = "3.0"
    found = compare(swept, faster)
    assert [point["ratio"] for point in found["points"]] == [2.0] * 3
    assert all(point["rounds_apart"] for point in found["points"])
    assert found["differs"] == {"packages.torch": [torch.__version__, "3.0"]}
    for point, one in zip(found["points"], swept["points"], strict=False):
        assert point["hours"] == [one["hours"], one["hours"] / 2]
        assert point["stages"]["decode"] == [one["stage_rows_per_second"]["decode"]] * 2
        assert point["idle_share"] == [one["idle_share"]] * 2
    faster["points"][0] |= {"pool_rows": 7, "price_per_hour": 1.0}
    assert not {"hours", "price_per_million_rows"} & set(compare(swept, faster)["points"][0])  # of others
    assert not any(point["rounds_apart"] for point in compare(swept, swept)["points"])
    with pytest.raises(ConfigError, match="in common"):
        compare(swept, {**swept, "points": []})


def test_another_model_of_the_user_is_a_difference(own_job: Callable[..., Path]) -> None:
    asked = Asked(str(own_job()), [1], [16], rows=32, rounds=1)
    one = run_bench(asked)
    assert compare(one, run_bench(asked))["differs"] == {}
    dropout = run_bench(replace(asked, overrides=["passes.split=false", "score.accurate_bald=true"]))
    assert {"passes.split", "score.accurate_bald"} <= set(compare(one, dropout)["differs"])
    rarer = run_bench(replace(asked, overrides=["model.args={p: 0.1}"]))
    assert {"model.args", "the model"} <= set(compare(one, rarer)["differs"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", "is no result of"),
        ('{"format": 1, "points": [{}]}', "is no result of"),
        ('{"format": 2, "environment": {}, "subject": {}, "points": [{}]}', r"points\.0\.passes: Field required"),
        ("{", "is no JSON"),
    ],
)
def test_what_is_no_result(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text(text)
    with pytest.raises(ConfigError, match=rf"other\.json {message}|{message}"):
        read_result(tmp_path / "other.json")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["nothing"], "neither a file nor a built-in network"),
        (["vit_b16", "--size", "30"], "multiple of 16"),
        (["bert_base", "--size", "600"], "at most 512 tokens"),
        (["mlp", "--pixels"], "no pictures"),
        (["mlp", "--picture", "64x64"], "no JPEGs"),
        (["resnet18", "--picture", "big"], "no HEIGHTxWIDTH"),
        (["mlp", "--price", "inf"], "--price"),
        (["mlp", "--workers", "2"], "--pool-rows"),
        (["mlp", "--set", "passes.cuont=7"], "did you mean 'count'"),
        (["mlp", "--precision", "fp8"], "bench mlp: passes.precision"),
        ([], "name a built-in network"),
        (["missing.yaml"], "missing.yaml"),
        (["missing.yaml", "--picture", "64x64"], "--picture"),
        (["mlp", "--compare", "a.json", "b.json"], "leave out subject"),
        (["--compare", "a.json", "b.json", "--out", "c.json", "--price", "3"], "leave out --price, --out"),
        (["--compare", "a.json", "b.json"], "a.json cannot be read (No such file or directory)"),
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
