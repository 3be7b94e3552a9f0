"""The command line as users and scripts meet it: exit codes, and one line for what is wrong."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from conftest import TESTS, write_pool

from poolscore.engine.config import PassesConfig, RunConfig, load_config
from poolscore.engine.errors import ConfigError, PoolscoreError, StoppedError
from poolscore.engine.run.directory import RunDirectory
from poolscore.jobs import cli
from poolscore.jobs.cli.score import run_score
from poolscore.jobs.demo import run_demo
from poolscore.jobs.init import write_configuration

Write = Callable[..., Path]


@pytest.fixture
def configuration(tmp_path: Path, digits: pa.Table) -> Write:
    """Writes a working configuration file; sections can be changed."""
    import nets
    import torch

    write_pool(tmp_path / "pool", digits.slice(0, 300))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        torch.save(nets.cnn().state_dict(), tmp_path / "weights.pt")

    def write(**sections: dict[str, Any]) -> Path:
        base: dict[str, Any] = {
            "pool": {"uri": "pool", "input": "image", "decode": {"mode": "L"}, "id": "id"},
            "model": {"source": "nets:cnn", "path": str(TESTS), "weights": "weights.pt", "task": "multiclass"},
            "passes": {"count": 3},
            "select": {"k": 10},
            "run": {"dir": "run", "executor": "local", "batch_size": 16, "shard_rows": 50, "verify_rows": 0},
        }
        for name, values in sections.items():
            base[name] = {**base.get(name, {}), **values}
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(base))
        return path

    return write


def poolscore(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "poolscore.jobs", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        **options,
    )


def refused(path: Path, *overrides: str) -> str:
    """The one line that refuses a job; proves that nothing was written and no worker was started."""
    with pytest.raises(PoolscoreError) as caught:
        run_score(load_config(path, overrides))
    message = str(caught.value)
    assert caught.value.exit_code == 2
    assert "\n" not in message
    assert not (path.parent / "run" / "run.json").exists()
    return message


def test_score_report_status_select(configuration: Write, tmp_path: Path) -> None:
    run = poolscore("score", configuration(), "--set", "select.k=7")
    assert run.returncode == 0, run.stderr
    assert "selection.parquet" in run.stdout
    assert pq.read_table(tmp_path / "run" / "selection.parquet").num_rows == 7
    assert (tmp_path / "run" / "report.html").exists()
    facts = json.loads(poolscore("status", tmp_path / "run", "--json").stdout)
    assert facts["status"] == "done"
    assert facts["rows"] == {"done": 300, "all": 300, "scored": 300, "rejected": 0, "excluded": 0, "filtered": 0}
    first = pq.read_table(tmp_path / "run" / "selection.parquet", columns=["id"])
    pq.write_table(first, tmp_path / "sent.parquet")
    arguments = ("select", tmp_path / "run", "--name", "next", "--k", "5", "--exclude", tmp_path / "sent.parquet")
    assert poolscore(*arguments).returncode == 0
    after = pq.read_table(tmp_path / "run" / "selections" / "next.parquet")
    assert after.num_rows == 5
    assert not set(after["id"].to_pylist()) & set(first["id"].to_pylist())
    again = poolscore(*arguments)
    assert again.returncode == 2
    assert "exists" in again.stderr


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["pool.input=picture"], "pool.input: column 'picture' is not in part-0.parquet; it has: id, image, label"),
        (["pool.input=label"], "pool.input: column 'label' has type int64"),
        (["pool.keep=[labl]"], "pool.keep: column 'labl' is not in"),
        (["pool.id=uuid"], "pool.id: column 'uuid' is not in"),
        (["pool.uri=nowhere"], "pool.uri: there is nothing at"),
        (["pool.exclude=none.csv"], "pool.exclude: there is no file"),
        (["model.weights=other.pt"], "model.weights: there is no file"),
        (["model.classes=12"], "model.classes: the model gives 10 outputs per row, model.classes says 12"),
        (["model.task=binary"], "the model gives 10 outputs per row, task 'binary' has one logit"),
        (["model.source=nets:missing"], "module 'nets' has no 'missing'"),
        (["model.source=missing:net"], "cannot import 'missing'"),
        (["model.source=nets:softmaxed", "model.weights=null"], "it ends in a softmax"),
        (["select.k=301"], "select.k: 301 rows are asked for, the pool has 300"),
        (["pool.decode.mode=RGB"], "the model fails on input [2, 3, 8, 8]"),
        (["run.device=cuda"], "torch finds no GPU"),
    ],
)
def test_bad_input_is_one_line_before_anything_starts(
    configuration: Write, overrides: list[str], expected: str
) -> None:
    import torch

    if "cuda" in overrides[0] and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert expected in refused(configuration(), *overrides)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["select.score=predictive_variance"], "not defined for task 'multiclass'"),
        (["select.score=blad"], "there is no score 'blad'"),
        (["passes.count=1", "select.score=bald"], "passes.count is 1"),
        (["pasess.count=1"], "unknown key 'pasess'; did you mean 'passes'?"),
        (["run.batchsize=1"], "unknown key 'batchsize'; did you mean 'batch_size'?"),
        (["select.k=null"], "select.k"),
    ],
)
def test_a_bad_configuration_is_one_line(configuration: Write, overrides: list[str], expected: str) -> None:
    with pytest.raises(PoolscoreError) as caught:
        load_config(configuration(), overrides)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_bad_pools(configuration: Write, tmp_path: Path, digits: pa.Table) -> None:
    path = configuration()
    whole = (tmp_path / "pool" / "part-1.parquet").read_bytes()
    (tmp_path / "pool" / "part-1.parquet").write_bytes(whole[: len(whole) // 2])
    assert "part-1.parquet is no complete Parquet file" in refused(path)
    pq.write_table(digits.slice(0, 0), tmp_path / "pool" / "part-1.parquet")
    pq.write_table(digits.slice(0, 0), tmp_path / "pool" / "part-0.parquet")
    assert "has no rows" in refused(path)
    pq.write_table(digits.slice(0, 30), tmp_path / "pool" / "part-1.parquet")
    pq.write_table(digits.select(["id"]).slice(0, 30), tmp_path / "all.parquet")
    assert "all 30 rows of the pool are excluded" in refused(path, "pool.exclude=all.parquet")
    pq.write_table(digits.select(["id"]).slice(0, 25), tmp_path / "most.parquet")
    assert "10 rows are asked for, 5 are left" in refused(path, "pool.exclude=most.parquet")
    broken = digits.slice(0, 30).set_column(1, "image", pa.array([b"x"] * 30, pa.binary()))
    pq.write_table(broken, tmp_path / "pool" / "part-1.parquet")
    assert "none of the first 30 rows can be decoded; the commonest reason: no picture" in refused(path)


def test_a_directory_that_cannot_be_written_is_known_at_once(configuration: Write, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PoolscoreError, match=r"run.dir: .* cannot be written"):
        run_score(load_config(configuration(run={"dir": "file/run"})))


def test_a_directory_of_somebody_else_is_left_alone(configuration: Write, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("precious")
    assert "holds other files (thesis.tex" in refused(configuration())


def test_check_stops_a_badly_wired_job(configuration: Write, tmp_path: Path, digits: pa.Table) -> None:
    pq.write_table(digits.slice(300, 100), tmp_path / "labelled.parquet")
    check = {"labelled": "labelled.parquet", "label": "label", "min_accuracy": 0.9}
    assert "is below check.min_accuracy=0.9" in refused(configuration(check=check))
    shown = poolscore("score", configuration(check={**check, "min_accuracy": 0.0}))
    assert shown.returncode == 0, shown.stderr
    assert "accuracy, dropout off" in shown.stdout
    assert "bald ranks errors" in shown.stdout


@pytest.mark.parametrize("executor", ["local", "ray"])
def test_sigterm_leaves_a_run_that_can_be_resumed(configuration: Write, tmp_path: Path, executor: str) -> None:
    path = configuration(
        run={"shard_rows": 30, "executor": executor, "workers": 1, "device": "cpu"},
        pool={"decode": {"kind": "function", "function": "nets:slow_digit"}},
    )
    command = [sys.executable, "-m", "poolscore.jobs", "score", str(path)]
    slowly = {**os.environ, "SLOW_DIGIT": "0.02"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=slowly)
    while process.poll() is None and not list((tmp_path / "run" / "_log" / "000001").glob("00000001.json")):
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "interrupted" in stderr
    assert "Traceback" not in stderr
    run = RunDirectory(str(tmp_path / "run"))
    assert run.info["status"] == "interrupted"
    assert 0 < run.totals().shards < 10
    first = {report.scores for report in run.reports().values()}
    assert poolscore("score", path, "--resume", "--set", "run.executor=local").returncode == 0
    assert first < {report.scores for report in run.reports().values()}


def test_resume_without_a_run_and_usage_errors(configuration: Write, tmp_path: Path) -> None:
    path = configuration()
    with pytest.raises(PoolscoreError, match="there is no run"):
        run_score(load_config(path), must_resume=True)
    assert poolscore("score", path, "--bogus").returncode == 2
    assert poolscore("status", tmp_path / "nowhere").returncode == 2
    assert poolscore("score", tmp_path / "none.yaml").returncode == 2


def test_plan_shows_pool_and_dropout(configuration: Write) -> None:
    shown = poolscore("plan", configuration(), env={**os.environ, "COLUMNS": "200"})
    assert shown.returncode == 0, shown.stderr
    assert "300 rows, 2 files" in shown.stdout
    assert "feature p=0.3 on [8]" in shown.stdout
    assert "p=0.5 on [32]" in shown.stdout
    assert re.search(r"without reading and decoding: \d+\.\d s for the pool", shown.stdout)


def test_preview_scores_a_sample_and_shows_what_it_would_pick(configuration: Write, tmp_path: Path) -> None:
    page = tmp_path / "preview.html"
    shown = poolscore(
        *("plan", configuration(), "--preview", "200", "--page", str(page), "--set", "prices.cpu_hour=1"),
        env={**os.environ, "COLUMNS": "200"},
    )
    assert shown.returncode == 0, shown.stderr
    assert re.search(r"preview of \d+ rows", shown.stdout)
    for words in ("x the time of one", "bounded by", "near-duplicates", "unknown: measured on no GPU", "USD (CPU"):
        assert words in shown.stdout
    html = page.read_text()
    assert "that it would pick" in html
    assert "<script" not in html


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["model.source=nets:not_a_model"], "model.source: nets:not_a_model gave dict, not a torch.nn.Module"),
        (["model.source=nets:broken"], "model.source: nets:broken fails: ValueError: no weights for 10 classes"),
        (["model.weights=other.pt"], "does not fit the model: '8.weight' is [7, 32] there, [10, 32] in the model"),
        (["model.source=nets:mlp", "model.args={inputs: 64, outputs: 10}", "model.weights=other.pt"], "missing 3.bias"),
        (["model.source=nets:no_dropout"], "model: it has no live dropout, so its 3 passes would be the same; add"),
        (["model.source=nets:drops_all"], "model: dropout '3' has p=1, which drops everything; use p below 1"),
        (["model.source=nets:dropout_aside"], "model: its output is the same with everything dropped; its dropout"),
        (["model.source=nets:unpooled"], "must give a float tensor [N, C]; for N=2 it gave a tensor [2, 8, 6, 6]"),
        (["model.source=nets:two_answers"], "must give a float tensor [N, C]; for N=2 it gave a tuple"),
        (
            ["model.source=nets:only_in_fp32", "passes.precision=bf16"],
            "model.source: the model fails on its first rows with passes.precision=bf16: RuntimeError: scatter",
        ),
    ],
)
def test_wrong_models_are_one_line_of_plan(
    configuration: Write,
    overrides: list[str],
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    import nets
    import torch

    torch.save(nets.cnn(classes=7).state_dict(), tmp_path / "other.pt")
    model = {} if "weights" in overrides[-1] else {"weights": None}
    settings = [part for override in overrides for part in ("--set", override)]
    code, line = told(monkeypatch, capsys, "plan", configuration(model=model), *settings)
    assert expected in line
    assert (code, line.startswith("poolscore: model")) == (2, True)


def test_init_writes_a_configuration_that_plans(tmp_path: Path, digits: pa.Table, configuration: Write) -> None:
    configuration()
    out = tmp_path / "made.yaml"
    weights = tmp_path / "weights.pt"
    run = poolscore("init", "pool", "nets:cnn", "--weights", weights, "--k", "10", "--out", out, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    config = load_config(out, [f"model.path={TESTS}", "model.classes=10"])
    assert config.pool.id == "id"
    assert config.pool.decode.kind == "image"
    assert config.pool.decode.mode == "L"
    planned = poolscore("plan", out, "--set", f"model.path={TESTS}")
    assert planned.returncode == 0, planned.stderr
    assert poolscore("init", "pool", "nets:cnn", "--out", out, cwd=tmp_path).returncode == 2  # exists
    assert str(tmp_path) not in out.read_text()  # the folder can be moved as a whole


def told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str | Path
) -> tuple[int, str]:
    """Exit code and the one line on stderr."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["poolscore", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    return int(caught.value.code or 0), line


def test_what_users_can_mend_is_one_line(
    tmp_path: Path, digits: pa.Table, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pool(tmp_path / "pool", digits.slice(0, 10))
    (tmp_path / "file").write_text("")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "run.json").write_text('{"format": 1}')
    code, line = told(monkeypatch, capsys, "init", tmp_path / "pool", "nets:cnn", "--out", tmp_path / "no" / "x.yaml")
    assert (code, "cannot be written" in line) == (2, True)
    code, line = told(monkeypatch, capsys, "demo", "--dir", tmp_path / "file")
    assert (code, "--dir" in line) == (2, True)
    for command in (["status"], ["report"], ["select", "--name", "a"]):
        code, line = told(monkeypatch, capsys, *command, tmp_path / "damaged")
        assert (code, "is damaged" in line) == (2, True)


def test_any_failure_of_the_system_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise OSError(28, "No space left on device", "/x")

    monkeypatch.setattr(cli, "app", fail)
    assert told(monkeypatch, capsys) == (4, "poolscore: [Errno 28] No space left on device: '/x'\n")


def test_a_failing_report_does_not_hide_the_result(
    configuration: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any) -> None:
        raise StoppedError("the disk is full")

    monkeypatch.setattr("poolscore.jobs.report.write_report", fail)
    assert run_score(load_config(configuration())) == 0
    shown = capsys.readouterr()
    assert "selection.parquet" in shown.out
    assert f"the disk is full; `poolscore report {tmp_path / 'run'}`" in shown.err


@pytest.mark.parametrize(("model", "train"), [("nets.small:cnn", "nets.small:train"), ("net.onnx", "mynet:train")])
def test_init_s_loop_may_be_uncommented(tmp_path: Path, digits: pa.Table, model: str, train: str) -> None:
    write_pool(tmp_path / "pool", digits.slice(0, 10))
    out = tmp_path / "made.yaml"
    write_configuration(str(tmp_path / "pool"), model, weights=None, task="multiclass", k=5, out=out)
    assert load_config(out).loop is None
    text = out.read_text()
    section = text[text.index("# loop:") :].partition("\nrun:")[0]
    out.write_text(text.replace(section, re.sub("(?m)^# ?", "", section)))
    loop = load_config(out).loop
    assert loop is not None
    assert (loop.train, loop.stop.budget, loop.label.pause is not None) == (train, 1000, True)


@pytest.mark.parametrize("name", ["image: raw", "a # b", "yes", "- x", "zwölf\u2028\x85\x7f😀", 'a"b\\c\n'])
def test_init_quotes_names(tmp_path: Path, digits: pa.Table, name: str) -> None:
    write_pool(tmp_path / "pool", digits.slice(0, 10).rename_columns(["id", name, "label"]))
    config = made(tmp_path)
    assert config.pool.input == name
    assert (config.pool.id, config.pool.decode.kind) == ("id", "image")


def made(folder: Path) -> Any:
    out = folder / "made.yaml"
    write_configuration(str(folder / "pool"), "nets:cnn", weights=None, task="multiclass", k=1, out=out)
    return load_config(out)


@pytest.mark.parametrize(
    ("kind", "decoder"),
    [(pa.binary_view(), "image"), (pa.list_(pa.float32()), "tensor"), (pa.list_(pa.int8(), 2), "tensor")],
)
def test_init_knows_what_the_decoders_read(tmp_path: Path, kind: pa.DataType, decoder: str) -> None:
    values = pa.array([b"x", b"y"] if decoder == "image" else [[1, 2], [3, 4]], kind)
    ids = [b"a", b"b"] if decoder == "image" else ["a", "b"]
    write_pool(tmp_path / "pool", pa.table({"id": ids, "label": [1, 2], "x": values}))
    config = made(tmp_path)
    assert (config.pool.input, config.pool.decode.kind) == ("x", decoder)


@pytest.mark.parametrize(
    ("columns", "taken", "length"),
    [
        ({"text": ["to be or not", "to be"], "size": [1, 2]}, "text", 16),
        ({"code": ["a", "b"], "said": ["one two three four " * 9, None]}, "said", 64),
        ({"size": [1, 2], "note": ["a short note", "and another short one"]}, "note", 16),
        ({"said": ["x"], "title": ["y"]}, "title", 16),
        ({"word": ["x"]}, "word", 16),
        ({"text": ["", None], "split": ["a b c d", "e"]}, "text", 16),
        ({"text": ["word " * 9000]}, "text", 512),
        ({"tokens": [[1, 2, 3], [4], None]}, "tokens", 16),
    ],
)
def test_init_knows_text(tmp_path: Path, columns: dict[str, list[Any]], taken: str, length: int) -> None:
    rows = len(next(iter(columns.values())))
    write_pool(tmp_path / "pool", pa.table({"id": ["a"] * rows, "label": ["l"] * rows, **columns}))
    config = made(tmp_path)
    assert (config.pool.input, config.pool.decode.kind) == (taken, "text")
    assert (config.pool.decode.length, config.pool.decode.tokenizer is None) == (length, taken == "tokens")
    if taken != "tokens":
        assert "of your model: where is the Hugging Face file" in (tmp_path / "made.yaml").read_text()


def test_init_takes_categories_for_no_text(tmp_path: Path) -> None:
    write_pool(tmp_path / "pool", pa.table({"kind": ["red", "dark blue"], "size": [1, 2]}))
    assert made(tmp_path).pool.decode.kind == "features"
    write_pool(tmp_path / "other" / "pool", pa.table({"ids": pa.array([[1, 2], [3, 4]], pa.list_(pa.int32()))}))
    assert made(tmp_path / "other").pool.decode.kind == "tensor"


@pytest.mark.parametrize(
    ("rows", "expected"), [(10, 256), (5_000, 256), (100_000, 8_192), (1_000_000, 65_536), (1_100_000, 65_536)]
)
def test_init_cuts_a_small_pool_into_about_16_shards(tmp_path: Path, rows: int, expected: int) -> None:
    write_pool(tmp_path / "pool", pa.table({"x": pa.array(np.zeros(rows, np.int8))}))
    config = made(tmp_path)
    assert config.run.shard_rows == expected
    assert config.passes == PassesConfig()
    assert config.run.batch_size == RunConfig(dir="run").batch_size


def test_init_names_what_lies_elsewhere_by_its_whole_path(tmp_path: Path, digits: pa.Table) -> None:
    write_pool(tmp_path / "pool", digits.slice(0, 100))
    (tmp_path / "jobs").mkdir()
    out = tmp_path / "jobs" / "made.yaml"
    write_configuration(str(tmp_path / "pool"), "net.onnx", weights=None, task="multiclass", k=5, out=out)
    assert f"uri: {json.dumps(str(tmp_path / 'pool'))}" in out.read_text()
    assert load_config(out).pool.uri == str(tmp_path / "pool")


def test_the_version_is_told() -> None:
    told = poolscore("--version")
    assert (told.returncode, told.stdout) == (0, f"poolscore {version('poolscore')}\n")


def test_who_is_asked_is_said_at_once_and_who_is_not_there_is_told_within_seconds(
    configuration: Write, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("poolscore.engine.prepare.prepare_job", lambda *_: pytest.fail("it looks at the pool first"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        began = time.monotonic()
        message = refused(configuration(), "run.executor=ray", f"run.address={address}")
        assert time.monotonic() - began < 20  # Ray's import included
    assert re.search(rf"run.address: no Ray cluster answers at {address} \(.*refused\); give its HOST:PORT", message)
    assert f"asking the Ray cluster at {address}" in capsys.readouterr().out


def test_the_dashboard_is_no_address_of_the_cluster(answering_http: str) -> None:
    from poolscore.engine.run.ray_cluster import require_answer

    with pytest.raises(ConfigError, match=r"run.address: .* is a web page; is it the cluster's dashboard"):
        require_answer(answering_http, "run.address")
    require_answer("auto", "run.address")  # Ray knows better


@pytest.fixture
def answering_http() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_a_finished_run_is_said_to_be_finished(
    configuration: Write, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    config = load_config(configuration())
    assert run_score(config) == 0
    before = json.loads((tmp_path / "run" / "run.json").read_text())
    assert "finished before" not in capsys.readouterr().out
    assert run_score(config) == 0
    told = capsys.readouterr().out
    assert f"{tmp_path / 'run'} was finished before: nothing was left to score; the selection is as configured" in told
    assert "starting workers" not in told
    after = json.loads((tmp_path / "run" / "run.json").read_text())
    assert [event["what"] for event in before["events"]][-1] == "ended"
    assert after["events"] == before["events"]


def test_init_takes_a_file(tmp_path: Path, digits: pa.Table) -> None:
    write_pool(tmp_path / "pool", digits.slice(0, 100))
    for file, lines in (("net.pt2", "# trust: true"), ("net.onnx", "task:")):
        out = tmp_path / f"{file}.yaml"
        write_configuration(str(tmp_path / "pool"), file, weights=None, task="multiclass", k=5, out=out)
        assert load_config(out).model.source == str(Path(file).resolve())
        assert lines in out.read_text()
        assert "args" not in out.read_text()


def test_the_demonstration_leaves_the_cluster_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "ray://cluster:10001")
    monkeypatch.setattr("poolscore.jobs.demo.train.train", lambda *_: None)
    monkeypatch.setattr("poolscore.jobs.cli.score.run_score", lambda _: int("RAY_ADDRESS" in os.environ))
    assert run_demo(tmp_path / "demo", 1) == 0


def test_schema_is_a_json_schema() -> None:
    schema = json.loads(poolscore("schema").stdout)
    assert set(schema["required"]) == {"pool", "model", "select", "run"}
