"""What is told about a pool, from its files as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from poolscore.engine.pool.cut import make_plan
from poolscore.engine.pool.files import PoolFiles, table_of
from poolscore.engine.pool.find import find_files
from poolscore.engine.pool.findings import LEAST_ROWS, findings_of
from poolscore.engine.pool.footer import PoolFile
from poolscore.engine.pool.health import Finding

MB = 1_000_000


def found(files: PoolFiles, workers: int | None = None, shard_rows: int = 65_536) -> dict[str, Finding]:
    return {one.kind: one for one in findings_of(files, make_plan(files, shard_rows), "photos/", workers)}


def described(sizes: list[list[int]], rows: int = 1000, file_bytes: int = 50 * MB) -> PoolFiles:
    """Files of row groups of so many bytes."""
    return PoolFiles(
        "/p",
        table_of(
            PoolFile(f"{i}", file_bytes, 0, "", pa.schema([]), (rows,) * len(of), tuple(of), (True,) * len(of))
            for i, of in enumerate(sizes)
        ),
    )


def test_a_good_pool_has_none() -> None:
    assert found(described([[20 * MB] * 5] * 100), workers=4) == {}


def test_what_the_footers_tell() -> None:
    huge = found(described([[20 * MB], [20 * MB, 300 * MB]]))["huge_row_groups"]
    assert "1 of 3 row groups over 256 MB, up to 300 MB" in huge.what
    assert (huge.where, "photos/" in huge.advice) == ("1", True)
    assert "300 of 300 files are under 4 MB" in found(described([[MB]] * 300, file_bytes=MB))["tiny_files"].what
    assert found(described([[MB]] * 200, file_bytes=MB)) == {}  # a small pool
    assert "500 of 500 row groups are under 250 kB" in found(described([[9] * 50] * 10))["tiny_row_groups"].what


def test_pictures_compressed_twice(tmp_path: Path) -> None:
    noise = [row.tobytes() for row in np.random.default_rng(0).integers(0, 256, (20, 2000), np.uint8)]
    pq.write_table(pa.table({"image": noise}), tmp_path / "b.parquet", compression="snappy")
    pq.write_table(pa.table({"image": noise}), tmp_path / "a.parquet", compression="none", use_dictionary=False)
    findings = found(find_files(str(tmp_path)))
    assert list(findings) == ["compressed_twice", "dictionary_encoded"]
    assert findings["compressed_twice"].where == "b.parquet"
    assert (
        "column 'image' is compressed twice in 1 of 2 files: SNAPPY saves nothing" in findings["compressed_twice"].what
    )


def test_shards_must_be_enough_for_the_workers() -> None:
    files = described([[20 * MB] * 100])  # 100,000 rows: two shards
    few = found(files, workers=4)["few_shards"]
    assert few.what == "2 shards for 4 workers: 2 have nothing to do"
    assert few.advice == "set run.shard_rows to 6250 or less"
    assert found(files, workers=2) == found(files, workers=None) == {}
    assert found(files, workers=100_000 // LEAST_ROWS + 1) == {}  # a small pool is done in no time
    coarse = found(described([[20 * MB] * 2], rows=50_000), workers=4)["few_shards"]
    assert coarse.advice == "set run.shard_rows to 6250 or less, or write smaller row groups"
