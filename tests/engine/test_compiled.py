"""A compiled model: the driver's programs are what every worker runs."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from poolscore.engine.config import Config
from poolscore.engine.errors import ConfigError
from poolscore.engine.model.compiled import NOT_THERE
from poolscore.engine.prepare import prepare_job
from poolscore.engine.prepare.model import Compiled
from poolscore.engine.run.directory import RunDirectory
from poolscore.engine.run.elastic import Ask
from poolscore.engine.score import score_pool
from poolscore.engine.worker.worker import ShardWorker

Configure = Callable[..., Config]

ELSEWHERE = """
import pickle, sys
from poolscore.engine.worker.worker import ShardWorker
job, shard = pickle.load(open(sys.argv[1], "rb"))
worker = ShardWorker(job)
print(worker.profile["compiled"])
print(worker.score(shard).scores)
"""


def scores_of(run_dir: str, name: str) -> pa.Table:
    return pq.read_table(Path(run_dir) / name)


@pytest.mark.slow
def test_a_worker_elsewhere_compiles_nothing_and_gives_the_same_bits(
    digit_config: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "drivers-cache"))
    config = digit_config(passes={"compile": True, "count": 5})
    prepared = prepare_job(config)
    result = score_pool(config, prepared=prepared)
    run = RunDirectory(result.run_dir)
    assert prepared.job.compiled is not None
    assert run.info["profile"]["compiled"] == prepared.job.compiled.programs

    plain = score_pool(digit_config(passes={"compile": False, "count": 5}, run={"dir": str(tmp_path / "plain")}))
    a = {name: scores_of(result.run_dir, run.reports()[0].scores)[name].to_numpy() for name in ("bald", "entropy")}
    b = scores_of(plain.run_dir, RunDirectory(plain.run_dir).reports()[0].scores)
    assert all(abs(a[name] - b[name].to_numpy()).max() < 1e-5 for name in a)

    job = replace(prepared.job, run_id=run.info["id"])
    (tmp_path / "job").write_bytes(pickle.dumps((job, prepared.plan.shards[0])))
    script = tmp_path / "elsewhere.py"
    script.write_text(ELSEWHERE)
    environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "workers-cache")}
    command = [sys.executable, str(script), str(tmp_path / "job")]
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()
    assert output[0] == prepared.job.compiled.programs
    assert scores_of(result.run_dir, output[1]).equals(scores_of(result.run_dir, run.reports()[0].scores))

    artefact = Path(run.storage.path(prepared.job.compiled.name))
    artefact.write_bytes(artefact.read_bytes()[:-1] + b"?")
    with pytest.raises(ValueError, match="is not what the driver wrote"):
        ShardWorker(job)


@pytest.mark.slow
def test_a_workers_machine_compiles_for_a_driver_that_cannot(
    digit_config: Configure, ray_session: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The way of a driver without GPU, on a cluster whose machines have none either: it asks for no GPU there."""
    monkeypatch.setenv("RAY_ADDRESS", "ray-head:6379")  # a cluster, and who is attached already asks for no address
    here: list[object] = []
    monkeypatch.setattr("poolscore.engine.model.frontier.compile_part", here.append)
    run = {"executor": "ray", "workers": 1, "decode_threads": 0, "batch_size": 8}
    config = digit_config(run=run, passes={"compile": True, "count": 2})
    prepared = prepare_job(config)
    assert (prepared.job.compiled, prepared.uncompiled_because, len(prepared.compile_on)) == (None, None, 4)
    result = score_pool(config, prepared=prepared)
    run_there = RunDirectory(result.run_dir)
    (programs,) = (Path(result.run_dir) / "compiled").iterdir()
    assert sha256(programs.read_bytes()).hexdigest().startswith(programs.stem)
    told = run_there.info["profile"]["compiled"]
    assert len(told) == 32
    assert not told.startswith("by "), "the worker compiled nothing itself"
    assert result.totals.scored == 600
    assert here == []


def test_what_is_compiled_elsewhere_and_what_is_not(digit_config: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    def tried(passes: dict[str, Any] | None = None, **run: Any) -> int:
        config = digit_config(run={"executor": "ray", "address": "ray-head:6379", **run}, passes=passes or {})
        return len(prepare_job(config).compile_on)

    assert tried() == tried(device="cuda") == tried(passes={"compile": True}) == 4  # of auto: it depends on the cluster
    assert tried(passes={"compile": False}) == tried(device="cpu") == tried(address=None) == 0
    assert tried(passes={"split": False}) == 0  # there is nothing to compile


def test_a_cluster_without_gpus_compiles_nothing_that_nobody_asked_for(
    digit_config: Configure, ray_session: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "ray-head:6379")
    from poolscore.engine.run.ray_compile import compile_on_cluster

    prepared = prepare_job(digit_config(run={"executor": "ray", "decode_threads": 0}))
    held: list[int] = []
    assert compile_on_cluster(prepared.job, prepared.compile_on, held.append) == Compiled()
    assert held == [0]


def test_a_machine_that_is_taken_away_while_it_compiles(
    digit_config: Configure, ray_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one does it."""
    monkeypatch.setenv("RAY_ADDRESS", "ray-head:6379")
    from poolscore.engine.run import ray_compile

    marker = tmp_path / "one died"

    class Dies(ray_compile.Compiler):
        def compile(self, *_: object) -> Compiled:  # type: ignore[override]
            if marker.exists():
                return Compiled(programs=b"made")
            marker.touch()
            os._exit(1)

    monkeypatch.setattr(ray_compile, "Compiler", Dies)
    prepared = prepare_job(digit_config(run={"executor": "ray", "decode_threads": 0}, passes={"compile": True}))
    held: list[int] = []
    assert ray_compile.compile_on_cluster(prepared.job, prepared.compile_on, held.append).programs == b"made"
    assert held == [1, 0, 1, 0, 0]


def test_a_model_that_does_not_compile_on_the_cluster(
    digit_config: Configure, ray_session: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs as it is, unless passes.compile insists."""
    monkeypatch.setenv("RAY_ADDRESS", "ray-head:6379")
    from poolscore.engine.run import ray_compile

    prepared = prepare_job(digit_config(run={"executor": "ray", "decode_threads": 0}, passes={"compile": True}))
    job = prepared.job

    class Elsewhere(ray_compile.Compiler):
        def compile(self, *_: object) -> Compiled:  # type: ignore[override]
            raise RuntimeError("no compiler\nhere")

    monkeypatch.setattr(ray_compile, "Compiler", Elsewhere)
    held: list[int] = []
    with pytest.raises(ConfigError, match=r"passes.compile: .* on the cluster \(RuntimeError: no compiler here\)"):
        ray_compile.compile_on_cluster(job, prepared.compile_on, held.append)
    assert held == [1, 0, 0]
    passes = job.config.passes.model_copy(update={"compile": None})
    run = job.config.run.model_copy(update={"device": "cuda", "max_workers": 1})
    job = replace(job, config=job.config.model_copy(update={"passes": passes, "run": run}))
    monkeypatch.setattr(ray_compile.Elastic, "ask", lambda self, nodes: Ask(1, 0))
    made = ray_compile.compile_on_cluster(job, prepared.compile_on, held.append)
    assert made == Compiled(because="RuntimeError: no compiler here")


def test_a_worker_of_a_preview_compiles_by_itself(digit_config: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[object] = []

    def compile_part(graph: object) -> object:
        compiled.append(graph)
        return graph

    job = replace(prepare_job(digit_config()).job, compiled=NOT_THERE)
    monkeypatch.setattr("poolscore.engine.model.frontier.compile_part", compile_part)
    ShardWorker(job).close()  # there is no run directory, and nothing of the driver's in it
    assert compiled


def test_a_compiler_that_fails_is_no_reason_to_stop(digit_config: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(graph: object) -> object:
        def fail(*_: object) -> object:
            raise RuntimeError("no compiler\nhere")

        return fail

    monkeypatch.setattr("poolscore.engine.model.frontier.compile_part", broken)
    with pytest.raises(ConfigError, match=r"^passes.compile: .* \(RuntimeError: no compiler here\); leave it out$"):
        prepare_job(digit_config(passes={"compile": True}))
    monkeypatch.setattr("poolscore.engine.prepare.model._wants_compiled", lambda scorer: True)
    prepared = prepare_job(digit_config())
    assert (prepared.uncompiled_because, prepared.job.compiled) == ("RuntimeError: no compiler here", None)
    assert score_pool(prepared.config, prepared=prepared).totals.scored > 0


def test_a_compiled_model_that_gives_something_else_is_not_believed(
    digit_config: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(graph: Callable[..., object]) -> Callable[..., object]:
        def run(*arguments: object) -> object:
            output = graph(*arguments)
            return output if isinstance(output, tuple) else output + 0.1  # type: ignore[operator]

        return run

    monkeypatch.setattr("poolscore.engine.model.frontier.compile_part", wrong)
    with pytest.raises(ConfigError, match=r"cannot be compiled here \(differs by 1.0e-01"):
        prepare_job(digit_config(passes={"compile": True}))
