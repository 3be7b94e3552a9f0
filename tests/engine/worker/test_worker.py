"""What a worker verifies before it scores, and what one bad row may cost."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import scores_of_run, write_pool

from poolscore.engine.config import Config
from poolscore.engine.errors import DONE, INCOMPLETE, BrokenDevice, ConfigError, StoppedError, UnreadableShard
from poolscore.engine.machine.openmp import end_own_pool
from poolscore.engine.prepare import prepare_job
from poolscore.engine.run.bisect import MOST_ROWS
from poolscore.engine.run.directory import RunDirectory
from poolscore.engine.run.journal import ShardReport
from poolscore.engine.run.task import ScoreShard, TryReading, TryRows
from poolscore.engine.score import score_pool
from poolscore.engine.worker.profile import numeric_settings
from poolscore.engine.worker.shard import Scorer
from poolscore.engine.worker.worker import ShardWorker

Configure = Callable[..., Config]


def without(scores: pa.Table, row_ids: list[int]) -> pa.Table:
    return scores.filter(pa.array(np.isin(scores["row_id"].to_numpy(), row_ids, invert=True)))


def test_an_exclude_list_that_grew_is_refused(digit_config: Configure, tmp_path: Path) -> None:
    listed = tmp_path / "labelled.csv"
    listed.write_text("id\ndigit-0001\n")
    job = prepare_job(digit_config(pool={"exclude": str(listed)})).job
    ShardWorker(job)
    listed.write_text("id\ndigit-0001\ndigit-0002\n")
    with pytest.raises(ConfigError, match=r"labelled.csv changed since the job began"):
        ShardWorker(job)


def test_torch_s_threads_of_who_prepared_the_job_end(digit_config: Configure) -> None:
    job = prepare_job(digit_config()).job

    def threads() -> set[str]:
        return {task.name for task in Path("/proc/self/task").iterdir()}

    end_own_pool()  # of tests before this one
    before = threads()
    with numeric_settings(3):
        torch.ones(512, 512) @ torch.ones(512, 512)  # in three parts
    pool = threads() - before
    assert pool
    worker = ShardWorker(job)
    give_up = time.monotonic() + 10
    while pool & threads() and time.monotonic() < give_up:
        time.sleep(0.01)
    worker.close()
    assert not pool & threads()


def test_another_run_directory_is_refused(digit_config: Configure) -> None:
    config = digit_config()
    score_pool(config)
    job = prepare_job(config).job
    ShardWorker(replace(job, run_id=RunDirectory(config.run.dir).info["id"]))
    with pytest.raises(ConfigError, match=r"is not the run's directory on .*; it must lie on storage that all"):
        ShardWorker(replace(job, run_id="of another disk"))


def test_rows_that_make_the_model_raise_cost_nothing_but_themselves(
    two_inputs_config: Configure, tmp_path: Path
) -> None:
    tokens = np.random.default_rng(0).integers(0, 20, (200, 6))
    config = two_inputs_config(tokens, shard_rows=50, batch_size=16, dir=str(tmp_path / "whole"))
    whole = scores_of_run(score_pool(config).run_dir)
    poison = [150, 166, 199]
    tokens[poison, 0] = 20_000  # out of the embedding's range
    result = score_pool(two_inputs_config(tokens, shard_rows=50, batch_size=16, max_bad_fraction=0.1))
    assert (result.exit_code, result.totals.scored, result.totals.rejected) == (DONE, 197, 3)
    assert scores_of_run(result.run_dir).equals(without(whole, poison))
    run = RunDirectory(result.run_dir)
    errors = pq.read_table(run.storage.path(run.reports()[3].errors or ""))
    assert errors["row_id"].to_pylist() == poison
    assert set(errors["stage"].to_pylist()) == {"score"}
    assert set(errors["error"].to_pylist()) == {"IndexError: index out of range in self"}
    assert len(list((tmp_path / "run" / "scores").iterdir())) == 4  # trials write nothing


def test_a_shard_with_more_poison_than_is_looked_for_is_set_aside(two_inputs_config: Configure) -> None:
    tokens = np.random.default_rng(0).integers(0, 20, (200, 6))
    tokens[160 : 160 + MOST_ROWS + 1, 0] = 20_000
    result = score_pool(two_inputs_config(tokens, shard_rows=50, batch_size=16))
    assert result.exit_code == INCOMPLETE
    assert result.set_aside == {3: "IndexError: index out of range in self; more than 32 of its rows do that"}
    assert result.totals.scored == 150
    assert pq.read_table(result.selection).num_rows == 5


def test_score_pool_checks_the_labelled_rows_itself(digit_config: Configure, digits: pa.Table, tmp_path: Path) -> None:
    pq.write_table(digits.slice(600, 50), tmp_path / "labelled.parquet")
    config = digit_config(check={"labelled": str(tmp_path / "labelled.parquet"), "min_accuracy": 1.0})
    seen = []
    with pytest.raises(ConfigError, match=r"below check.min_accuracy=1"):
        score_pool(config, on_check=seen.append)
    assert seen[0].rows == 50
    assert not Path(config.run.dir).exists()


def test_a_first_batch_of_bad_rows_is_no_verdict_on_the_model(
    digit_config: Configure, digits: pa.Table, tmp_path: Path
) -> None:
    images = [b"no picture"] * 20 + digits["image"].to_pylist()[20:600]
    write_pool(tmp_path / "pool", digits.slice(0, 600).set_column(1, "image", pa.array(images, pa.binary())))
    result = score_pool(digit_config(run={"max_bad_fraction": 0.1}))
    assert (result.totals.scored, result.totals.rejected) == (580, 20)


def test_large_tensors_come_in_large_pages() -> None:
    if "[never]" in Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text():
        pytest.skip("this machine has none")
    module = "poolscore.engine.worker.worker"
    code = f"import torch, {module}; x = torch.zeros(1 << 24); print(open('/proc/self/smaps_rollup').read())"
    about = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    huge = next(line.split()[1] for line in about.splitlines() if line.startswith("AnonHugePages"))
    assert int(huge) >= 48 << 10  # kB, of 64 MB


def written(config: Config, report: ShardReport) -> tuple[pa.Table, pa.Table | None]:
    folder = Path(config.run.dir)
    return pq.read_table(folder / report.scores), report.errors and pq.read_table(folder / report.errors)


def test_blank_rows_are_rejected_and_the_others_keep_their_bits(digit_config: Configure, tmp_path: Path) -> None:
    listed = tmp_path / "labelled.csv"
    listed.write_text("id\ndigit-0203\n")
    config = digit_config(pool={"exclude": str(listed)}, run={"decode_threads": 2})
    prepared = prepare_job(config)
    shard = prepared.plan.shards[2]
    first = shard.row_id
    worker = ShardWorker(prepared.job)
    whole, no_errors = written(config, worker.score(shard))
    assert no_errors is None
    for places in ([0], [0, 1, 2, 3, 17, 50, 99], range(100)):
        blank = {first + place: ("worker", f"died of {place}") for place in places}
        report = worker.score(shard, blank)
        scores, errors = written(config, report)
        assert errors is not None
        rejected = [row for row in blank if row != 203]  # it is excluded
        assert (report.scored, report.rejected, report.excluded) == (99 - len(rejected), len(rejected), 1)
        assert errors["row_id"].to_pylist() == rejected
        assert errors["error"].to_pylist() == [f"died of {row - first}" for row in rejected]
        assert set(errors["stage"].to_pylist()) == {"worker"}
        assert scores.equals(without(whole, rejected))
    worker.close()


def test_a_trial_writes_nothing(digit_config: Configure) -> None:
    config = digit_config()
    prepared = prepare_job(config)
    worker = ShardWorker(prepared.job)
    shard = prepared.plan.shards[1]
    for task in (TryReading(shard), TryRows(shard, 3, 4), TryRows(shard, 0, 100, {shard.row_id: ("worker", "died")})):
        assert task.do(worker) is None  # type: ignore[func-returns-value]
    assert not (Path(config.run.dir) / "scores").exists()
    assert worker.score(shard).scored == 100
    worker.close()


@pytest.mark.parametrize("threaded", [False, True])
def test_a_shard_that_is_given_up_never_passes_for_a_short_one(digit_config: Configure, threaded: bool) -> None:
    """Closing a feed ends it, as its last block does."""
    prepared = prepare_job(digit_config(run={"batch_size": 8}))
    scorer, shard = prepared.scorer, prepared.plan.shards[0]
    taken = scorer.statistics

    def stopping(logits: Any) -> Any:
        scorer.stop()  # while a block is in the model
        return taken(logits)

    object.__setattr__(scorer, "statistics", stopping)
    with scorer.feed(shard, threaded) as feed, pytest.raises(StoppedError, match="told to stop"):
        scorer.infer(feed)


def test_blanks_give_the_same_bits_on_any_worker_in_any_order(digit_config: Configure) -> None:
    config = digit_config(passes={"masks": "independent"})
    prepared = prepare_job(config)
    shards = list(prepared.plan.shards)
    blank = {i * 100 + place: ("worker", "died") for i in range(6) for place in (i, 15, 16, 99)}
    tasks = [ScoreShard(shard, blank) for shard in shards]

    def parts(workers: int, order: list[int], trial: TryRows | None = None) -> list[tuple[pa.Table, pa.Table | None]]:
        fleet = [ShardWorker(prepared.job, f"worker-{i}") for i in range(workers)]
        reports = {}
        for turn, i in enumerate(order):
            if trial is not None:
                trial.do(fleet[turn % workers])
            reports[i] = tasks[i].do(fleet[turn % workers])
        for worker in fleet:
            worker.close()
        return [written(config, reports[i]) for i in range(len(tasks))]

    alone = parts(1, [0, 1, 2, 3, 4, 5])
    assert [errors is not None and errors.num_rows for _, errors in alone] == [4] * 6
    assert parts(2, [5, 2, 0, 4, 3, 1]) == alone
    assert parts(2, [3, 1, 4, 0, 5, 2], TryRows(shards[2], 7, 40, blank)) == alone


def test_a_gpu_that_is_unusable_stops_a_run_in_this_process(
    two_inputs_config: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> Any:
        raise RuntimeError(said)

    config = two_inputs_config(np.zeros((60, 6), dtype=np.int64), shard_rows=20)
    prepared = prepare_job(config)
    monkeypatch.setattr(Scorer, "infer", fails)
    said = "CUDA error: device-side assert triggered\nCompile with TORCH_USE_CUDA_DSA"
    with pytest.raises(BrokenDevice, match=r"^shard \d: .*CUDA error: device-side assert triggered"):
        score_pool(config, prepared=prepared)
    said = "CUDA error: out of memory"  # of pinned memory, which is the host's
    with pytest.raises(StoppedError, match=r"no shard could be scored; .*CUDA error: out of memory"):
        score_pool(config, prepared=prepared)


def test_no_shard_is_blamed_for_a_pool_s_storage_that_is_busy(
    digit_config: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("poolscore.engine.storage.patient.FIRST_PAUSE", 0.01)
    prepared = prepare_job(digit_config(run={"storage_patience": 0.3}))
    worker, shard = ShardWorker(prepared.job), prepared.plan.shards[0]
    infer, failures, why = worker._scorer.infer, 0, "AWS Error SLOW_DOWN during GetObject operation"

    def busy(feed: Any) -> Any:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise UnreadableShard("part-0.parquet cannot be read: the storage is too busy") from OSError(why)
        return infer(feed)

    object.__setattr__(worker._scorer, "infer", busy)
    try:
        failures = 3
        assert worker.score(shard).scored == shard.rows
        failures = 10**6
        with pytest.raises(StoppedError, match=r"too busy; mend the storage, .* \(tried for 0 s: run.storage_patience"):
            worker.score(shard)
        failures, why = 1, "Couldn't deserialize thrift"
        with pytest.raises(UnreadableShard):  # which is the file's doing
            worker.score(shard)
        assert failures == 0
    finally:
        worker.close()
