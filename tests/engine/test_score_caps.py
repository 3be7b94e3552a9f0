"""The main job selects under caps with control rows, and again under others."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from poolscore.engine.config import Config
from poolscore.engine.errors import ConfigError
from poolscore.engine.finish import RunResult
from poolscore.engine.run.directory import RunDirectory
from poolscore.engine.score import score_pool
from poolscore.engine.selection.result import ABOUT

Configure = Callable[..., Config]


def test_a_finished_run_is_selected_again_under_other_caps(
    digit_config: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    def batch(**select: object) -> tuple[RunResult, Counter[int], Counter[str]]:
        result = score_pool(digit_config(select={"k": 60, **select}))
        table = pq.read_table(result.selection)
        about = json.loads(table.schema.metadata[ABOUT])
        assert about.items() >= select.items()
        assert RunDirectory(result.run_dir).config.select.model_dump().items() >= select.items()
        return result, Counter(table["label"].to_pylist()), Counter(table["method"].to_pylist())

    result, labels, methods = batch(max_per_group={"label": 7}, control=0.1)
    assert methods == {"control": 6, "topk": 54}
    assert max(labels.values()) == 7  # control rows, which caps do not bind, are few of each
    assert any("drawn at random" in note for note in result.notes)
    monkeypatch.setattr("poolscore.engine.workers._fleet", None)  # nothing is scored again
    for wanted, most in (({"max_per_group": {"label": 6}}, 6), ({"quotas": {"0": 1}}, 60)):
        result, labels, methods = batch(**wanted)
        assert methods == {"topk": 60}
        assert max(labels.values()) <= most
    result, labels, _ = batch(max_per_group={"label": 3})
    assert labels == dict.fromkeys(range(10), 3)
    assert "30 rows instead of 60: the scores under the caps (max_per_group label=3) hold no more" in result.notes


def test_a_column_without_groups_is_refused_before_anything_is_scored(digit_config: Configure) -> None:
    config = digit_config(pool={"keep": ["label", "box"]}, select={"max_per_group": {"box": 2}})
    for path in Path(config.pool.uri).glob("**/*.parquet"):
        table = pq.read_table(path)
        pq.write_table(table.append_column("box", pa.array([[1, 2]] * table.num_rows)), path)
    with pytest.raises(ConfigError, match=r"max_per_group: column 'box' has type list<.*, which tells no groups"):
        score_pool(config)
    assert not Path(config.run.dir).exists()
