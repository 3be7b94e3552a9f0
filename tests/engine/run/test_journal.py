"""The journal: the first report of a shard wins, two drivers never share a record, and damage is told of."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from fake_fleet import report

from poolscore.engine.errors import StoppedError
from poolscore.engine.run.journal import Journal, read_reports
from poolscore.engine.storage import LocalStorage


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path)


def records(storage: LocalStorage) -> list[str]:
    return [f"{epoch}/{name}" for epoch in storage.names("_log") for name in storage.names(f"_log/{epoch}")]


def test_an_empty_run_has_no_reports(storage: LocalStorage) -> None:
    assert read_reports(storage) == {}
    Journal(storage)
    assert read_reports(storage) == {}
    assert records(storage) == ["000001/00000000.json"]


def test_reports_come_back_whole_and_in_the_order_of_shards(storage: LocalStorage) -> None:
    journal = Journal(storage)
    written = [report(shard, rejected=shard, attempt=shard) for shard in (7, 2, 11, 0)]
    for one in written:
        journal.append(one)
    read = read_reports(storage)
    assert list(read) == [0, 2, 7, 11]
    assert all(read[one.shard] == one for one in written)


def test_the_first_report_of_a_shard_wins(storage: LocalStorage) -> None:
    first = Journal(storage)
    first.append(report(1, attempt=0))
    first.append(report(1, attempt=1))
    second = Journal(storage)
    second.append(report(1, attempt=2))
    second.append(report(2, attempt=3))
    assert {shard: one.scores[-9] for shard, one in read_reports(storage).items()} == {1: "0", 2: "3"}


def test_each_driver_has_its_own_epoch(storage: LocalStorage) -> None:
    for _ in range(3):
        Journal(storage)
    for count in range(12):
        Journal(storage).append(report(count))
    assert len(storage.names("_log")) == 15
    assert list(read_reports(storage)) == list(range(12))
    assert set(json.loads(storage.read("_log/000001/00000000.json"))) == {"host", "pid", "time", "token"}


def test_many_records_keep_their_order(storage: LocalStorage) -> None:
    journal = Journal(storage)
    for attempt in range(120):
        journal.append(report(attempt % 100, attempt=attempt))
    assert [one.scores for one in read_reports(storage).values()] == [report(i, attempt=i).scores for i in range(100)]


def test_two_drivers_that_claim_at_once_get_two_epochs(storage: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    Journal(storage)
    monkeypatch.setattr(LocalStorage, "names", lambda self, folder: [])  # as if both had looked before either wrote
    Journal(storage)
    monkeypatch.undo()
    assert storage.names("_log") == ["000001", "000002"]


def test_a_second_writer_of_one_epoch_is_refused(storage: LocalStorage) -> None:
    one = Journal(storage)
    one.append(report(1))
    other = Journal(storage)
    with pytest.raises(StoppedError, match=r"another driver works on this run"):
        one.append(report(2))  # the run has been opened since
    other._epoch = one._epoch
    with pytest.raises(StoppedError, match=r"another driver works on this run"):
        other.append(report(2))
    assert list(read_reports(storage)) == [1]


def test_a_run_that_was_moved_away_takes_no_more_reports(storage: LocalStorage, tmp_path: Path) -> None:
    journal = Journal(storage)
    Path(storage.path("_log")).rename(tmp_path / "elsewhere")
    Journal(storage)  # another driver began anew, at the same epoch
    with pytest.raises(StoppedError, match=r"or it was moved"):
        journal.append(report(1))


def test_what_others_leave_there_is_passed_over(storage: LocalStorage) -> None:
    journal = Journal(storage)
    journal.append(report(1))
    for name in ("README", "000009.bak/00000001.json", "000001/notes.txt", "000001/00000002.json~", "7/00000001.json"):
        storage.create(f"_log/{name}", b"{}")
    Path(storage.path("_log/000005")).touch()
    assert list(read_reports(storage)) == [1]
    assert Journal(storage)._epoch == 6


@pytest.mark.parametrize(
    "data",
    [b"", b'{"shard": 1, "scor', b"[]", b"{}", b"null", b"\xff", json.dumps(asdict(report(1)) | {"new": 1}).encode()],
)
def test_a_damaged_record_is_named_not_passed_over(storage: LocalStorage, data: bytes) -> None:
    Journal(storage).append(report(1))
    storage.create("_log/000001/00000002.json", data)
    with pytest.raises(
        StoppedError, match=r"_log/000001/00000002.json is damaged .*; delete it, and _SUCCESS"
    ) as caught:
        read_reports(storage)
    assert "\n" not in str(caught.value)
