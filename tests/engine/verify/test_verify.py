"""Rows of a run scored again: right ones pass, every kind of wrong one is found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import TESTS, write_pool

from poolscore.engine.config import Config, parse_config
from poolscore.engine.errors import DONE, INCOMPLETE, ConfigError, InterruptedRun
from poolscore.engine.pool import draw
from poolscore.engine.prepare import Prepared, prepare_job
from poolscore.engine.run.coordinator import State
from poolscore.engine.run.directory import RunDirectory
from poolscore.engine.score import score_pool
from poolscore.engine.verify import verify
from poolscore.engine.verify.reference import Reference
from poolscore.engine.verify.verify import Verified, try_to_verify, verify_run
from poolscore.jobs.verified import verified_in_words
from poolscore.kernels.dropout_mask import keep_mask

Configure = Callable[..., Config]
OUTPUTS = {"multiclass": 5, "binary": 1, "multilabel": 4, "regression": 2}


@pytest.fixture
def configure(tmp_path: Path) -> Configure:
    """A pool of 120 rows of features, of which one is bad; verified at the end of the run."""
    rng = np.random.default_rng(0)
    columns = {f"f{i}": rng.normal(size=120) for i in range(3)}
    columns["f2"][5] = np.nan
    write_pool(tmp_path / "pool", pa.table(columns), files=3, rows_per_group=20)

    def of(task: str = "multiclass", run: dict[str, Any] | None = None, **passes: Any) -> Config:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            torch.save(nets.mlp(3, OUTPUTS[task]).state_dict(), tmp_path / f"{task}.pt")
        return parse_config(
            {
                "pool": {"uri": str(tmp_path / "pool"), "input": list(columns), "decode": {"kind": "features"}},
                "model": {
                    "source": "nets:mlp",
                    "args": {"inputs": 3, "outputs": OUTPUTS[task]},
                    "path": str(TESTS),
                    "weights": str(tmp_path / f"{task}.pt"),
                    "task": task,
                },
                "passes": {"count": 5, **passes},
                "select": {"k": 5},
                "run": {"dir": str(tmp_path / "run"), "executor": "local", "shard_rows": 50, **(run or {})},
            }
        )

    return of


def scored(config: Config) -> tuple[RunDirectory, Prepared]:
    prepared = prepare_job(config)
    score_pool(config, prepared=prepared)
    return RunDirectory(config.run.dir), prepared


@pytest.mark.parametrize("task", OUTPUTS)
@pytest.mark.parametrize("masks", ["shared", "independent"])
def test_a_right_run_passes(configure: Configure, monkeypatch: pytest.MonkeyPatch, task: str, masks: str) -> None:
    monkeypatch.setattr("poolscore.engine.finish.VERIFY_SECONDS", (600.0, 600.0))
    result = score_pool(configure(task, masks=masks))
    found = result.verified
    assert found is not None
    assert (found.rows, found.precision, found.strange, found.note, found.wrong) == (119, "float64", 0, None, [])
    for name, difference in found.scores.items():
        assert difference.largest <= difference.allowed < 1e-4, name
    entry = RunDirectory(result.run_dir).info["verified"]
    assert entry == found.to_json()
    assert "as precision explains" in verified_in_words(entry)
    assert "119 rows scored again in float64: largest difference" in verified_in_words(entry)


def tampered(run: RunDirectory, change: Callable[[pa.Table], pa.Table]) -> None:
    """Change every part behind the run's back."""
    for report in run.reports().values():
        path = run.storage.path(report.scores)
        pq.write_table(change(pq.read_table(path)), path)


def plus(name: str, amount: float, rows: slice = slice(None)) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        values = table[name].to_numpy().copy()
        values[rows] += np.float32(amount)
        return table.set_column(table.schema.get_field_index(name), name, pa.array(values, table[name].type))

    return change


@pytest.mark.parametrize("name", ["entropy", "bald", "mean_std", "margin", "variation_ratio", "random"])
def test_one_wrong_row_is_found(configure: Configure, name: str) -> None:
    run, prepared = scored(configure())
    rows = [pq.read_table(run.storage.path(one.scores))["row_id"][7].as_py() for one in run.reports().values()]
    tampered(run, plus(name, 1e-4, slice(7, 8)))
    found = verify_run(run, prepared, 1000)
    assert [one.split(" ")[0] for one in found.wrong] == [name]
    assert found.scores[name].largest == pytest.approx(1e-4, rel=0.05)
    assert found.scores[name].row_id in rows


def test_scores_under_other_masks_are_found(configure: Configure) -> None:
    run, _ = scored(configure())
    found = verify_run(run, prepare_job(configure(seed=1, run={"dir": f"{run.storage.root}-other"})), 1000)
    assert {one.split(" ")[0] for one in found.wrong} >= {"entropy", "bald", "margin", "random"}


def test_a_row_that_was_lost_and_one_with_another_key_are_found(configure: Configure) -> None:
    run, prepared = scored(configure())
    tampered(run, lambda table: table.slice(1))
    found = verify_run(run, prepared, 1000)
    assert (found.rows, found.strange) == (116, 3)
    keyed = table_with_other_key
    tampered(run, keyed)
    found = verify_run(run, prepared, 1000)
    assert found.strange == 3 + 3
    assert found.wrong == ["6 rows missing in the run, or with another key"]


def table_with_other_key(table: pa.Table) -> pa.Table:
    keys = table["key"].to_numpy().copy()
    keys[3] += np.uint64(1)
    return table.set_column(1, "key", pa.array(keys))


def test_half_precision_explains_more_and_full_precision_less(configure: Configure, tmp_path: Path) -> None:
    full, half = (
        verify_run(*scored(configure(precision=precision, run={"dir": str(tmp_path / precision)})), 1000)
        for precision in ("fp32", "bf16")
    )
    assert full.wrong == half.wrong == []
    for name in ("entropy", "bald", "margin"):
        assert half.scores[name].allowed > 30 * full.scores[name].allowed
        assert half.scores[name].largest > 30 * full.scores[name].largest
    again = verify_run(*scored(configure(precision="bf16", run={"dir": str(tmp_path / "again")})), 1000, "fp32")
    assert again.precision == "fp32"
    assert again.scores["bald"].allowed == pytest.approx(half.scores["bald"].allowed, rel=0.1)


def test_fp32_against_fp32_passes_and_finds_what_is_large(configure: Configure) -> None:
    run, prepared = scored(configure())
    assert verify_run(run, prepared, 1000, "fp32").wrong == []
    tampered(run, plus("bald", 1e-2))
    assert [one.split(" ")[0] for one in verify_run(run, prepared, 1000, "fp32").wrong] == ["bald"]


def test_a_model_that_insists_on_float32_is_compared_in_it(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(prepared: Prepared) -> Any:
        raise RuntimeError("expected Float but found Double")

    run, prepared = scored(configure())
    monkeypatch.setattr("poolscore.engine.verify.reference._in_float64", fail)
    found = verify_run(run, prepared, 1000)
    assert (found.rows, found.precision, found.wrong) == (119, "fp32", [])
    assert found.note == "the model does not run in float64: RuntimeError: expected Float but found Double"


def test_rows_are_drawn_by_the_seed_from_near_the_start_of_row_groups(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, rows_read: list[int]
) -> None:
    run, prepared = scored(configure())
    rows_read.clear()
    monkeypatch.setattr(draw, "REACH", prepared.pool.group_bytes_G[0] // 20 * 4)  # bytes of four rows
    assert verify_run(run, prepared, 1000).rows == 6 * 4
    assert {row % 20 for row in rows_read} <= {0, 1, 2, 3}
    drawn = []
    for seed in (0, 0, 1):
        rows_read.clear()
        other = configure(seed=seed, run={"dir": f"{run.storage.root}-{seed}"})
        verify_run(run, prepare_job(other), 3)
        drawn.append(list(rows_read))
    assert drawn[0] == drawn[1] != drawn[2]


def test_the_end_of_a_run_waits_no_longer_than_it_may_and_is_not_spoiled(configure: Configure, tmp_path: Path) -> None:
    run, prepared = scored(configure(run={"verify_rows": 0}))
    assert "verified" not in run.info
    assert verify_run(run, prepared, 1000, seconds=0.0) == Verified(
        0, "float64", pytest.approx(0, abs=60), {}, 0, "as many rows as 0 s allow"
    )
    few = verify_run(run, prepared, 5)
    assert few.rows == 5
    (tmp_path / "pool" / "part-0.parquet").rename(tmp_path / "gone")
    (tmp_path / "pool" / "part-1.parquet").unlink()
    (tmp_path / "pool" / "part-2.parquet").unlink()
    spoiled = try_to_verify(run, prepared, 1000, 60.0)
    assert (spoiled.rows, spoiled.wrong) == (0, [])
    assert spoiled.note is not None
    assert "cannot be read" in spoiled.note
    assert verified_in_words(spoiled.to_json()).startswith("no row could be scored again (UnreadableShard: part-")


def test_only_what_is_scored_is_read_and_of_huge_row_groups_only_their_start(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(state: State) -> None:
        if state.totals.shards:
            raise KeyboardInterrupt

    write_pool(tmp_path / "pool", pa.table({f"f{i}": np.arange(360.0) + i for i in range(3)}), 3, rows_per_group=120)
    config = configure(run={"shard_rows": 20})
    prepared = prepare_job(config)
    with pytest.raises(InterruptedRun):
        score_pool(config, prepared=prepared, on_progress=stop)
    run = RunDirectory(config.run.dir)
    scored_rows = run.totals().scored
    assert 0 < scored_rows < 360
    found = verify_run(run, prepared, 1000)
    assert (found.rows, found.strange) == (scored_rows, 0)
    score_pool(config, prepared=prepared)
    monkeypatch.setattr(draw, "REACH", prepared.pool.group_bytes_G[0] // 120 * 40)
    assert verify_run(run, prepared, 1000).rows == 3 * 60  # ranges that begin with row 0, 20 and 40 of their groups


def test_the_reference_is_the_model_s_own_arithmetic_in_float64(configure: Configure) -> None:
    prepared = prepare_job(configure())
    x_N3 = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    both = Reference(prepared, "float64").score({"": x_N3}, torch.zeros(7, dtype=torch.int64), np.arange(7, dtype="u8"))
    weights = {name: w.double().numpy() for name, w in torch.load(prepared.config.model.weights).items()}
    hidden = np.maximum(x_N3.double().numpy() @ weights["0.weight"].T + weights["0.bias"], 0)
    keep_TE = keep_mask(0, 0, range(5), 16, 0.5).numpy()
    logits = (hidden[:, None] * keep_TE * 2) @ weights["3.weight"].T + weights["3.bias"]
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    mean = p.mean(1)
    entropy = -(mean * np.log(mean)).sum(-1)
    np.testing.assert_allclose(both.exact["entropy"], entropy, rtol=0, atol=1e-13)
    np.testing.assert_allclose(both.exact["bald"], entropy + (p * np.log(p)).sum(-1).mean(1), rtol=0, atol=1e-13)
    assert 0 < np.abs(both.run["entropy"] - entropy).max() < 1e-6
    assert 0 < both.error < 1e-6


def test_of_few_rows_nothing_is_said(configure: Configure) -> None:
    run, prepared = scored(configure())
    tampered(run, plus("bald", 1.0))
    few = verify_run(run, prepared, verify.LEAST - 1)
    assert few.wrong == []
    assert "nothing looks wrong, though so few rows prove little" in verified_in_words(few.to_json())
    assert verify_run(run, prepared, verify.LEAST).wrong != []


def test_a_run_without_scores_has_nothing_to_verify(configure: Configure) -> None:
    run, prepared = scored(configure())
    for record in Path(run.storage.path("_log")).glob("*/*"):
        record.unlink()
    with pytest.raises(ConfigError, match="no shard is scored yet, so there is nothing to verify"):
        verify_run(run, prepared, 10)


def test_a_run_whose_scores_are_wrong_does_not_look_like_success(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    def behind_its_back(run: RunDirectory, *given: Any, **named: Any) -> Verified:
        tampered(run, plus("bald", 1e-2))
        return try_to_verify(run, *given, **named)

    config = configure()
    with monkeypatch.context() as patch:
        patch.setattr("poolscore.engine.finish.VERIFY_SECONDS", (600.0, 600.0))
        patch.setattr("poolscore.engine.finish.try_to_verify", behind_its_back)
        result = score_pool(config)
    assert result.exit_code == INCOMPLETE
    assert [one.split(" ")[0] for one in result.wrong] == ["bald"]
    assert pq.read_table(result.selection).num_rows == config.select.k
    run = RunDirectory(config.run.dir)
    assert run.succeeded  # all is scored, and nothing would be scored again
    again = score_pool(config)
    assert (again.verified, again.exit_code) == (None, INCOMPLETE)  # a script that tries once more must not pass
    assert again.wrong == result.wrong
    tampered(run, plus("bald", -1e-2))
    run.update(verified=verify_run(run, prepare_job(config), 1000).to_json())  # as `poolscore verify` does
    assert score_pool(config).exit_code == DONE


def test_what_could_not_be_looked_at_takes_no_finding_back(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure()
    score_pool(config)
    run = RunDirectory(config.run.dir)
    run.update(verified=Verified(20, "float64", 1.0, {}, strange=3).to_json())
    run.storage.delete("_SUCCESS")
    nothing = Verified(0, "float64", 1.0, note="the pool is away")
    monkeypatch.setattr("poolscore.engine.finish.try_to_verify", lambda *given: nothing)
    result = score_pool(config)
    assert (result.verified, result.exit_code) == (nothing, INCOMPLETE)
    assert result.wrong == ["3 rows missing in the run, or with another key"]
