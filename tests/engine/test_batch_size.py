"""`run.batch_size: auto`: what is chosen, what is kept, and where it cannot be measured."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import scores_of_run

from poolscore.engine.config import AUTO, Config
from poolscore.engine.errors import ConfigError
from poolscore.engine.prepare import fastest_batch as batch_size
from poolscore.engine.prepare import prepare_job
from poolscore.engine.prepare.fastest_batch import BatchSize, choose_batch_size
from poolscore.engine.run.directory import RunDirectory
from poolscore.engine.score import score_pool

Configure = Callable[..., Config]


def device(room: int, seconds: Callable[[int], float]) -> Callable[[int, int], float]:
    """A device that holds so many rows at once; a batch with its pieces of passes counts."""

    def run(rows: int, rows_per_call: int) -> float:
        if rows + max(rows, rows_per_call) > room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return seconds(rows)

    return run


@pytest.mark.parametrize(
    ("room", "seconds", "most", "chosen"),
    [
        (10**9, lambda rows: 1 + rows / 1000, 10**6, (1024, 640)),  # launches cost most: the larger the better
        (10**9, lambda rows: rows / 1000, 10**6, (16, 640)),  # all the same: the smallest
        (10**9, lambda rows: 0.1 + rows / 1000, 200, (256, 640)),  # a larger one would only be padded
        (10**9, lambda rows: rows / 1000 if rows <= 128 else rows, 10**6, (16, 640)),
        (700, lambda rows: 1 + rows / 1000, 10**6, (256, 320)),  # first the piece is halved, then the batch
        (100, lambda rows: 1 + rows / 1000, 10**6, (32, 40)),
        (10**9, lambda rows: rows * 1.0, 10**6, (16, 640)),  # too slow to try more
    ],
)
def test_the_smallest_of_the_fastest_batches_that_fit(
    room: int, seconds: Callable[[int], float], most: int, chosen: tuple[int, int]
) -> None:
    assert choose_batch_size(device(room, seconds), 640, most) == BatchSize(*chosen)


def test_a_device_with_no_room_for_the_smallest_is_told_of() -> None:
    with pytest.raises(ConfigError, match=r"^run.batch_size: not even 16 rows fit into memory, one pass at a time"):
        choose_batch_size(device(31, float), 640, 10**6)


def test_long_batches_end_the_search() -> None:
    tried: list[int] = []

    def slow(rows: int, rows_per_call: int) -> float:
        tried.append(rows)
        return 3.0 if rows == 16 else 6.0

    choose_batch_size(slow, 640, 10**6)
    assert tried == [16, 32]


def test_a_run_keeps_the_size_that_was_measured(digit_config: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_size, "CANDIDATES", (32,))
    config = digit_config(run={"batch_size": "auto"})
    assert config.run.batch_size == AUTO
    result = score_pool(config)
    info = RunDirectory(config.run.dir).info
    assert [info["config"]["run"]["batch_size"], info["profile"]["batch_size"]] == [32, 32]
    assert info["identity"]["run.batch_size"] == 32
    before = scores_of_run(result.run_dir)

    monkeypatch.setattr(batch_size, "CANDIDATES", (64,))  # another day another size would be measured
    assert prepare_job(config).config.run.batch_size == 32
    (Path(config.run.dir) / "_SUCCESS").unlink()
    score_pool(config)
    assert scores_of_run(result.run_dir).equals(before)
    assert prepare_job(config, fresh=True).config.run.batch_size == 64
    score_pool(config, fresh=True)
    assert RunDirectory(config.run.dir).info["config"]["run"]["batch_size"] == 64


def test_it_gives_the_scores_of_the_number_that_it_finds(
    digit_config: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_size, "CANDIDATES", (16, 32))
    found = score_pool(digit_config(run={"batch_size": "auto"}))
    number = RunDirectory(found.run_dir).info["config"]["run"]["batch_size"]
    score_pool(digit_config(run={"batch_size": number, "dir": str(tmp_path / "other")}))
    assert scores_of_run(str(tmp_path / "other")).equals(scores_of_run(found.run_dir))


def test_memory_that_runs_out_while_measuring_makes_the_pieces_smaller(
    digit_config: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    from poolscore.engine.model.passes import McDropout

    logits = McDropout.logits

    def small(self: McDropout, inputs: object, keys: torch.Tensor, *rest: object) -> torch.Tensor:
        if measuring and self.rows_per_call > 40:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return logits(self, inputs, keys, *rest)  # type: ignore[arg-type]

    measuring: list[int] = []
    measure = batch_size.choose_batch_size

    def measured(*given: object) -> BatchSize:
        measuring.append(1)
        try:
            return measure(*given)  # type: ignore[arg-type]
        finally:
            measuring.clear()

    monkeypatch.setattr(batch_size, "choose_batch_size", measured)
    monkeypatch.setattr(McDropout, "logits", small)
    monkeypatch.setattr(batch_size, "CANDIDATES", (16, 32))
    prepared = prepare_job(digit_config(run={"batch_size": "auto"}, passes={"count": 5, "rows_per_call": 80}))
    assert prepared.config.passes.rows_per_call == 40
    assert prepared.scorer.model.rows_per_call == 40


def test_a_driver_without_gpu_asks_for_a_number(digit_config: Configure) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    run = {"batch_size": "auto", "executor": "ray", "address": "ray://somewhere:10001"}
    with pytest.raises(ConfigError, match=r"^run.batch_size: 'auto' is measured where this command runs"):
        prepare_job(digit_config(run=run))
    assert prepare_job(digit_config(run={**run, "device": "cpu"})).config.run.batch_size > 0


@pytest.mark.parametrize("given", ["large", 0, -1, True, 1.5])
def test_other_words_and_numbers_are_refused(digit_config: Configure, given: object) -> None:
    with pytest.raises(ConfigError, match=r"run.batch_size"):
        digit_config(run={"batch_size": given})
