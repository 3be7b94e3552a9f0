"""A run is continued without reading again what it has scored, or refused in words that say what changed."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import scores_of_run

from poolscore.engine import finish
from poolscore.engine.config import Config
from poolscore.engine.errors import DONE, INCOMPLETE, ConfigError, InterruptedRun, StoppedError
from poolscore.engine.identity import differences
from poolscore.engine.prepare import prepare_job
from poolscore.engine.run import journal
from poolscore.engine.run.coordinator import State
from poolscore.engine.run.directory import SELECTION, RunDirectory, redacted, write_json
from poolscore.engine.run.journal import Journal
from poolscore.engine.score import score_pool
from poolscore.engine.selection.write import write_batch
from poolscore.engine.storage.local import LocalStorage

Configure = Callable[..., Config]


def interrupt(config: Config, shards: int) -> RunDirectory:
    """A run that was stopped after so many shards, or one more."""

    def stop(state: State) -> None:
        if state.totals.shards >= shards:
            raise KeyboardInterrupt

    with pytest.raises(InterruptedRun):
        score_pool(config, on_progress=stop)
    return RunDirectory(config.run.dir)


def test_no_scored_row_is_read_again(digit_config: Configure, rows_read: list[int]) -> None:
    config = digit_config(shortlist={"rows": 0})
    run = interrupt(config, 3)
    scored = set(scores_of_run(config.run.dir)["row_id"].to_pylist())
    assert 0 < len(scored) < 600
    rows_read.clear()
    assert score_pool(config).exit_code == DONE
    assert set(rows_read) == set(range(600)) - scored
    assert run.info["id"] == RunDirectory(config.run.dir).info["id"]


def test_a_rest_that_cannot_be_read_does_not_stop_a_resume(digit_config: Configure, tmp_path: Path) -> None:
    config = digit_config()
    prepared = prepare_job(config)
    broken = tmp_path / "pool" / "part-1.parquet"
    whole = broken.read_bytes()
    footer = 8 + int.from_bytes(whole[-8:-4], "little")
    broken.write_bytes(whole[:4] + bytes(len(whole) - 4 - footer) + whole[-footer:])
    assert score_pool(config, prepared=prepared).exit_code == INCOMPLETE
    assert score_pool(config).exit_code == INCOMPLETE  # tried again, not refused
    broken.write_bytes(whole)
    assert score_pool(config).exit_code == DONE


def test_the_files_that_changed_are_named(digit_config: Configure, digits: pa.Table, tmp_path: Path) -> None:
    config, pool = digit_config(), tmp_path / "pool"
    interrupt(config, 1)

    def refused(told: str) -> None:
        with pytest.raises(ConfigError, match=told):
            score_pool(config)

    pq.write_table(digits.slice(700, 9), pool / "part-2.parquet")
    (pool / "part-0.parquet").rename(tmp_path / "moved.parquet")
    refused(r"the pool \(part-2.parquet came; part-0.parquet went\)")
    (tmp_path / "moved.parquet").rename(pool / "part-0.parquet")
    (pool / "part-2.parquet").unlink()
    first = (pool / "part-0.parquet").read_bytes()
    pq.write_table(digits.slice(0, 299), pool / "part-0.parquet", row_group_size=50)
    refused(r"the pool \(part-0.parquet changed size\)")
    (pool / "part-0.parquet").write_bytes(first)
    config = digit_config(run={"shard_rows": 50})
    refused(r"the pool \(run.shard_rows was 100, now 50\)")


def test_a_run_goes_on_without_the_files_that_came(digit_config: Configure, digits: pa.Table, tmp_path: Path) -> None:
    whole = score_pool(digit_config(run={"dir": str(tmp_path / "whole")}))
    config, came = digit_config(), "part-0b.parquet"  # which moves all rows of part-1
    interrupt(config, 2)
    pq.write_table(digits.slice(600, 40), tmp_path / "pool" / came)
    prepared = prepare_job(config)
    assert (prepared.plan.rows, list(prepared.came)) == (600, [came])
    result = score_pool(config, prepared=prepared)
    assert (result.exit_code, result.totals.rows) == (DONE, 600)
    assert Path(result.selection).read_bytes() == Path(whole.selection).read_bytes()
    told = rf"the pool \({came} came; score --extend {config.run.dir} --set run\.dir=ANOTHER scores those alone\)"
    with pytest.raises(ConfigError, match=told):  # nothing is left to do for this one
        score_pool(config)
    more = score_pool(digit_config(run={"dir": str(tmp_path / "more")}), extends=config.run.dir)
    assert (more.exit_code, more.totals.scored) == (DONE, 40)


def test_a_shard_that_is_being_written_is_kept(digit_config: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    create, writing, interrupted = LocalStorage.create, Event(), Event()

    def slowly(storage: LocalStorage, name: str, data: bytes) -> bool:
        if name.startswith("scores/") and not interrupted.is_set():
            writing.set()
            assert interrupted.wait(60)
            time.sleep(0.2)  # the fleet is closed meanwhile
        return create(storage, name, data)

    def stop(state: State) -> None:
        if writing.is_set():
            interrupted.set()
            raise KeyboardInterrupt

    monkeypatch.setattr(LocalStorage, "create", slowly)
    config = digit_config()
    with pytest.raises(InterruptedRun):
        score_pool(config, on_progress=stop)
    run = RunDirectory(config.run.dir)
    assert run.reports()
    assert {f"scores/{name}" for name in run.storage.names("scores")} == {r.scores for r in run.reports().values()}


def test_settings_that_a_run_s_version_did_not_know_have_their_defaults(digit_config: Configure) -> None:
    config = digit_config()
    run = interrupt(config, 1)
    older = dict(run.info["identity"])
    del older["score.accurate_bald"], older["passes.rows_per_call"], older["the tokenizers"]
    older["pool.decode"] = {k: v for k, v in older["pool.decode"].items() if k != "method"}
    run.info["identity"] = older
    write_json(run.storage, "run.json", run.info)
    with pytest.raises(ConfigError, match=r"differs in score\.accurate_bald \(False, now True\); choose"):
        score_pool(digit_config(score={"accurate_bald": True}))
    with pytest.raises(ConfigError, match=r"differs in pool\.decode \("):
        score_pool(digit_config(pool={"decode": {"mode": "L", "resize": 8, "method": "near"}}))
    assert score_pool(config).exit_code == DONE


def test_a_setting_that_is_not_known_any_more_differs(digit_config: Configure) -> None:
    config = digit_config()
    here = redacted(prepare_job(config).identity)
    assert differences(here, {**here, "passes.gone": 1}, config) == ["passes.gone"]
    assert differences(here, {**here, "passes.count": "many"}, config) == ["passes.count"]


def test_a_tokenizer_may_lie_elsewhere_but_not_be_another(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    from poolscore.engine.identity import TOKENIZERS, settings_of

    def text(place: str) -> Config:
        decode = {"kind": "text", "tokenizer": place, "length": 8}
        return Config.model_validate(
            {
                "pool": {"uri": "pool", "input": "text", "decode": decode},
                "model": {"source": "nets:bert", "task": "multiclass"},
                "select": {"k": 1},
                "run": {"dir": "run"},
            }
        )

    here, moved = text("a/tokenizer.json"), text("b/tokenizer.json")
    assert settings_of(here) == settings_of(moved)
    one = {**settings_of(here), TOKENIZERS: {"text": "1"}}
    assert differences({**one, TOKENIZERS: {"text": "2"}}, one, here) == [TOKENIZERS]
    older = {**settings_of(here), "pool.decode": here.pool.decode.model_dump(mode="json")}  # with the path, no digest
    assert differences(one, older, moved) == []


# -- limits


@pytest.mark.parametrize("executor", ["local", "ray"])
def test_a_run_ends_at_its_deadline_and_goes_on_with_another(
    digit_config: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ray_session: None, executor: str
) -> None:
    whole = score_pool(digit_config(run={"dir": str(tmp_path / "whole")}))
    on = {"executor": executor, "workers": 1, "device": "cpu", "shard_rows": 100}
    config = digit_config(run={"deadline": "8h", **on})
    done = []
    monkeypatch.setattr("poolscore.engine.run.limits.Limits.reached", lambda self: "late" if len(done) > 1 else None)
    result = score_pool(config, on_progress=lambda state: done.extend([0] * (state.totals.shards - len(done))))
    assert (result.exit_code, result.limit, result.set_aside) == (INCOMPLETE, "late", {})
    assert 0 < result.shards_left == 6 - result.totals.shards
    run = RunDirectory(config.run.dir)
    assert (run.info["status"], run.info["stopped_by"]) == ("incomplete", "late")
    assert run.info["deadline"] > run.info["created"]
    assert not run.succeeded
    scored = scores_of_run(config.run.dir)
    best = scored.sort_by([("bald", "descending"), ("key", "ascending")])["row_id"].to_pylist()[:20]
    selection = pq.read_table(result.selection)
    assert selection["row_id"].to_pylist() == best
    assert b'"complete": false' in b"".join(selection.schema.metadata.values())
    monkeypatch.undo()
    assert score_pool(digit_config(run={"deadline": "9h", **on})).exit_code == DONE
    assert scores_of_run(config.run.dir).equals(scores_of_run(whole.run_dir))
    assert Path(result.selection).read_bytes() == Path(whole.selection).read_bytes()


def test_a_limit_before_the_first_shard_leaves_a_run_to_resume(
    digit_config: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(
        "poolscore.engine.run.limits.Limits.reached", lambda self: asked.append(0) or ("late" if asked[1:] else None)
    )
    with pytest.raises(StoppedError, match="late before a shard was scored"):
        score_pool(digit_config(run={"max_gpu_hours": 1.0}))
    monkeypatch.undo()
    assert score_pool(digit_config()).exit_code == DONE


def test_what_a_driver_writes_down_on_its_way(digit_config: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its events, and how long workers were held: one that is killed leaves them to be read."""
    monkeypatch.setattr("poolscore.engine.run.directory.KEEP_UP", 0.0)
    config, seen = digit_config(), []
    score_pool(config, on_progress=lambda state: seen.append(RunDirectory(config.run.dir).info))
    assert [event["what"] for event in seen[-1]["events"]] == ["claimed", "joined"]
    assert 0 < seen[-1]["held_seconds"] <= RunDirectory(config.run.dir).info["held_seconds"]


def test_hours_of_workers_are_added_up_over_calls(digit_config: Configure) -> None:
    config = digit_config(run={"max_gpu_hours": 1.0})
    run = interrupt(config, 1)
    run.update(held_seconds=3600.0)
    with pytest.raises(ConfigError, match=r"run\.max_gpu_hours: this run has taken 1\.00 hours of workers"):
        score_pool(config)


def test_a_deadline_that_has_passed_does_not_keep_from_a_finished_run(digit_config: Configure) -> None:
    late = {"deadline": "2020-01-01T00:00"}
    with pytest.raises(ConfigError, match="has passed"):
        score_pool(digit_config(run=late))
    score_pool(digit_config())
    assert score_pool(digit_config(run=late, select={"k": 3})).exit_code == DONE


def test_a_driver_that_wakes_up_late_does_not_write_over_a_newer_ones_selection(
    digit_config: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was halted while it made its selection: another took the run over meanwhile, and is done."""
    newer: list[Journal] = []

    def halted_within(run: RunDirectory, *args: Any, **options: Any) -> None:
        newer.append(Journal(run.storage))
        there = RunDirectory(run.storage.root)
        there.update(status="done", epoch=newer[0].epoch)
        there.storage.publish(SELECTION, lambda file: file.write(b"the newer one's"))
        there.succeed(newer[0])
        write_batch(run, *args, **options)

    monkeypatch.setattr(journal, "require_gone", lambda storage, opening: None)
    monkeypatch.setattr(finish, "write_batch", halted_within)
    config = digit_config()
    with pytest.raises(StoppedError, match="another driver works on this run"):
        score_pool(config)
    newer[0].close()
    run = RunDirectory(config.run.dir)
    assert run.storage.read(SELECTION) == b"the newer one's"
    assert (run.info["status"], run.succeeded) == ("done", True)


def test_what_a_done_run_has_lost_of_its_journal_is_scored_anew(digit_config: Configure, rows_read: list[int]) -> None:
    config = digit_config(shortlist={"rows": 0})
    whole = score_pool(config)
    run, before = RunDirectory(config.run.dir), Path(whole.selection).read_bytes()
    scores = scores_of_run(config.run.dir)
    lost = run.reports()[0].scores
    record = next(path for path in Path(config.run.dir).glob("_log/*/0*.json") if lost in path.read_text())
    record.unlink()
    rows_read.clear()
    result = score_pool(config)
    assert (result.exit_code, len(set(rows_read)) < 600, run.succeeded) == (DONE, True, True)
    assert scores_of_run(config.run.dir).equals(scores)
    assert Path(result.selection).read_bytes() == before
    assert not (Path(config.run.dir) / lost).exists()  # swept: another part counts
