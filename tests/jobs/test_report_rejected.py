"""Rejected rows on the page: by kind of reason, with examples."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from poolscore.engine.storage.open import open_storage
from poolscore.jobs.report.rejected import read_rejected, section


def facts(folder: Path, *errors: tuple[str, str]) -> Any:
    """Of a run with one part of rejected rows: stage and message of each."""
    stages, messages = zip(*errors, strict=True)
    table = pa.table({"id": [f"id-{i}" for i in range(len(errors))], "stage": stages, "error": messages})
    pq.write_table(table, folder / "errors.parquet")
    return SimpleNamespace(
        run=SimpleNamespace(storage=open_storage(str(folder))),
        reports={0: SimpleNamespace(errors="errors.parquet")},
        totals=SimpleNamespace(rejected=len(errors), scored=5),
    )


def test_the_commonest_kind_comes_first_whatever_its_numbers(tmp_path: Path) -> None:
    long = [("decode", f"{n} tokens, more than length 128") for n in (130, 200, 131)]
    of = facts(tmp_path, ("decode", "null"), *long, ("decode", "null"), ("reduce", "null"))
    found = read_rejected(of)
    assert [(found.words[kind], count) for kind, count in found.counts.most_common()] == [
        ("N tokens, more than length N", 3),
        ("null", 2),
        ("null", 1),
    ]
    assert found.examples["decode", "N tokens, more than length N"] == ["id-1", "id-2", "id-3"]


def test_a_reason_that_is_always_the_same_keeps_its_numbers(tmp_path: Path) -> None:
    page = section(facts(tmp_path, ("decode", "1x1 pixels"), ("decode", "1x1 pixels"), ("decode", "2 and 3")))
    assert "<bdi>1x1 pixels</bdi>" in page
    assert "<bdi>2 and 3</bdi>" in page
