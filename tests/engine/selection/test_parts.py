"""Parts on storage that fails for a while are waited for, those that are damaged or gone are not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from s3_server import Proxy, S3Server, proxy_before

from poolscore.engine.errors import StoppedError
from poolscore.engine.run.journal import ShardReport
from poolscore.engine.selection.parts import Part, Reader, parts_of
from poolscore.engine.storage import patient
from poolscore.engine.storage.base import Storage
from poolscore.engine.storage.filesystem import locate
from poolscore.engine.storage.open import open_storage

TABLE = pa.table({"row_id": np.arange(1000), "bald": np.linspace(0, 1, 1000, dtype=np.float32)})


def write(uri: str) -> None:
    at = locate(uri)
    pq.write_table(TABLE, at.path, filesystem=at.filesystem, compression="none", use_dictionary=False)


@pytest.fixture
def proxy(s3_server: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """Before a bucket that holds TABLE; each request is sent once."""
    write(f"{bucket}/scores/a.parquet")
    monkeypatch.setattr(patient, "FIRST_PAUSE", 0.01)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with proxy_before(s3_server.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield proxy


def part_on(storage: Storage) -> Part:
    report = ShardReport(0, "scores/a.parquet", None, 1000, 0, 0, {"bald": 1.0}, {}, 1.0, "w", 0)
    return parts_of([(storage, [report])], "bald")[0]


@pytest.mark.parametrize("fault", ["busy", "lost"])
@pytest.mark.parametrize("after", ["nothing", "the numbers"])
def test_a_part_on_storage_that_fails_for_a_while_is_waited_for(
    bucket: str, proxy: Proxy, fault: str, after: str
) -> None:
    with Reader().opened(part_on(open_storage(bucket, 60.0))) as file:
        if after == "the numbers":
            assert np.array_equal(file.numbers("bald"), TABLE["bald"].to_numpy())
        setattr(proxy, fault, 3)
        assert file.columns(["row_id", "bald"]).equals(TABLE)
        assert getattr(proxy, fault) == 0
        assert np.array_equal(file.numbers("bald"), TABLE["bald"].to_numpy())


def test_who_has_no_patience_is_told_at_once(bucket: str, proxy: Proxy) -> None:
    proxy.busy = 1
    with pytest.raises(StoppedError, match="cannot be read"), Reader().opened(part_on(open_storage(bucket))) as file:
        file.numbers("bald")


def test_a_part_that_is_damaged_or_gone_is_not_waited_for(tmp_path: Path) -> None:
    path, started = tmp_path / "a.parquet", time.monotonic()
    write(str(path))
    whole = path.read_bytes()
    reader, part = Reader(), Part(0, str(path), 0, 1000, 1.0, 60.0)
    with reader.opened(part) as file:
        file.numbers("bald")
    for damage in (lambda: path.write_bytes(whole[:100]), lambda: path.write_bytes(b""), path.unlink):
        damage()
        with pytest.raises(StoppedError, match=r"which the journal names, cannot be read"), reader.opened(part) as file:
            file.numbers("bald")
    assert time.monotonic() - started < 20
