"""The shortlist at the end of a run: the right rows, the same bits wherever they are inferred; no run is lost by it."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import scores_of_run, write_pool
from numpy.typing import NDArray
from PIL import Image

from poolscore.engine.config import Config
from poolscore.engine.errors import DONE, INCOMPLETE, ConfigError, InterruptedRun, StoppedError, UnreadableShard
from poolscore.engine.finish import RunResult
from poolscore.engine.prepare import prepare_job
from poolscore.engine.run.coordinator import State
from poolscore.engine.run.directory import RunDirectory
from poolscore.engine.run.errands import ErrandState
from poolscore.engine.run.fleet import Done, Event, LocalFleet
from poolscore.engine.run.task import LookAgain
from poolscore.engine.score import score_pool
from poolscore.engine.scores import Task
from poolscore.engine.selection.batch import select_batch, selected
from poolscore.engine.selection.choice import Choice
from poolscore.engine.shortlist import centre, cut, look, make
from poolscore.engine.shortlist.look import log_probabilities, require_rows
from poolscore.engine.shortlist.read import ABOUT, FEATURES, Shortlist, matrix, read_shortlist, thumbnails
from poolscore.jobs.report import write_report
from poolscore.jobs.shortlisted import shortlist_in_words

Configure = Callable[..., Config]
FEW = {"rows": 100}


@pytest.fixture(autouse=True)
def small_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cut, "TASK_ROWS", 32)


def shortlist_of(result: RunResult) -> Shortlist:
    assert result.shortlist is not None
    assert result.shortlist.rows or not result.shortlist.notes, result.shortlist.notes
    return read_shortlist(RunDirectory(result.run_dir))


def bald_of(log_probs_NTC: NDArray[np.float32]) -> NDArray[np.float64]:
    log_p = log_probs_NTC.astype(np.float64)
    p = np.exp(log_p)
    mean = p.mean(1)
    found: NDArray[np.float64] = -(mean * np.log(mean)).sum(-1) + (p * log_p).sum(-1).mean(1)
    return found


def files_in(result: RunResult) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (Path(result.run_dir) / "shortlist").iterdir()}


def same(one: Shortlist, other: Shortlist) -> bool:
    arrays = ("log_probs_NTC", "features_NF", "centre_F", "labelled_MF")
    return one.rows.equals(other.rows) and all(np.array_equal(getattr(one, a), getattr(other, a)) for a in arrays)


@pytest.mark.parametrize("masks", ["shared", "independent"])
def test_it_holds_what_the_scores_of_the_best_rows_were_made_of(
    digit_config: Configure, digits: pa.Table, masks: str
) -> None:
    config = digit_config(shortlist=FEW, passes={"count": 5, "masks": masks})
    result = score_pool(config)
    run = RunDirectory(result.run_dir)
    found = read_shortlist(run)
    best = select_batch(run, config, k=100)
    scores = scores_of_run(result.run_dir)
    assert found.rows["rank"].to_pylist() == list(range(1, 101))
    assert found.rows["row_id"].to_pylist() == best["row_id"].to_pylist()
    stored = scores.take(found.rows["row_id"])  # the pool's rows are all scored, in order
    for name in ("key", "id", "prediction", "confidence", "bald", "entropy", "margin", "label"):
        assert found.rows[name].combine_chunks() == stored[name].combine_chunks(), name
    assert found.log_probs_NTC is not None
    assert found.log_probs_NTC.shape == (100, 5, 10)
    assert np.abs(bald_of(found.log_probs_NTC) - stored["bald"].to_numpy()).max() < 1e-6
    assert np.array_equal(np.exp(found.log_probs_NTC).mean(1).argmax(-1), stored["prediction"].to_numpy())
    assert found.shared_masks is (masks == "shared")
    assert found.outputs_NTC is None
    assert result.shortlist is not None
    assert (result.shortlist.rows, result.shortlist.notes) == (100, [])
    assert result.near_duplicates.known == 20  # counted on the shortlist, which is made after the batch
    assert run.info["shortlist"]["rows"] == 100
    parts = [name for name in files_in(result) if name.startswith("part-")]
    assert len(parts) == 4  # of 32 rows at most, and none of the sample is left
    pictures = thumbnails(run, found.rows["row_id"].to_pylist()[:7])
    assert list(map(len, (pictures, thumbnails(run, [])))) == [7, 0]
    for row_id, data in pictures.items():
        original = Image.open(io.BytesIO(digits["image"][row_id].as_py()))
        thumbnail = Image.open(io.BytesIO(data))
        assert (thumbnail.format, thumbnail.size) == ("JPEG", original.size)
        assert np.abs(np.asarray(thumbnail, float) - np.asarray(original, float)).max() < 8  # of 255: quality 95


def features_of_all(config: Config) -> NDArray[np.float32]:
    prepared = prepare_job(config)
    blocks = [b for shard in prepared.plan.shards for b in prepared.scorer.reader.blocks(shard, 16)]
    every = [prepared.scorer.model.features(prepared.scorer.decoder.decode(b)[0])[: len(b)].numpy() for b in blocks]
    return np.concatenate(every)


def test_features_and_their_centre(digit_config: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = digit_config()
    every = features_of_all(config)
    whole = shortlist_of(score_pool(config))  # of all 600 rows
    assert np.allclose(whole.features_NF, every[whole.rows["row_id"].to_numpy()], atol=1e-6)
    assert np.allclose(whole.centre_F, every.mean(0), atol=1e-6)
    monkeypatch.setattr(centre, "SHARE", 2)
    few = shortlist_of(score_pool(digit_config(shortlist=FEW, run={"dir": str(tmp_path / "few")})))
    off = np.abs(few.centre_F - every.mean(0)) / (every.std(0) + 1e-6)
    of_best = np.abs(few.features_NF.mean(0) - every.mean(0)) / (every.std(0) + 1e-6)
    assert off.max() < 4 / np.sqrt(300) < of_best.max()  # a sample of the pool, not of the best


def test_the_bits_do_not_depend_on_the_cluster(digit_config: Configure, tmp_path: Path, ray_session: None) -> None:
    on_ray = {"dir": str(tmp_path / "ray"), "executor": "ray", "workers": 2, "device": "cpu"}
    local = score_pool(digit_config(shortlist=FEW))
    assert same(shortlist_of(local), shortlist_of(score_pool(digit_config(shortlist=FEW, run=on_ray))))


def test_a_finished_run_gets_one_and_keeps_it(
    digit_config: Configure, monkeypatch: pytest.MonkeyPatch, rows_read: list[int]
) -> None:
    first = score_pool(digit_config(shortlist={"rows": 0}))
    assert (first.shortlist, (Path(first.run_dir) / "shortlist").exists()) == (None, False)
    with pytest.raises(ConfigError, match=r"has no shortlist; `poolscore score` .* shortlist\.rows above 0 makes one"):
        read_shortlist(RunDirectory(first.run_dir))
    scores = sorted((Path(first.run_dir) / "scores").iterdir())
    prepared = prepare_job(digit_config(shortlist=FEW))
    rows_read.clear()
    second = score_pool(digit_config(shortlist=FEW), prepared=prepared)
    assert len(rows_read) <= 100 + 600 // 10 + 32  # of the shortlist, and of the sample
    assert sorted((Path(first.run_dir) / "scores").iterdir()) == scores
    assert Path(second.selection).read_bytes() == Path(first.selection).read_bytes()
    assert RunDirectory(first.run_dir).succeeded
    there = files_in(second)
    rows_read.clear()
    for changes in (
        {"select": {"k": 10}},
        {"shortlist": {"rows": 60}},
        {"select": {"seed": 9}},
        {"shortlist": {**FEW, "max_bytes": 1 << 40}},
    ):
        assert score_pool(digit_config(**{"shortlist": FEW, **changes}), prepared=prepared).exit_code == DONE
    assert (files_in(second), rows_read) == (there, [])
    more = digit_config(shortlist={"rows": 120})
    run = RunDirectory(first.run_dir)
    old, read = run.storage.read(ABOUT), run.storage.read
    assert shortlist_of(score_pool(more, prepared=prepare_job(more))).rows.num_rows == 120
    once = iter([old])
    monkeypatch.setattr(run.storage, "read", lambda name: (name == ABOUT and next(once, None)) or read(name))
    assert read_shortlist(run).rows.num_rows == 120  # a reader that began before the old one was swept
    assert not there.keys() & files_in(second).keys() - {"shortlist.json"}  # the old one is swept


def test_its_progress_is_told_and_its_workers_time_counts(digit_config: Configure) -> None:
    first = score_pool(digit_config(shortlist={"rows": 0}))
    held = RunDirectory(first.run_dir).info["held_seconds"]
    states: list[ErrandState] = []
    score_pool(digit_config(shortlist=FEW), on_shortlist=states.append)
    assert (states[0].done, states[-1].done) == (0, states[-1].of)
    assert states[-1].of == 4 + 2  # of the rows, and of the sample
    assert states[-1].workers == 1
    after = RunDirectory(first.run_dir).info["held_seconds"]
    assert after > held > 0
    score_pool(digit_config(shortlist=FEW), on_shortlist=states.append)  # nothing is left to do
    assert RunDirectory(first.run_dir).info["held_seconds"] == after


def failing(*args: Any) -> Any:
    raise ValueError("features burnt")


def test_one_that_fails_costs_no_run(digit_config: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(look, "_inferred", failing)
    result = score_pool(digit_config())
    assert result.exit_code == DONE
    assert result.shortlist is not None
    assert result.shortlist.rows == 0
    (note,) = result.shortlist.notes
    assert note.startswith("not made: no row could be inferred once more: ValueError: features burnt")
    assert RunDirectory(result.run_dir).info["shortlist"]["notes"] == [note]
    alike = digit_config(select={"max_per_group": {"near_duplicates": 1}})
    with pytest.raises(StoppedError, match=r"the shortlist, which the batch is selected from, cannot be made \(no row"):
        score_pool(alike)
    monkeypatch.undo()
    assert shortlist_of(score_pool(digit_config())).rows.num_rows == 600


def test_rows_that_cannot_be_inferred_again_are_missing_and_told(
    digit_config: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = shortlist_of(score_pool(digit_config(shortlist=FEW)))
    lost = sorted(whole.rows["row_id"].to_pylist())[32:64]
    inferred = look._inferred

    def sometimes(scorer: Any, inputs: Any, rows: Any, whole: bool) -> Any:
        return failing() if whole and lost[5] in rows.row_ids else inferred(scorer, inputs, rows, whole)

    monkeypatch.setattr(look, "_inferred", sometimes)
    (Path(digit_config().run.dir) / ABOUT).unlink()
    result = score_pool(digit_config(shortlist=FEW))
    assert result.shortlist is not None
    assert (result.exit_code, result.shortlist.rows) == (DONE, 68)
    assert result.shortlist.notes == ["32 rows missing: ValueError: features burnt"]
    found = shortlist_of(result)
    left = [i for i, row_id in enumerate(whole.rows["row_id"].to_pylist()) if row_id not in lost]
    assert found.rows.equals(whole.rows.take(left))
    assert found.log_probs_NTC is not None
    assert whole.log_probs_NTC is not None
    assert np.array_equal(found.log_probs_NTC, whole.log_probs_NTC[left])
    monkeypatch.undo()
    assert same(shortlist_of(score_pool(digit_config(shortlist=FEW))), whole)  # the next call makes it whole


def test_ctrl_c_ends_it_and_the_same_command_makes_it(
    digit_config: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = score_pool(digit_config(shortlist=FEW, run={"dir": str(tmp_path / "whole")}))
    inferred, wait = look._inferred, LocalFleet.wait

    def slowly(*args: Any) -> Any:
        time.sleep(0.2)
        return inferred(*args)

    def interrupted(self: LocalFleet, seconds: float) -> list[Event]:
        events = wait(self, seconds)
        if any(isinstance(event, Done) and isinstance(event.task, LookAgain) for event in events):
            raise KeyboardInterrupt
        return events

    monkeypatch.setattr(look, "_inferred", slowly)
    monkeypatch.setattr(LocalFleet, "wait", interrupted)
    config = digit_config(shortlist=FEW)
    started = time.monotonic()
    with pytest.raises(InterruptedRun, match="the same command goes on"):
        score_pool(config)
    assert time.monotonic() - started < 30
    run = RunDirectory(config.run.dir)
    assert (len(run.reports()), run.succeeded) == (6, False)
    assert Path(run.storage.path("selection.parquet")).read_bytes() == Path(whole.selection).read_bytes()
    monkeypatch.undo()
    monkeypatch.setattr(cut, "TASK_ROWS", 32)
    resumed = score_pool(config)
    assert same(shortlist_of(resumed), shortlist_of(whole))
    assert Path(resumed.selection).read_bytes() == Path(whole.selection).read_bytes()
    assert len(files_in(resumed)) == len(files_in(whole))


def test_what_a_limit_leaves_is_not_on_it(digit_config: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[int] = []
    monkeypatch.setattr("poolscore.engine.run.limits.Limits.reached", lambda self: "late" if len(done) > 1 else None)
    config = digit_config(run={"deadline": "8h"})
    orphan = Path(config.run.dir) / "shortlist" / "part-00099-0123abcd.parquet"

    def progress(state: State) -> None:
        done.extend([0] * (state.totals.shards - len(done)))
        orphan.parent.mkdir(exist_ok=True)
        orphan.write_bytes(b"of an attempt that was stopped")

    result = score_pool(config, on_progress=progress)
    assert result.exit_code == INCOMPLETE
    assert not orphan.exists()
    scored = set(scores_of_run(result.run_dir)["row_id"].to_pylist())
    assert set(shortlist_of(result).rows["row_id"].to_pylist()) == scored != set(range(600))
    monkeypatch.undo()
    assert shortlist_of(score_pool(config)).rows.num_rows == 600


def test_one_that_is_older_than_the_scores_is_told_of(digit_config: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[int] = []
    with monkeypatch.context() as limited:
        limited.setattr("poolscore.engine.run.limits.Limits.reached", lambda self: "late" if len(done) > 1 else None)
        config = digit_config(run={"deadline": "8h"}, shortlist=FEW)
        score_pool(config, on_progress=lambda state: done.extend([0] * (state.totals.shards - len(done))))
    with monkeypatch.context() as burnt:
        burnt.setattr(look, "_inferred", failing)
        second = score_pool(config)
    assert (second.exit_code, second.totals.scored) == (DONE, 600)
    assert second.shortlist is not None
    assert (second.shortlist.rows, second.shortlist.notes[1:]) == (100, ["these are of an older one"])
    run = RunDirectory(config.run.dir)

    def told() -> tuple[Any, list[str]]:
        with selected([run], config, Choice.of(config, method="kcenter")) as batch:
            return batch.about["shortlist_complete"], [note for note in batch.notes if "shortlist" in note]

    complete, (note,) = told()
    assert not complete
    assert "not what it should be: it was made of other scores than the run has now" in note
    score_pool(config)
    assert told() == (True, [])
    with selected([run], config, Choice.of(config)) as batch:
        assert "shortlist_complete" not in batch.about


def test_rows_that_do_not_count_are_not_on_it(digit_config: Configure, digits: pa.Table, tmp_path: Path) -> None:
    images = [b"no picture" if i % 50 == 7 else image for i, image in enumerate(digits["image"].to_pylist()[:600])]
    write_pool(tmp_path / "pool", digits.slice(0, 600).set_column(1, "image", pa.array(images, pa.binary())))
    (tmp_path / "sent.csv").write_text("id\ndigit-0010\n")
    pool = {"filter": "label < 8", "sample": 0.5, "exclude": str(tmp_path / "sent.csv")}
    for name, rows in (("all", 600), ("few", 50)):
        run = {"dir": str(tmp_path / name), "max_bad_fraction": 0.5}
        result = score_pool(digit_config(pool=pool, run=run, shortlist={"rows": rows}))
        scores = scores_of_run(result.run_dir)
        best = scores.sort_by([("bald", "descending"), ("key", "ascending")]).slice(0, rows)
        found = shortlist_of(result)
        assert result.shortlist is not None
        assert found.rows["id"].to_pylist() == best["id"].to_pylist()
        assert result.shortlist.notes == []
        assert found.log_probs_NTC is not None
        assert np.abs(bald_of(found.log_probs_NTC) - best["bald"].to_numpy()).max() < 1e-6


def test_it_takes_no_more_than_max_bytes(digit_config: Configure, tmp_path: Path) -> None:
    config = digit_config()
    row = make._bytes_of_row(prepare_job(config))
    assert row == 4 * (5 * 10 + shortlist_of(score_pool(config)).features_NF.shape[1]) + (8 << 10)
    result = score_pool(digit_config(shortlist={"max_bytes": 70 * row + 1}))
    assert result.shortlist is not None
    assert (result.shortlist.rows, result.shortlist.notes) == (70, ["70 rows instead of 600, by shortlist.max_bytes"])
    none = score_pool(digit_config(shortlist={"max_bytes": row - 1}))
    assert none.shortlist is not None
    assert none.shortlist.notes[0] == f"not made: shortlist.max_bytes: one row takes {row:,} bytes; raise it"
    with_control = digit_config(
        shortlist={"rows": 40, "max_bytes": 50 * row},
        select={"k": 400, "control": 0.5},
        run={"dir": str(tmp_path / "c")},
    )
    control = score_pool(with_control)
    few = shortlist_of(control).rows
    drawn = pq.read_table(control.selection).filter(pa.compute.field("method") == "control")
    assert few.num_rows == 50
    assert set(few["row_id"].to_pylist()[40:]) < set(drawn["row_id"].to_pylist())
    assert control.shortlist is not None
    (note,) = control.shortlist.notes
    assert re.fullmatch(r"10 instead of 1\d\d control rows beside the best, by shortlist\.max_bytes", note)
    bare = digit_config(shortlist={"thumbnail": 0})
    assert make._bytes_of_row(prepare_job(bare)) == row - (8 << 10)
    assert thumbnails(RunDirectory(score_pool(bare).run_dir), range(600)) == {}


def test_labelled_rows(digit_config: Configure, digits: pa.Table, tmp_path: Path) -> None:
    images = [*digits["image"].to_pylist()[600:660], b"no picture"]
    labelled = pa.table({"image": pa.array(images, pa.binary()), "label": [0] * 61})
    pq.write_table(labelled, tmp_path / "labelled.parquet", row_group_size=20)
    section = {**FEW, "labelled": str(tmp_path / "labelled.parquet")}
    result = score_pool(digit_config(shortlist=section))
    write_pool(tmp_path / "elsewhere", digits.slice(600, 60))
    there = features_of_all(digit_config(pool={"uri": str(tmp_path / "elsewhere")}))
    assert np.allclose(shortlist_of(result).labelled_MF, there, atol=1e-6)
    assert result.shortlist is not None
    (note,) = result.shortlist.notes
    assert note.startswith("1 of 61 labelled rows cannot be used: ")
    run = RunDirectory(result.run_dir)
    told = shortlist_in_words(run.info["shortlist"])
    assert told == f"100 rows; features of 60 labelled rows; {note}"
    assert "features of 60 labelled rows" in Path(write_report(run)).read_text()
    assert score_pool(digit_config(shortlist=section)).shortlist == replace(result.shortlist, seconds=ANY)  # kept
    bare = score_pool(digit_config(shortlist=FEW))
    assert shortlist_of(bare).labelled_MF.shape == (0, there.shape[1])
    assert bare.shortlist is not None
    assert shortlist_in_words(bare.shortlist.to_json()) == "100 rows"
    pq.write_table(labelled.drop_columns(["image"]), tmp_path / "labelled.parquet")
    with pytest.raises(ConfigError, match=r"shortlist\.labelled: .*image"):
        score_pool(digit_config(shortlist=section, run={"dir": str(tmp_path / "never")}))
    assert not (tmp_path / "never").exists()


def test_a_row_that_cannot_be_decoded_any_more_is_left_out_alone(
    digit_config: Configure, digits: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = digit_config(shortlist=FEW)
    whole = shortlist_of(score_pool(config))
    torn = whole.rows["row_id"][3].as_py()
    prepared = prepare_job(config)
    (Path(config.run.dir) / ABOUT).unlink()
    looked = look.look_again

    def without(scorer: Any, feed: Any, whole: bool) -> Any:
        found, bad = looked(scorer, feed, whole)
        if torn in found["row_id"].to_pylist():
            found, bad = found.filter(pa.compute.field("row_id") != torn), {torn: "torn"}
        return found, bad

    monkeypatch.setattr("poolscore.engine.worker.worker.look_again", without)
    result = score_pool(config, prepared=prepared)
    assert result.shortlist is not None
    assert (result.shortlist.rows, result.shortlist.notes) == (99, ["1 row cannot be decoded any more: torn"])
    left = [i for i in range(100) if i != 3]
    found = shortlist_of(result)
    assert found.rows.equals(whole.rows.take(left))
    assert np.array_equal(found.features_NF, whole.features_NF[left])
    monkeypatch.setattr(look, "_inferred", failing)
    assert not (score_pool(config, prepared=prepared).shortlist or failing()).notes[1:]  # it is not made again


def test_what_is_lost_of_sample_and_labelled_rows_is_told_and_made_again(
    digit_config: Configure, digits: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq.write_table(digits.slice(600, 40), tmp_path / "labelled.parquet")
    config = digit_config(shortlist={**FEW, "labelled": str(tmp_path / "labelled.parquet")})
    whole = shortlist_of(score_pool(config))
    (Path(config.run.dir) / ABOUT).unlink()
    inferred = look._inferred

    def sometimes(scorer: Any, inputs: Any, rows: Any, whole: bool) -> Any:
        return inferred(scorer, inputs, rows, whole) if whole else failing()

    with monkeypatch.context() as burnt:
        burnt.setattr(look, "_inferred", sometimes)
        result = score_pool(config)
    assert result.shortlist is not None
    told = "60 rows of the sample of the pool and 40 rows of the labelled rows missing: ValueError: features burnt"
    assert (result.shortlist.rows, result.shortlist.notes) == (100, [told])
    assert read_shortlist(RunDirectory(config.run.dir)).missing == 100
    assert same(shortlist_of(score_pool(config)), whole)


def test_what_cannot_be_made_is_refused_before_the_night(
    digit_config: Configure, digits: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq.write_table(pa.table({"image": pa.array([b"torn"] * 3, pa.binary())}), tmp_path / "labelled.parquet")
    section = {**FEW, "labelled": str(tmp_path / "labelled.parquet")}
    with pytest.raises(ConfigError, match=r"shortlist\.labelled: none of its rows can be decoded \(.*image"):
        score_pool(digit_config(shortlist=section))
    kcenter = {"k": 20, "method": "kcenter"}
    row = make._bytes_of_row(prepare_job(digit_config()))
    with pytest.raises(ConfigError, match=rf"shortlist\.max_bytes: .* select\.k=20 .*; give {20 * row:,} or more"):
        score_pool(digit_config(shortlist={"max_bytes": 20 * row - 1}, select=kcenter))
    assert not Path(digit_config().run.dir).exists()
    score_pool(digit_config(shortlist={"max_bytes": 20 * row}, select=kcenter))
    pq.write_table(digits.slice(600, 5), tmp_path / "labelled.parquet")
    inferred = look._inferred

    def spoiled(scorer: Any, inputs: Any, rows: Any, whole: bool) -> Any:
        columns = inferred(scorer, inputs, rows, whole)
        return columns if whole else {FEATURES: look._lists(torch.full((len(rows), 3), torch.nan))}

    monkeypatch.setattr(look, "_inferred", spoiled)
    with pytest.raises(ConfigError, match=r"shortlist\.labelled: none of its 5 rows can be used \(its features are"):
        score_pool(digit_config(shortlist=section, select=kcenter))
    result = score_pool(digit_config(shortlist=section))
    assert result.shortlist is not None
    assert result.shortlist.notes[0].startswith("not made: shortlist.labelled: none of its 5 rows can be used (")


def test_control_rows_are_on_it_and_come_last(digit_config: Configure) -> None:
    result = score_pool(digit_config(shortlist={"rows": 30}, select={"k": 40, "control": 0.5}))
    rows = shortlist_of(result).rows
    control = pq.read_table(result.selection).filter(pa.compute.field("method") == "control")
    assert control.num_rows == 20
    assert set(control["row_id"].to_pylist()) <= set(rows["row_id"].to_pylist())
    ranks = rows["rank"].to_pylist()
    assert ranks[:30] == list(range(1, 31))
    assert set(ranks[30:]) == {None}


def test_the_pool_must_still_hold_the_rows() -> None:
    keys = np.array([5, 6], np.uint64)
    found = pa.table({"row_id": pa.array([1, 2], pa.int64()), "key": pa.array(keys)})
    require_rows(found, {}, np.array([1, 2]), keys)
    with pytest.raises(UnreadableShard, match="other rows"):
        require_rows(found, {}, np.array([1, 2]), keys[::-1])
    with pytest.raises(UnreadableShard, match="other rows"):
        require_rows(found, {}, np.array([1, 2, 3]), np.array([5, 6, 7], np.uint64))
    three = np.array([5, 7, 6], np.uint64)
    require_rows(found.set_column(0, "row_id", pa.array([1, 3])), {2: "torn"}, np.array([1, 2, 3]), three)
    with pytest.raises(UnreadableShard, match="other rows"):
        require_rows(found, {2: "torn"}, np.array([1, 2]), keys)


def test_log_probabilities() -> None:
    logits = torch.tensor([[[0.5, -2.0, -torch.inf], [80.0, 0.0, -80.0]]])
    of_classes = log_probabilities(logits, Task.MULTICLASS)
    assert torch.allclose(of_classes.exp().sum(-1), torch.ones(1, 2))
    assert of_classes[0, 1, 2] == -160
    labels = log_probabilities(logits, Task.MULTILABEL)
    assert torch.allclose(labels[..., :3].exp() + labels[..., 3:].exp(), torch.ones(1, 2, 3))
    assert torch.allclose(labels[..., :3].exp(), logits.sigmoid())
    one = log_probabilities(logits[..., :1], Task.BINARY)
    assert one.shape == (1, 2, 2)
    assert torch.allclose(one[..., 1].exp(), logits[..., 0].sigmoid())  # the second is class 1
    assert log_probabilities(logits, Task.REGRESSION) is logits


def test_machines_of_another_kind_make_none(digit_config: Configure) -> None:
    run = RunDirectory(score_pool(digit_config(shortlist={"rows": 0})).run_dir)
    run.update(profile={**run.info["profile"], "threads": 7})
    result = score_pool(digit_config(shortlist=FEW))
    assert result.shortlist is not None
    (note,) = result.shortlist.notes
    assert note.startswith("not made: a worker has another numeric profile than the run: threads (7, here 1)")
    assert shortlist_of(score_pool(digit_config(shortlist=FEW, run={"allow_mixed": True}))).rows.num_rows == 100


def test_a_damaged_one_is_told_of_and_made_again(digit_config: Configure) -> None:
    config = digit_config(shortlist=FEW)
    whole = shortlist_of(score_pool(config))
    run = RunDirectory(config.run.dir)
    part = next((Path(config.run.dir) / "shortlist").glob("part-*"))
    content = part.read_bytes()
    part.write_bytes(content[:100])
    with pytest.raises(StoppedError, match=r"part-.*, which shortlist/shortlist\.json names, cannot be read"):
        read_shortlist(run)
    part.unlink()
    with pytest.raises(StoppedError, match=r"part-.*, which shortlist/shortlist\.json names, cannot be read"):
        thumbnails(run, range(600))
    run.storage.publish(ABOUT, lambda file: file.write(b"{"))
    with pytest.raises(StoppedError, match=r"shortlist\.json is damaged; delete it, and `poolscore score` makes it"):
        read_shortlist(run)
    assert same(shortlist_of(score_pool(config)), whole)


def test_a_batch_that_is_made_of_it_needs_as_many_rows(digit_config: Configure) -> None:
    with pytest.raises(ConfigError, match=r"shortlist\.rows: 19 rows are fewer than select\.k=20, and kcenter chooses"):
        digit_config(select={"method": "kcenter"}, shortlist={"rows": 19})
    digit_config(select={"method": "kcenter"}, shortlist={"rows": 20})


def test_labelled_rows_without_finite_features_are_left_out(
    digit_config: Configure, digits: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inferred = look._inferred

    def spoiled(scorer: Any, inputs: Any, rows: Any, whole: bool) -> Any:
        columns = inferred(scorer, inputs, rows, whole)
        if not whole:
            values_NF = torch.from_numpy(matrix(pa.chunked_array([columns[FEATURES]])).copy())
            values_NF[0, 0] = torch.nan
            columns[FEATURES] = look._lists(values_NF)
        return columns

    monkeypatch.setattr(look, "_inferred", spoiled)
    pq.write_table(digits.slice(600, 40), tmp_path / "labelled.parquet")
    found = shortlist_of(score_pool(digit_config(shortlist={"labelled": str(tmp_path / "labelled.parquet")})))
    assert len(found.labelled_MF) == 40 - 3  # the first of each batch of 16
    assert np.isfinite(found.labelled_MF).all()
