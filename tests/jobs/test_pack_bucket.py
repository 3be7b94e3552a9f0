"""`pack` into object storage: the same files as in a folder, whatever happens on the way. Through the real clients."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from poolscore.engine.errors import ConfigError, InterruptedRun, StoppedError
from poolscore.engine.pool.listing import list_files
from poolscore.engine.storage.filesystem import locate
from poolscore.jobs.pack import pack
from poolscore.jobs.pack.bucket import Bucket

CUTS: dict[str, Any] = {"file_bytes": 30_000, "row_group_bytes": 8_000}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 files of random bytes, and some that are no pictures by name."""
    root, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(7)
    for number in range(60):
        (root / f"{number:02d}.{'txt' if number % 9 == 4 else 'jpg'}").write_bytes(rng.bytes(1000 + 30 * number))
    return root


@pytest.fixture(scope="module")
def expected(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    pool = tmp_path_factory.mktemp("expected") / "pool"
    assert pack(photos, pool, **CUTS).files > 3
    return {path.name: path.read_bytes() for path in pool.iterdir()}


def contents(uri: str) -> dict[str, bytes]:
    at = locate(uri)
    found = at.filesystem.get_file_info(fs.FileSelector(at.path, allow_not_found=True))
    return {entry.base_name: at.filesystem.open_input_file(entry.path).read() for entry in found}


def stopping(rows: int) -> Callable[[int, int | None], None]:
    def stop(done: int, total: int | None) -> None:
        if done >= rows:
            raise KeyboardInterrupt

    return stop


def test_the_files_are_those_of_a_folder(bucket: str, photos: Path, expected: dict[str, bytes]) -> None:
    summary = pack(photos, f"{bucket}/pool/", **CUTS)
    assert contents(f"{bucket}/pool") == expected
    assert summary.set_aside == f"{bucket}/pool/_set_aside.csv"
    assert summary.bytes == sum(len(data) for name, data in expected.items() if name != "_set_aside.csv")
    with pytest.raises(ConfigError, match=r"not empty \(it holds '_set_aside.csv'\).*`--overwrite`"):
        pack(photos, f"{bucket}/pool", **CUTS)
    assert pack(photos, f"{bucket}/pool", overwrite=True).files == 1
    assert set(contents(f"{bucket}/pool")) == {"part-00000.parquet", "_set_aside.csv"}


def test_an_interrupted_pack_shows_nothing_and_goes_on(bucket: str, photos: Path, expected: dict[str, bytes]) -> None:
    pool = f"{bucket}/pool"
    with pytest.raises(InterruptedRun, match=rf"^POOL {pool}: interrupted; the same command goes on after \d+ rows$"):
        pack(photos, pool, progress=stopping(40), **CUTS)
    left = contents(pool)
    assert all(name.startswith(".") for name in left)
    assert {".pack.journal", ".set_aside.csv.tmp", ".part-00000.parquet.tmp"} <= set(left)
    with pytest.raises(ConfigError, match="no Parquet file"):
        list_files(pool)
    with pytest.raises(ConfigError, match=r"other options \(file_bytes\)"):
        pack(photos, pool, row_group_bytes=CUTS["row_group_bytes"])
    assert pack(photos, pool, **CUTS).resumed > 0
    assert contents(pool) == expected


def test_nothing_is_left_of_a_pack_without_a_whole_part(bucket: str, photos: Path) -> None:
    with pytest.raises(InterruptedRun, match="begins again"):
        pack(photos, f"{bucket}/pool", progress=stopping(3))
    assert contents(f"{bucket}/pool") == {}


@pytest.mark.parametrize("renamed", [0, 2])
def test_a_pack_that_was_stopped_amid_its_commit_goes_on(
    bucket: str, photos: Path, expected: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, renamed: int
) -> None:
    rename, left = Bucket.rename, [renamed]

    def failing(self: Bucket, old: str, new: str) -> None:
        if not left[0]:
            raise OSError(5, "Input/output error")
        left[0] -= 1
        rename(self, old, new)

    with monkeypatch.context() as patched:
        patched.setattr(Bucket, "rename", failing)
        with pytest.raises((StoppedError, OSError)):
            pack(photos, f"{bucket}/pool", **CUTS)
    summary = pack(photos, f"{bucket}/pool", **CUTS)
    assert summary.resumed == summary.rows
    assert contents(f"{bucket}/pool") == expected


def test_what_pack_did_not_write_stays(bucket: str, photos: Path) -> None:
    at = locate(f"{bucket}/pool/part-00000.parquet")
    with at.filesystem.open_output_stream(at.path) as file:
        pq.write_table(pa.table({"id": [1]}), file)
    with pytest.raises(ConfigError, match=r"holds 'part-00000.parquet', which pack did not write"):
        pack(photos, f"{bucket}/pool", overwrite=True)


def test_no_such_bucket(photos: Path, bucket: str) -> None:
    with pytest.raises(ConfigError, match=r"^s3://none-such/pool: there is no bucket 'none-such' here"):
        pack(photos, "s3://none-such/pool")


def test_a_pool_in_the_bucket_is_repacked_beside_itself(bucket: str, photos: Path, expected: dict[str, bytes]) -> None:
    pack(photos, f"{bucket}/pool", **CUTS)
    pack(f"{bucket}/pool", f"{bucket}/new", **CUTS)
    assert pq.read_table(locate(f"{bucket}/new").path, filesystem=locate(bucket).filesystem).num_rows == 53
    with pytest.raises(ConfigError, match="within one another"):
        pack(f"{bucket}/pool", f"{bucket}/pool/new")
