"""The cache of footers: what is known is not read again, what changed is."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from poolscore.engine.errors import ConfigError
from poolscore.engine.pool import find
from poolscore.engine.pool.cut import make_plan
from poolscore.engine.pool.files import PoolFiles
from poolscore.engine.pool.find import find_files
from poolscore.engine.run import footers
from poolscore.engine.run.directory import exists
from poolscore.engine.run.footers import FOOTERS, RunFooters
from poolscore.engine.storage.filesystem import locate
from poolscore.engine.storage.local import LocalStorage
from poolscore.engine.storage.open import open_storage

OLD = 1_700_000_000.0  # seconds since 1970


@pytest.fixture(autouse=True)
def _few_files_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(footers, "LEAST", 3)


def write(path: Path, rows: int, when: float = OLD) -> None:
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table({"id": range(rows)}), path, row_group_size=4)
    os.utime(path, (when, when))


def look(tmp_path: Path, keep: str | None = None) -> PoolFiles:
    return find_files(str(tmp_path / "pool"), keep=keep, cache=RunFooters(LocalStorage(tmp_path / "run")))


def fill(tmp_path: Path) -> None:
    for i in range(5):
        write(tmp_path / "pool" / f"{i}.parquet", 10 + i)


def test_only_what_is_new_or_changed_is_read(tmp_path: Path) -> None:
    fill(tmp_path)
    first = look(tmp_path)
    assert first.read == 5
    again = look(tmp_path)
    assert again.read == 0
    assert again.table.equals(first.table)
    assert make_plan(again, 10) == make_plan(first, 10)
    write(tmp_path / "pool" / "1.parquet", 30)  # another size
    write(tmp_path / "pool" / "2.parquet", 12, OLD + 1)  # another time
    write(tmp_path / "pool" / "00.parquet", 1)
    (tmp_path / "pool" / "3.parquet").unlink()
    changed = look(tmp_path)
    assert changed.read == 3
    assert changed.table["path"].to_pylist() == [f"{name}.parquet" for name in ("0", "00", "1", "2", "4")]
    assert changed.rows_F.tolist() == [10, 1, 30, 12, 14]
    fresh = find_files(str(tmp_path / "pool"))
    assert make_plan(changed, 10) == make_plan(fresh, 10)
    assert look(tmp_path).read == 0


def test_a_footer_that_was_written_just_now_is_not_kept(tmp_path: Path) -> None:
    fill(tmp_path)
    os.utime(tmp_path / "pool" / "4.parquet")
    assert look(tmp_path).read == 5
    assert look(tmp_path).read == 1


def test_another_filter_looks_at_the_statistics_again(tmp_path: Path) -> None:
    fill(tmp_path)
    assert look(tmp_path).read == 5
    assert look(tmp_path, "id > 10").matches_G.tolist() == [False] * 8 + [True] + [False, False, True, True] * 2
    assert look(tmp_path, "id > 10").read == 0
    assert look(tmp_path, "id > 11").read == 5
    assert look(tmp_path).matches_G.all()


def test_a_few_files_leave_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(footers, "LEAST", 6)
    fill(tmp_path)
    look(tmp_path)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", [b"", b"damaged", b"PAR1PAR1"])
def test_a_damaged_cache_is_no_cache(tmp_path: Path, content: bytes) -> None:
    fill(tmp_path)
    look(tmp_path)
    (tmp_path / "run" / FOOTERS).write_bytes(content)
    assert look(tmp_path).read == 5
    assert look(tmp_path).read == 0


def test_a_cache_of_another_form_is_no_cache(tmp_path: Path) -> None:
    fill(tmp_path)
    look(tmp_path)
    pq.write_table(pa.table({"path": ["0.parquet"]}), tmp_path / "run" / FOOTERS)
    assert look(tmp_path).read == 5


def test_a_pool_and_a_run_in_a_bucket(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(footers, "SETTLED", 0)
    fill(tmp_path)
    there = locate(bucket)
    for day in (1, 2):
        for file in (tmp_path / "pool").iterdir():
            with there.filesystem.open_output_stream(f"{there.path}/pool/day={day}/{file.name}") as out:
                out.write(file.read_bytes())
    cache = RunFooters(open_storage(f"{bucket}/run"))
    found = [find_files(f"{bucket}/pool/day=*/*.parquet", keep="day == 2 and id < 4", cache=cache) for _ in range(2)]
    for pool, read in zip(found, (5, 0), strict=True):
        assert (pool.root, pool.pruned, pool.read) == (f"{bucket}/pool", 5, read)
        assert pool.table["path"].to_pylist() == [f"day=2/{i}.parquet" for i in range(5)]
        assert make_plan(pool, 10).rows == 20  # the first row group of each
    assert found[0].table.equals(found[1].table)
    with pytest.raises(ConfigError, match=f"^pool.uri: there is nothing at {bucket}/none$"):
        find_files(f"{bucket}/none")


def test_a_directory_that_holds_footers_alone_is_no_run(tmp_path: Path) -> None:
    fill(tmp_path)
    look(tmp_path)
    assert not exists(str(tmp_path / "run"))


def test_ray_workers_read_footers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ray_session: None) -> None:
    from poolscore.engine.selection.on_ray import ray_workers

    fill(tmp_path)
    here = find_files(str(tmp_path / "pool"))
    monkeypatch.setattr(find, "FOR_WORKERS", 1)
    monkeypatch.setattr(find, "OF_WORKER", 2)
    assert find_files(str(tmp_path / "pool"), workers=lambda: ray_workers(None)).table.equals(here.table)
