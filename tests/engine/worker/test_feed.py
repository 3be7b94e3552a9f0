"""The pipeline of one worker: the same bits however far ahead a stage is, its budgets, its times, and its end."""

from __future__ import annotations

import io
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from conftest import scores_of_run
from numpy.typing import NDArray
from PIL import Image

from poolscore.engine.config import Config
from poolscore.engine.errors import INCOMPLETE, OutOfMemory, StoppedError
from poolscore.engine.machine.cores import Node, cores_per_worker, with_decode_threads
from poolscore.engine.prepare import prepare_job
from poolscore.engine.run.directory import RunDirectory
from poolscore.engine.run.fleet import LocalFleet
from poolscore.engine.run.journal import ShardReport
from poolscore.engine.run.task import ScoreShard
from poolscore.engine.score import score_pool
from poolscore.engine.worker.shard import Scorer
from poolscore.engine.worker.stages import ON_DEVICE, STAGES, bounding_stage, idle_share
from poolscore.engine.worker.worker import ShardWorker

Configure = Callable[..., Config]


def our_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("poolscore")]


@pytest.mark.parametrize("run", [{"decode_threads": 2}, {"decode_threads": 1, "read_ahead": 1}, {"read_ahead": 10_000}])
def test_bits_do_not_depend_on_threads_and_budgets(
    digit_config: Configure, tmp_path: Path, run: Mapping[str, int]
) -> None:
    score_pool(digit_config(run={"decode_threads": 0}))
    score_pool(digit_config(run={"dir": str(tmp_path / "other"), **run}))
    assert scores_of_run(str(tmp_path / "other")).equals(scores_of_run(str(tmp_path / "run")))
    profiles = [RunDirectory(str(tmp_path / name)).info["profile"] for name in ("run", "other")]
    assert profiles[0] == profiles[1]
    assert our_threads() == []


def test_two_shards_at_a_time_give_what_one_gives(digit_config: Configure, tmp_path: Path) -> None:
    config = digit_config(run={"decode_threads": 1})
    score_pool(config)
    worker = ShardWorker(prepare_job(config).job)
    alone = [worker.score(shard) for shard in prepare_job(config).plan.shards]
    worker.close()
    run = RunDirectory(config.run.dir)
    for report in alone:
        names = report.scores, run.reports()[report.shard].scores
        ours, theirs = (pq.read_table(tmp_path / "run" / name) for name in names)
        assert ours.equals(theirs)
    assert our_threads() == []


@pytest.mark.parametrize("threaded", [False, True])
def test_the_queues_keep_to_their_budget(digit_config: Configure, threaded: bool) -> None:
    prepared = prepare_job(digit_config(run={"read_ahead": 40_000, "shard_rows": 600}))
    scorer: Scorer = prepared.scorer
    (shard,) = prepared.plan.shards
    with scorer.feed(shard, threaded) as feed:
        for _ in feed:
            time.sleep(0.002)  # the stages before it run into their budgets
        assert feed.peak <= 20_000
        assert (feed.peak > 10_000) == threaded


def test_encoded_rows_that_wait_beside_their_batch_count(digit_config: Configure) -> None:
    prepared = prepare_job(digit_config(run={"read_ahead": 160_000, "shard_rows": 600}))
    with prepared.scorer.feed(prepared.plan.shards[0], threaded=True) as feed:
        first, batch = next(iter(feed))
        assert first.table.nbytes > batch.nbytes > 0
        decoded = feed._threads[1]
        deadline = time.monotonic() + 5
        while decoded.peak < 10_000:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        time.sleep(0.05)  # nobody takes what is decoded
        assert sum(rows.table.nbytes + batch.nbytes for (rows, batch), _ in decoded._waiting) <= 20_000


def test_a_function_of_the_user_is_never_called_twice_at_once(
    digit_config: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    most = 0

    def decode(png: bytes) -> NDArray[np.float32]:
        nonlocal most
        calls.append(1)
        most = max(most, len(calls))
        time.sleep(1e-4)
        calls.pop()
        return np.asarray(Image.open(io.BytesIO(png)).convert("L"), np.float32)[None] / 255

    module = ModuleType("users_module")
    module.__dict__["decode"] = decode
    monkeypatch.setitem(sys.modules, "users_module", module)
    by_function = {"decode": {"kind": "function", "function": "users_module:decode"}}
    assert score_pool(digit_config(pool=by_function, run={"decode_threads": 1})).totals.scored == 600
    assert most == 1


def test_a_consumer_that_stops_leaves_no_thread(digit_config: Configure) -> None:
    prepared = prepare_job(digit_config(run={"shard_rows": 600, "read_ahead": 20_000}))  # too little to read it all
    with prepared.scorer.feed(prepared.plan.shards[0], threaded=True) as feed:
        next(iter(feed))
        assert {"poolscore-read", "poolscore-decode"} <= set(our_threads())
    assert our_threads() == []
    prepared.scorer.feed(prepared.plan.shards[0], threaded=True).close()  # never asked
    assert our_threads() == []


def test_an_unreadable_file_is_todays_error_from_a_thread(digit_config: Configure, tmp_path: Path) -> None:
    config = digit_config(run={"decode_threads": 1})
    prepared = prepare_job(config)
    (tmp_path / "pool" / "part-1.parquet").unlink()
    result = score_pool(config, prepared=prepared)
    assert result.exit_code == INCOMPLETE
    assert all("part-1.parquet cannot be read" in reason for reason in result.set_aside.values())
    assert our_threads() == []


def test_stages_are_timed_and_add_up(digit_config: Configure) -> None:
    config = digit_config(run={"decode_threads": 1})
    started = time.monotonic()
    totals = score_pool(config).totals
    took = time.monotonic() - started
    assert tuple(totals.stages) == STAGES
    assert all(seconds >= 0 for seconds in totals.stages.values())
    assert min(totals.stages[stage] for stage in ("read", "decode", "model", "reduce", "write")) > 0
    on_device = sum(totals.stages[stage] for stage in ON_DEVICE)
    assert on_device <= totals.worker_seconds * 1.01 <= took * 1.01
    assert on_device > 0.3 * totals.worker_seconds
    assert 0 <= idle_share(totals.stages) <= 1
    assert RunDirectory(config.run.dir).info["totals"]["stages"] == totals.stages


@pytest.mark.parametrize(("slow", "bounds"), [("decode", "decode"), ("model", "model")])
def test_the_stage_that_is_slow_is_named(
    digit_config: Configure, monkeypatch: pytest.MonkeyPatch, slow: str, bounds: str
) -> None:
    from poolscore.engine.inputs.batch import BatchDecoder
    from poolscore.engine.model.passes import McDropout

    owner, name = {"decode": (BatchDecoder, "read"), "model": (McDropout, "logits")}[slow]
    fast = getattr(owner, name)

    def delayed(*args: Any) -> Any:
        time.sleep(0.02)
        return fast(*args)

    prepared = prepare_job(digit_config(run={"decode_threads": 1}))
    monkeypatch.setattr(owner, name, delayed)
    totals = score_pool(prepared.config, prepared=prepared).totals
    assert bounding_stage(totals.stages) == bounds
    assert (idle_share(totals.stages) > 0.5) == (slow == "decode")


def test_writing_bounds_where_it_takes_longer_than_all_on_the_device() -> None:
    seconds = {"read": 1.0, "decode": 5.0, "model": 2.0, "idle": 3.0, "write": 4.9}
    assert bounding_stage(seconds) == "decode"
    assert bounding_stage({**seconds, "write": 5.1}) == "write"


def test_nothing_bounds_where_nothing_was_timed() -> None:
    old = {"shard": 0, "scores": "s", "errors": None, "scored": 1, "rejected": 0, "excluded": 0, "best": {}}
    report = ShardReport(**old, reasons={}, seconds=1.0, worker="w", peak_memory=1)  # type: ignore[arg-type]
    assert report.stages == {}
    assert bounding_stage(report.stages) is None


def test_memory_that_runs_out_is_tried_again_and_then_stops_the_job_with_advice(
    digit_config: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def full(self: Scorer, feed: Any) -> Any:
        calls.append(feed.shard.index)
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")

    config = digit_config(run={"shard_rows": 600})
    prepared = prepare_job(config)
    monkeypatch.setattr(Scorer, "infer", full)
    worker = ShardWorker(prepared.job)
    with pytest.raises(OutOfMemory) as caught:
        worker.score(prepared.plan.shards[0])
    worker.close()
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)  # whose frames would hold the memory
    calls.clear()
    with pytest.raises(StoppedError, match=r"CUDA out of memory.*smaller run.batch_size or passes.rows_per_call"):
        score_pool(config, prepared=prepared)
    assert calls == [0, 0, 0]
    assert our_threads() == []


def test_a_worker_that_is_closed_gives_up_its_shard(digit_config: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = prepare_job(digit_config())
    fleet = LocalFleet(prepared.job)
    fleet.wait(0)
    worker = fleet._worker
    logits = worker._scorer.model.logits
    began = threading.Event()

    def slow(*args: Any) -> Any:
        began.set()
        time.sleep(0.05)
        return logits(*args)

    monkeypatch.setattr(worker._scorer.model, "logits", slow)
    for shard in prepared.plan.shards[:2]:
        fleet.submit(0, ScoreShard(shard))
    assert fleet.free() == []
    began.wait(5)
    started = time.monotonic()
    fleet.close()
    assert time.monotonic() - started < 2
    assert our_threads() == []


@pytest.mark.parametrize(
    ("nodes", "workers", "least", "on_gpu", "cores"),
    [
        ([Node(16, 1)], 1, 1, True, 16),
        ([Node(16, 4)], 4, 1, True, 4),
        ([Node(16, 4)], 3, 1, True, 5),
        ([Node(2), Node(16, 2), Node(8, 1)], 3, 1, True, 8),
        ([Node(8)], 8, 1, False, 1),
        ([Node(8), Node(8)], 4, 2, False, 4),
        ([Node(2)], 4, 1, False, 1),  # more workers than cores
        ([], 1, 1, False, 1),
    ],
)
def test_cores_are_divided_among_the_workers(
    nodes: list[Node], workers: int, least: int, on_gpu: bool, cores: int
) -> None:
    assert cores_per_worker(nodes, workers, least, on_gpu) == cores


def test_what_torch_leaves_decodes(digit_config: Configure) -> None:
    run = digit_config(run={"threads": 2}).run
    assert [with_decode_threads(run, cores, False).decode_threads for cores in (1, 2, 8)] == [0, 0, 6]
    assert with_decode_threads(run, 1, True).decode_threads == 1
    assert with_decode_threads(replace_threads(run, 5), 2, True).decode_threads == 5


def replace_threads(run: Any, count: int) -> Any:
    return run.model_copy(update={"decode_threads": count})
