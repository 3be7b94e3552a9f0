"""The main job, end to end: the same suite in this process and on Ray, and the answers equal bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from conftest import TESTS, errors_of_run, scores_of_run, write_pool

from poolscore.engine.config import Config, parse_config
from poolscore.engine.errors import DONE, ConfigError, InterruptedRun
from poolscore.engine.keys import keys_of
from poolscore.engine.run import directory
from poolscore.engine.run.coordinator import State
from poolscore.engine.run.directory import RunDirectory
from poolscore.engine.score import score_pool

Configure = Callable[..., Config]


def test_every_row_is_scored_once_and_the_selection_is_the_top_k(digit_config: Configure) -> None:
    config = digit_config()
    result = score_pool(config)
    assert result.exit_code == DONE
    scores = scores_of_run(config.run.dir)
    assert scores["row_id"].to_pylist() == list(range(600))
    assert scores["id"].to_pylist() == [f"digit-{i:04d}" for i in range(600)]
    assert scores["key"].to_numpy().tolist() == keys_of(scores["id"].to_pylist()).tolist()
    rows = scores.to_pylist()
    expected = sorted(rows, key=lambda row: (-np.float64(row["bald"]), row["key"], row["row_id"]))[:20]
    selection = pq.read_table(result.selection)
    assert selection["rank"].to_pylist() == list(range(1, 21))
    assert selection["row_id"].to_pylist() == [row["row_id"] for row in expected]
    assert selection["score"].to_pylist() == [row["bald"] for row in expected]
    assert selection["id"].to_pylist() == [row["id"] for row in expected]
    assert selection["label"].to_pylist() == [row["label"] for row in expected]
    assert set(selection["method"].to_pylist()) == {"topk"}


def test_an_accurate_bald_changes_bald_alone_and_is_part_of_the_run(digit_config: Configure, tmp_path: Path) -> None:
    config = digit_config()
    score_pool(config)
    there = str(tmp_path / "accurate")
    score_pool(digit_config(run={"dir": there}, score={"accurate_bald": True}))
    plain, accurate = scores_of_run(config.run.dir), scores_of_run(there)
    assert accurate.drop_columns("bald").equals(plain.drop_columns("bald"))
    assert not accurate["bald"].equals(plain["bald"])
    np.testing.assert_allclose(accurate["bald"], plain["bald"], rtol=0, atol=2e-6)
    with pytest.raises(ConfigError, match=r"score\.accurate_bald \(False, now True\)"):
        score_pool(digit_config(score={"accurate_bald": True}))


def test_columns_are_the_contract_s(digit_config: Configure) -> None:
    config = digit_config()
    score_pool(config)
    schema = scores_of_run(config.run.dir).schema
    types = {field.name: str(field.type) for field in schema}
    names = [
        "entropy",
        "expected_entropy",
        "bald",
        "variation_ratio",
        "mean_std",
        "least_confidence",
        "margin",
        "random",
    ]
    assert types == {
        "row_id": "int64",
        "key": "uint64",
        "id": "string",
        **dict.fromkeys(names, "float"),
        "prediction": "int32",
        "confidence": "float",
        "label": "int64",
    }
    there = {path.name for path in Path(config.run.dir).iterdir()}
    assert there == {"run.json", "plan.parquet", "scores", "_log", "_SUCCESS", "selection.parquet", "shortlist"}
    info = RunDirectory(config.run.dir).info
    assert info["status"] == "done"
    assert info["totals"]["scored"] == 600
    assert info["profile"]["threads"] == 1
    assert info["seed"] == 0


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("masks", ["shared", "independent"])
def test_the_answer_does_not_depend_on_the_workers(
    digit_config: Configure, tmp_path: Path, ray_session: None, workers: int, masks: str
) -> None:
    passes = {"count": 5, "masks": masks}
    local = score_pool(digit_config(passes=passes))
    on_ray = digit_config(
        passes=passes, run={"dir": str(tmp_path / "ray"), "executor": "ray", "workers": workers, "device": "cpu"}
    )
    local_profile = RunDirectory(local.run_dir).info["profile"]
    result = score_pool(on_ray)
    assert RunDirectory(result.run_dir).info["profile"] == local_profile
    assert scores_of_run(result.run_dir).equals(scores_of_run(local.run_dir))
    assert Path(result.selection).read_bytes() == Path(local.selection).read_bytes()


def test_an_interrupted_run_goes_on_where_it_was(digit_config: Configure, tmp_path: Path) -> None:
    whole = score_pool(digit_config(run={"dir": str(tmp_path / "whole")}))

    def interrupt(state: State) -> None:
        if state.totals.shards >= 2:
            raise KeyboardInterrupt

    config = digit_config()
    with pytest.raises(InterruptedRun, match="goes on"):
        score_pool(config, on_progress=interrupt)
    run = RunDirectory(config.run.dir)
    assert run.info["status"] == "interrupted"
    assert not run.succeeded
    first = {report.scores for report in run.reports().values()}
    assert 2 <= len(first) <= 4  # what was done when it was interrupted counts as well
    resumed = score_pool(config, must_resume=True)
    assert first < {report.scores for report in run.reports().values()}  # nothing was done twice
    assert scores_of_run(config.run.dir).equals(scores_of_run(whole.run_dir))
    assert Path(resumed.selection).read_bytes() == Path(whole.selection).read_bytes()


def test_stopping_after_every_shard_and_resuming_gives_the_same(digit_config: Configure, tmp_path: Path) -> None:
    whole = score_pool(digit_config(run={"dir": str(tmp_path / "whole")}))
    config = digit_config()
    shards = RunDirectory(whole.run_dir).info["pool"]["shards"]
    done = 0
    while done < shards:  # each time after one more, or two that ended at once

        def interrupt(state: State, before: int = done) -> None:
            if state.totals.shards > before:
                raise KeyboardInterrupt

        with pytest.raises(InterruptedRun):
            score_pool(config, on_progress=interrupt)
        done = len(RunDirectory(config.run.dir).reports())
    result = score_pool(config)
    assert result.exit_code == DONE
    assert len(list((Path(config.run.dir) / "scores").iterdir())) == shards
    assert Path(result.selection).read_bytes() == Path(whole.selection).read_bytes()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"passes": {"count": 6}}, r"passes.count \(5, now 6\)"),
        ({"passes": {"count": 5, "seed": 1}}, "passes.seed"),
        ({"run": {"batch_size": 8}}, "run.batch_size"),
        ({"run": {"shard_rows": 60}}, "the pool"),
        ({"model": {"args": {"p": 0.4}}}, "model.args"),
        ({"pool": {"keep": []}}, "pool.keep"),
    ],
)
def test_another_run_in_the_directory_is_refused_by_name(
    digit_config: Configure, change: dict[str, Any], named: str
) -> None:
    score_pool(digit_config())
    with pytest.raises(ConfigError, match=named):
        score_pool(digit_config(**change))


def test_a_changed_pool_or_weight_is_refused_and_fresh_keeps_the_old_run(
    digit_config: Configure, digits: pa.Table, tmp_path: Path
) -> None:
    config = digit_config()
    score_pool(config)
    pq.write_table(digits.slice(600, 10), tmp_path / "pool" / "part-9.parquet")
    with pytest.raises(ConfigError, match="the pool"):
        score_pool(config)
    score_pool(config, fresh=True)
    assert RunDirectory(config.run.dir).info["pool"]["rows"] == 610
    aside = [path for path in tmp_path.iterdir() if path.name.startswith("run.old-")]
    assert RunDirectory(str(aside[0])).info["pool"]["rows"] == 600
    import torch

    state = torch.load(tmp_path / "weights.pt", weights_only=True)
    state["8.bias"] += 1e-3
    torch.save(state, tmp_path / "weights.pt")
    with pytest.raises(ConfigError, match="the weights"):
        score_pool(config)


def test_parts_that_nobody_reported_are_swept(digit_config: Configure, tmp_path: Path) -> None:
    config = digit_config()

    def interrupt(state: State) -> None:
        if state.totals.shards >= 2:
            raise KeyboardInterrupt

    with pytest.raises(InterruptedRun):
        score_pool(config, on_progress=interrupt)
    scores = Path(config.run.dir) / "scores"
    part = next(iter(scores.iterdir()))
    (scores / "part-00005-0123abcd.parquet").write_bytes(part.read_bytes())
    (scores / "notes.txt").write_text("somebody's")
    score_pool(config)
    counted = {Path(report.scores).name for report in RunDirectory(config.run.dir).reports().values()}
    assert {path.name for path in scores.iterdir()} == counted | {"notes.txt"}


def test_a_run_inside_its_pool_is_refused(digit_config: Configure, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="lies in the pool's folder"):
        score_pool(digit_config(run={"dir": str(tmp_path / "pool" / "run")}))


def test_k_and_score_may_change_on_a_finished_run(digit_config: Configure) -> None:
    score_pool(digit_config())
    result = score_pool(digit_config(select={"k": 7, "score": "margin"}))
    selection = pq.read_table(result.selection)
    assert selection.num_rows == 7
    assert set(selection["score_name"].to_pylist()) == {"margin"}


def test_bad_rows_are_set_aside_and_their_neighbours_keep_their_scores(
    digit_config: Configure, digits: pa.Table, tmp_path: Path
) -> None:
    clean = score_pool(digit_config(run={"dir": str(tmp_path / "clean")}))
    images, ids = digits["image"].to_pylist()[:600], digits["id"].to_pylist()[:600]
    images[3], images[77], images[100] = b"", b"\xff\xd8\xff broken", None
    ids[200] = None
    pool = pa.table(
        {"id": pa.array(ids), "image": pa.array(images, pa.binary()), "label": digits["label"].slice(0, 600)}
    )
    write_pool(tmp_path / "pool", pool)
    config = digit_config()
    result = score_pool(config)
    assert result.exit_code == DONE
    assert result.totals.rejected == 4
    errors = errors_of_run(config.run.dir)
    assert errors["row_id"].to_pylist() == [3, 77, 100, 200]
    assert errors["stage"].to_pylist() == ["decode", "decode", "decode", "read"]
    assert errors["error"].to_pylist()[0] == "empty"
    assert errors.column_names == ["row_id", "key", "id", "stage", "error"]
    expected = scores_of_run(clean.run_dir).filter(~np.isin(np.arange(600), [3, 77, 100, 200]))
    assert scores_of_run(config.run.dir).equals(expected)


def test_too_many_bad_rows_stop_the_job_and_name_the_reason(
    digit_config: Configure, digits: pa.Table, tmp_path: Path
) -> None:
    images = digits["image"].to_pylist()[:600]
    images[50:80] = [b"no picture"] * 30
    write_pool(tmp_path / "pool", digits.slice(0, 600).set_column(1, "image", pa.array(images, pa.binary())))
    with pytest.raises(ConfigError, match=r"run.max_bad_fraction=0.01 .*: no picture that can be decoded"):
        score_pool(digit_config())
    result = score_pool(digit_config(run={"max_bad_fraction": 0.2}))  # resumed with a higher limit
    assert result.totals.rejected == 30


def test_excluded_rows_are_neither_scored_nor_selected(digit_config: Configure, tmp_path: Path) -> None:
    first = score_pool(digit_config(run={"dir": str(tmp_path / "first")}))
    labelled = pq.read_table(first.selection, columns=["id"])
    pq.write_table(labelled, tmp_path / "labelled.parquet")
    config = digit_config(pool={"exclude": str(tmp_path / "labelled.parquet")})
    result = score_pool(config)
    assert (result.totals.scored, result.totals.excluded) == (580, 20)
    assert not set(pq.read_table(result.selection)["id"].to_pylist()) & set(labelled["id"].to_pylist())


def test_a_growing_pool_leaves_old_rows_as_they_were(digit_config: Configure, digits: pa.Table, tmp_path: Path) -> None:
    masks = {"passes": {"count": 5, "masks": "independent"}}
    before = score_pool(digit_config(run={"dir": str(tmp_path / "before")}, **masks))
    pq.write_table(digits.slice(600, 130), tmp_path / "pool" / "part-9.parquet", row_group_size=50)
    after = score_pool(digit_config(**masks))
    old = scores_of_run(before.run_dir)
    assert scores_of_run(after.run_dir).slice(0, 600).equals(old)


def test_a_file_in_the_middle_moves_rows_but_not_keys_or_masks(
    digit_config: Configure, digits: pa.Table, tmp_path: Path
) -> None:
    masks = {"passes": {"count": 5, "masks": "independent"}}
    before = scores_of_run(score_pool(digit_config(run={"dir": str(tmp_path / "before")}, **masks)).run_dir)
    pq.write_table(digits.slice(600, 33), tmp_path / "pool" / "part-0b.parquet")
    after = scores_of_run(score_pool(digit_config(**masks)).run_dir)
    after = after.filter(
        np.isin(after["id"].to_numpy(zero_copy_only=False), before["id"].to_numpy(zero_copy_only=False))
    )
    assert after["id"].equals(before["id"])
    assert after["key"].equals(before["key"])
    # Rows lie elsewhere in their batches now, so the last bits may differ; other masks would move scores by 0.1.
    np.testing.assert_allclose(after["entropy"].to_numpy(), before["entropy"].to_numpy(), atol=2e-6)


def test_other_shard_and_batch_sizes_give_the_same_scores_to_rounding(digit_config: Configure, tmp_path: Path) -> None:
    one = scores_of_run(score_pool(digit_config(run={"dir": str(tmp_path / "one")})).run_dir)
    for name, run in (
        ("a", {"shard_rows": 600}),
        ("b", {"batch_size": 7}),
        ("c", {"batch_size": 64, "shard_rows": 60}),
    ):
        other = scores_of_run(score_pool(digit_config(run={"dir": str(tmp_path / name), **run})).run_dir)
        assert other["row_id"].equals(one["row_id"])
        np.testing.assert_allclose(other["bald"].to_numpy(), one["bald"].to_numpy(), atol=2e-6)


def test_a_run_without_rows_to_select(digit_config: Configure) -> None:
    result = score_pool(digit_config(select={"k": 0}))
    selection = pq.read_table(result.selection)
    assert selection.num_rows == 0
    assert "id" in selection.column_names


def _lethal_config(tmp_path: Path, lives: int, rows: int = 200) -> Config:
    marker = str(tmp_path / "killed")
    values = [{"x": [float(i), 1.0], "kill": marker if i == 70 else "", "lives": lives} for i in range(rows)]
    write_pool(tmp_path / "pool", pa.table({"id": list(range(rows)), "value": values}), files=1, rows_per_group=20)
    import nets
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        torch.save(nets.mlp(2, 3).state_dict(), tmp_path / "mlp.pt")
    return parse_config(
        {
            "pool": {
                "uri": str(tmp_path / "pool"),
                "id": "id",
                "input": "value",
                "decode": {"kind": "function", "function": "nets:lethal"},
            },
            "model": {
                "source": "nets:mlp",
                "args": {"inputs": 2, "outputs": 3},
                "path": str(TESTS),
                "weights": str(tmp_path / "mlp.pt"),
                "task": "multiclass",
            },
            "select": {"k": 10},
            "run": {
                "dir": str(tmp_path / "run"),
                "workers": 2,
                "batch_size": 16,
                "shard_rows": 20,
                "verify_rows": 0,
                "device": "cpu",
            },
        }
    )


def test_a_killed_worker_costs_nothing_but_time(tmp_path: Path, ray_session: None) -> None:
    config = _lethal_config(tmp_path, lives=1)
    result = score_pool(config)
    assert (tmp_path / "killed").read_text() == "killed\n"
    assert result.exit_code == DONE
    assert scores_of_run(config.run.dir)["row_id"].to_pylist() == list(range(200))
    undisturbed = config.model_copy(
        update={"run": config.run.model_copy(update={"dir": str(tmp_path / "again"), "executor": "local"})}
    )
    again = score_pool(undisturbed)
    assert scores_of_run(again.run_dir).equals(scores_of_run(config.run.dir))
    assert Path(again.selection).read_bytes() == Path(result.selection).read_bytes()


@pytest.mark.slow
def test_a_row_that_leaves_the_gpu_unusable_is_found_and_costs_no_other_row(tmp_path: Path, ray_session: None) -> None:
    config = _lethal_config(tmp_path, lives=0)
    model = config.model.model_copy(update={"source": "nets:breaks_gpu", "args": {}})
    whole = scores_of_run(score_pool(config).run_dir)
    run = config.run.model_copy(update={"dir": str(tmp_path / "again")})
    passes = config.passes.model_copy(update={"split": False})  # its own forward runs
    result = score_pool(config.model_copy(update={"model": model, "run": run, "passes": passes}))
    assert (result.exit_code, result.totals.scored) == (DONE, 199)
    again = scores_of_run(result.run_dir)
    assert again["row_id"].equals(whole.filter(pc.not_equal(whole["row_id"], 70))["row_id"])
    (error,) = errors_of_run(result.run_dir).to_pylist()
    assert (error["row_id"], error["stage"]) == (70, "worker")
    assert error["error"] == "its worker died: shard 3: RuntimeError: CUDA error: device-side assert triggered"


@pytest.mark.slow
def test_a_row_that_kills_its_worker_is_found_and_costs_no_other_row(tmp_path: Path, ray_session: None) -> None:
    config = _lethal_config(tmp_path, lives=1000)
    result = score_pool(config)
    assert (result.exit_code, result.totals.scored, result.totals.rejected) == (DONE, 199, 1)
    # Three times with its shard, once with a part of it, and alone till it has died of it three times. The first time,
    # another shard may be at work beside it; then nobody is blamed, and both are scored alone.
    assert (tmp_path / "killed").read_text() in ("killed\n" * 6, "killed\n" * 7)
    run = RunDirectory(config.run.dir)
    assert run.succeeded
    errors = pq.read_table(run.storage.path(run.reports()[3].errors or ""))
    assert errors.select(["row_id", "id", "stage"]).to_pylist() == [{"row_id": 70, "id": 70, "stage": "worker"}]
    assert errors["error"][0].as_py().startswith("its worker died: ")
    assert "ip: " not in errors["error"][0].as_py()
    (tmp_path / "killed").write_text("mended\n" * 1000)
    undisturbed = config.model_copy(
        update={"run": config.run.model_copy(update={"dir": str(tmp_path / "again"), "executor": "local"})}
    )
    whole = scores_of_run(score_pool(undisturbed).run_dir)
    assert scores_of_run(config.run.dir).equals(whole.filter(pc.not_equal(whole["row_id"], 70)))


def test_a_factory_that_draws_its_weights_anew_is_refused(digit_config: Configure) -> None:
    with pytest.raises(ConfigError, match="builds other weights in each process"):
        score_pool(digit_config(model={"weights": None}))


@pytest.mark.parametrize(
    ("task", "outputs", "score"),
    [("binary", 1, "bald"), ("multilabel", 4, "bald"), ("regression", 2, "predictive_variance")],
)
def test_other_tasks_over_features(tmp_path: Path, task: str, outputs: int, score: str) -> None:
    import nets
    import torch

    rng = np.random.default_rng(0)
    columns = {f"f{i}": rng.normal(size=120) for i in range(3)}
    columns["f2"][5] = np.nan
    write_pool(tmp_path / "pool", pa.table(columns), files=3, rows_per_group=20)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        torch.save(nets.mlp(3, outputs).state_dict(), tmp_path / "mlp.pt")
    config = parse_config(
        {
            "pool": {"uri": str(tmp_path / "pool"), "input": list(columns), "decode": {"kind": "features"}},
            "model": {
                "source": "nets:mlp",
                "args": {"inputs": 3, "outputs": outputs},
                "path": str(TESTS),
                "weights": str(tmp_path / "mlp.pt"),
                "task": task,
            },
            "select": {"k": 5},
            "run": {"dir": str(tmp_path / "run"), "executor": "local", "shard_rows": 50, "verify_rows": 0},
        }
    )
    result = score_pool(config)
    assert result.totals.scored == 119
    assert errors_of_run(config.run.dir)["error"].to_pylist() == ["column 'f2' is NaN or infinite"]
    selection = pq.read_table(result.selection)
    assert set(selection["score_name"].to_pylist()) == {score}
    assert selection["id"][0].as_py().startswith("part-")
    assert np.isfinite(selection["score"].to_numpy()).all()


def test_named_inputs_of_several_kinds(two_inputs_config: Configure) -> None:
    tokens = np.random.default_rng(0).integers(0, 20, (50, 6))
    assert score_pool(two_inputs_config(tokens)).totals.scored == 50


def test_the_end_of_a_run_reads_the_journal_once(digit_config: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    """For thousands of shards on storage that answers slowly each time takes seconds."""
    reads, read = [], directory.read_reports
    monkeypatch.setattr(directory, "read_reports", lambda storage: reads.append(storage) or read(storage))
    assert score_pool(digit_config(run={"verify_rows": 50})).verified is not None
    assert len(reads) == 1
