"""Workers and stopped packs: the pool is the same, byte for byte, however it came about."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from poolscore.engine.errors import ConfigError, InterruptedRun, StoppedError
from poolscore.jobs.pack import fill, pack
from poolscore.jobs.pack import workers as crew
from poolscore.jobs.pack.contract import Packed, Piece

CUTS: dict[str, Any] = {"file_bytes": 60_000, "row_group_bytes": 16_000}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 pictures in a tree, one of them much larger than a piece; some broken, some unreadable, some no pictures."""
    root, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(7)
    for number in range(300):
        kind = ("JPEG", "PNG", "WEBP")[number % 3]
        side = int(rng.integers(4, 24))
        out = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (side, side + 3, 3), dtype=np.uint8)).save(out, kind)
        path = root / f"d{number % 7}" / f"e{number % 5}" / f"{number:03d}.{kind.lower()}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(out.getvalue()[: 30 if number % 50 == 9 else None])
        if number % 40 == 3:
            path.with_suffix(".txt").touch()
            path.with_suffix(".gone.png").symlink_to("gone")
    (root / "d3/large.png").write_bytes(bytes(3 << 20))
    (root / "d3/large2.png").write_bytes(bytes(2 << 20))
    return root


def contents(pool: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(pool.iterdir())}


@pytest.fixture(scope="module")
def expected(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    pool = tmp_path_factory.mktemp("expected") / "pool"
    summary = pack(photos, pool, label_from_folder=True, **CUTS)
    assert summary.files > 3
    assert (summary.rows, summary.skipped, summary.headerless) == (
        302,
        {"not an image by extension": 8, "unreadable": 8},
        8,
    )
    return contents(pool)


@pytest.mark.parametrize("count", [2, 3])
def test_any_number_of_workers_gives_the_same_bytes(
    tmp_path: Path, photos: Path, expected: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(fill, "ROWS_PER_WORKER", 1)
    pack(photos, tmp_path / "pool", label_from_folder=True, workers=count, **CUTS)
    assert contents(tmp_path / "pool") == expected


def test_workers_number_the_rows_of_arrays_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fill, "ROWS_PER_WORKER", 1)
    np.savez(tmp_path / "x.npz", x=np.arange(5000 * 16, dtype=np.uint8).reshape(5000, 4, 4), y=np.arange(5000))
    for count in (1, 2):
        pack(tmp_path / "x.npz", tmp_path / f"pool{count}", workers=count)
    assert contents(tmp_path / "pool1") == contents(tmp_path / "pool2")
    table = pq.read_table(tmp_path / "pool2")
    assert table["id"].to_pylist() == table["label"].to_pylist() == list(range(5000))


KILLED = """
import os, signal, sys
from poolscore.jobs.pack import fill, pack
fill.ROWS_PER_WORKER = 1
stop = int(sys.argv[4])
def progress(done, total):
    if done >= stop:
        os.kill(os.getpid(), signal.SIGKILL)
pack(sys.argv[1], sys.argv[2], label_from_folder=True, workers=int(sys.argv[3]), file_bytes=60_000,
     row_group_bytes=16_000, progress=progress)
"""


def killed(source: Path, pool: Path, rows: int, workers: int = 1) -> None:
    """A pack that is killed with signal 9 after so many rows."""
    command = [sys.executable, "-c", KILLED, str(source), str(pool), str(workers), str(rows)]
    assert subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode == -signal.SIGKILL
    assert all(path.name.startswith(".") for path in pool.iterdir())


@pytest.mark.parametrize(("rows", "workers"), [(100, 1), (250, 2)])
def test_a_killed_pack_goes_on_where_it_was(
    tmp_path: Path, photos: Path, expected: dict[str, bytes], rows: int, workers: int
) -> None:
    pool = tmp_path / "pool"
    killed(photos, pool, rows, workers)
    whole = {path.name: path.stat().st_mtime_ns for path in sorted(pool.glob(".part*"))[:-1]}
    assert whole
    before = {path.name: path.stat().st_ino for path in pool.glob(".part*") if path.name in whole}
    reported: list[int] = []
    summary = pack(photos, pool, label_from_folder=True, progress=lambda done, _: reported.append(done), **CUTS)
    assert contents(pool) == expected
    assert reported[0] == summary.resumed > 0
    assert "were there from an earlier try" in str(summary)
    for name, number in before.items():  # not written again
        assert (pool / name[1:].removesuffix(".tmp")).stat().st_ino == number
        assert (pool / name[1:].removesuffix(".tmp")).stat().st_mtime_ns == whole[name]


def test_killed_again_and_again_it_comes_to_the_same(tmp_path: Path, photos: Path, expected: dict[str, bytes]) -> None:
    for rows in (60, 130, 200, 302):
        killed(photos, tmp_path / "pool", rows)
    pack(photos, tmp_path / "pool", label_from_folder=True, **CUTS)
    assert contents(tmp_path / "pool") == expected


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("damage", ["hole", "gone", "footer"])
def test_a_part_that_is_not_whole_is_written_again(
    tmp_path: Path, photos: Path, expected: dict[str, bytes], number: int, damage: str
) -> None:
    killed(photos, tmp_path / "pool", 250)
    part = tmp_path / "pool" / f".part-0000{number}.parquet.tmp"
    data = bytearray(part.read_bytes())
    if damage == "gone":
        part.unlink()
    elif damage == "footer":
        data[-30] ^= 1
        part.write_bytes(data)
    else:  # its footer is whole
        part.write_bytes(data[:100] + data[200:])
    pack(photos, tmp_path / "pool", label_from_folder=True, **CUTS)
    assert contents(tmp_path / "pool") == expected


def test_a_journal_that_ends_within_a_line_counts_up_to_it(
    tmp_path: Path, photos: Path, expected: dict[str, bytes]
) -> None:
    killed(photos, tmp_path / "pool", 250)
    journal = tmp_path / "pool/.pack.journal"
    journal.write_bytes(journal.read_bytes()[:-20])
    pack(photos, tmp_path / "pool", label_from_folder=True, **CUTS)
    assert contents(tmp_path / "pool") == expected


@pytest.mark.parametrize("renamed", [0, 1, 3])
def test_a_pack_that_was_stopped_amid_its_commit_goes_on(
    tmp_path: Path, photos: Path, expected: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, renamed: int
) -> None:
    replace, left = Path.replace, [renamed]

    def failing(path: Path, target: Path) -> Path:
        if not left[0]:
            raise OSError(5, "Input/output error")
        left[0] -= 1
        return replace(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", failing)
        with pytest.raises((StoppedError, OSError)):
            pack(photos, tmp_path / "pool", label_from_folder=True, **CUTS)
    summary = pack(photos, tmp_path / "pool", label_from_folder=True, **CUTS)
    assert summary.resumed == summary.rows
    assert contents(tmp_path / "pool") == expected


def test_a_changed_source_and_other_options_are_told_of(tmp_path: Path, photos: Path) -> None:
    pool = tmp_path / "pool"
    killed(photos, pool, 250)
    with pytest.raises(ConfigError, match=r"other options \(file_bytes, label_from_folder\).*`--fresh`"):
        pack(photos, pool, row_group_bytes=CUTS["row_group_bytes"])
    (photos / "d6/new.png").touch()
    try:
        with pytest.raises(ConfigError, match=r"SOURCE has changed.*`--fresh`"):
            pack(photos, pool, label_from_folder=True, **CUTS)
    finally:
        (photos / "d6/new.png").unlink()
    assert len(list(pool.glob(".part*"))) > 1
    assert pack(photos, pool, fresh=True).resumed == 0


def test_a_file_that_was_written_again_is_a_changed_source(tmp_path: Path) -> None:
    pool = tmp_path / "pool"
    np.save(tmp_path / "x.npy", np.zeros((300, 20, 20), np.uint8))

    def stop(done: int, total: int | None) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(InterruptedRun):
        pack(tmp_path / "x.npy", pool, file_bytes=1, row_group_rows=100, progress=stop)
    np.save(tmp_path / "x.npy", np.ones((300, 20, 20), np.uint8))
    os.utime(tmp_path / "x.npy", ns=(1, 1))
    with pytest.raises(ConfigError, match="SOURCE has changed"):
        pack(tmp_path / "x.npy", pool, file_bytes=1, row_group_rows=100)


def test_what_was_set_aside_is_listed_with_reasons(expected: dict[str, bytes]) -> None:
    lines = expected["_set_aside.csv"].decode().splitlines()
    assert lines[0] == "name,reason"
    assert len(lines) == 17
    assert sum("unreadable: No such file or directory" in line for line in lines) == 8
    assert "d0/e3/203.gone.png,unreadable: No such file or directory" in lines
    assert lines[1:] == sorted(lines[1:])


def test_overwriting_takes_the_old_list_away(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    (source / "a.png").touch()
    (source / os.fsdecode(b"b\xff.png")).touch()
    summary = pack(source, tmp_path / "pool")
    assert summary.set_aside == str(tmp_path / "pool/_set_aside.csv")
    assert (tmp_path / "pool/_set_aside.csv").read_text() == "name,reason\nb\\udcff.png,with a name that is not UTF-8\n"
    (source / os.fsdecode(b"b\xff.png")).unlink()
    assert pack(source, tmp_path / "pool", overwrite=True).set_aside is None
    assert [path.name for path in (tmp_path / "pool").iterdir()] == ["part-00000.parquet"]


class Watched:
    """Does the work of `half` at once and counts what was begun."""

    ahead = 3

    def __init__(self) -> None:
        self.begun: list[list[int]] = []

    def begin(self, piece: Piece) -> Future[Packed]:
        self.begun.append(list(piece))
        return crew.Here(half).begin(piece)


def half(piece: list[int]) -> Packed:
    """Leaves what is more than two items; the items come back as names."""
    return Packed(None, min(2, len(piece)), [(str(item), "") for item in piece[:2]])


def test_rests_come_in_order_and_nothing_is_done_twice_or_too_far_ahead() -> None:
    watched, listed = Watched(), []

    def listing() -> Iterator[list[int]]:
        for start in range(0, 70, 7):
            listed.append(start)
            yield list(range(start, start + 7))

    results = crew.in_order(listing(), watched)
    first = next(results)
    assert len(watched.begun) == len(listed) == 3
    done = [name for packed in (first, *results) for name, _ in packed.set_aside]
    assert done == [str(number) for number in range(70)]
    assert sorted(item for piece in watched.begun for item in piece[:2]) == list(range(70))


def dies(piece: list[int]) -> Packed:
    os._exit(7)


def refuses(piece: list[int]) -> Packed:
    raise ConfigError(f"not {piece[0]}")


def test_a_worker_that_dies_stops_the_pack_and_its_errors_come_through() -> None:
    with crew.Processes(2, dies) as processes, pytest.raises(StoppedError, match=r"exit code 7.*goes on"):
        list(crew.in_order(iter([[1], [2]]), processes))
    with crew.Processes(2, refuses) as processes, pytest.raises(ConfigError, match="not 1"):
        list(crew.in_order(iter([[1], [2]]), processes))


def test_workers_end_when_their_caller_is_killed(tmp_path: Path, photos: Path) -> None:
    killed(photos, tmp_path / "pool", 250, workers=2)
    mark = b"poolscore.jobs.pack.workers import serve"
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        left = [entry for entry in Path("/proc").glob("[0-9]*/cmdline") if mark in _read(entry)]
        if not left:
            return
        time.sleep(0.05)
    raise AssertionError(f"still there: {left}")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
