"""The journal: the first report of a shard wins, an epoch adopts what it read of earlier ones, compactions spare
reading and nothing else, and damage is told of. Two drivers at once: test_two_drivers.py."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from fake_fleet import report

from poolscore.engine.errors import StoppedError
from poolscore.engine.run import compaction
from poolscore.engine.run.compaction import cover, pack, range_at, unpack
from poolscore.engine.run.journal import Journal, ShardReport, read_reports
from poolscore.engine.run.records import Opening, name_of, newest
from poolscore.engine.storage.local import LocalStorage


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path)


def records(storage: LocalStorage) -> list[str]:
    return [f"{epoch}/{name}" for epoch in storage.names("_log") for name in storage.names(f"_log/{epoch}")]


@pytest.fixture
def taken_for_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every driver takes the one before it for dead."""
    monkeypatch.setattr("poolscore.engine.run.journal.require_gone", lambda storage, opening: None)


def old_epoch(storage: LocalStorage, epoch: int, reports: list[ShardReport]) -> None:
    """An epoch as older versions wrote it."""
    driver = {"host": "h", "pid": 1, "time": 0.0, "token": f"old-{epoch}"}
    for number, values in enumerate([driver, *map(asdict, reports)]):
        assert storage.create(name_of(epoch, number), json.dumps(values).encode())


def counting(storage: LocalStorage) -> dict[int, str]:
    """shard → the attempt that counts."""
    return {shard: one.scores[-9] for shard, one in read_reports(storage).items()}


def test_an_empty_run_has_no_reports(storage: LocalStorage) -> None:
    assert read_reports(storage) == {}
    Journal(storage).close()
    assert read_reports(storage) == {}
    assert records(storage) == ["000001/00000000.json", "000001/closed.json"]


def test_reports_come_back_whole_and_in_the_order_of_shards(storage: LocalStorage) -> None:
    written = [report(shard, rejected=shard, attempt=shard) for shard in (7, 2, 11, 0)]
    with Journal(storage) as journal:
        for one in written:
            journal.append(one)
    read = read_reports(storage)
    assert list(read) == [0, 2, 7, 11]
    assert all(read[one.shard] == one for one in written)


def test_several_reports_are_one_record_and_one_is_as_ever(storage: LocalStorage) -> None:
    several = [report(shard, rejected=shard, attempt=1) for shard in (7, 2, 11)]
    with Journal(storage) as journal:
        journal.append(*several)
        journal.append(report(2, attempt=2), report(3, attempt=2))
        journal.append(report(4))
        assert list(read_reports(storage).values()) == [
            several[1],
            report(3, attempt=2),
            report(4),
            several[0],
            several[2],
        ]
    assert records(storage)[1:4] == [f"000001/0000000{number}.json" for number in (1, 2, 3)]
    first, alone = (json.loads(storage.read(name_of(1, number))) for number in (1, 3))
    assert first == {"token": journal._token, "reports": [asdict(one) for one in several]}
    assert alone == {"token": journal._token, **asdict(report(4))}  # which older versions can read
    with Journal(storage) as second:
        assert list(second.adopted) == [2, 3, 4, 7, 11]
        assert newest(storage).adopted == {1: 3}  # type: ignore[union-attr]


def test_the_first_report_of_a_shard_wins(storage: LocalStorage) -> None:
    with Journal(storage) as first:
        first.append(report(1, attempt=0))
        first.append(report(1, attempt=1))
    with Journal(storage) as second:
        second.append(report(1, attempt=2))
        second.append(report(2, attempt=3))
    assert counting(storage) == {1: "0", 2: "3"}


def test_each_driver_has_its_own_epoch(storage: LocalStorage) -> None:
    for _ in range(3):
        Journal(storage).close()
    for count in range(12):
        with Journal(storage) as journal:
            assert list(journal.adopted) == list(range(count))
            journal.append(report(count))
    assert len(storage.names("_log")) == 15
    assert list(read_reports(storage)) == list(range(12))
    opening = newest(storage)
    assert opening is not None
    assert opening.adopted == {1: 0, 2: 0, 3: 0} | dict.fromkeys(range(4, 15), 1)


def test_many_records_keep_their_order(storage: LocalStorage) -> None:
    with Journal(storage) as journal:
        for attempt in range(120):
            journal.append(report(attempt % 100, attempt=attempt))
    assert [one.scores for one in read_reports(storage).values()] == [report(i, attempt=i).scores for i in range(100)]


def test_two_drivers_that_claim_at_once_get_two_epochs(storage: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    Journal(storage).close()
    monkeypatch.setattr(LocalStorage, "names", lambda self, folder: [])  # as if both had looked before either wrote
    Journal(storage).close()
    monkeypatch.undo()
    assert storage.names("_log") == ["000001", "000002"]


def test_what_an_epoch_did_not_adopt_never_counts(storage: LocalStorage, taken_for_dead: None) -> None:
    zombie = Journal(storage)
    zombie.append(report(1, attempt=1))
    new = Journal(storage)
    for shard in (2, 3):
        with pytest.raises(StoppedError, match=r"another driver works on this run"):
            zombie.append(report(shard, attempt=1))  # the run has been opened since
    zombie.close()
    assert "000001/00000002.json" in records(storage)
    assert "000001/00000003.json" not in records(storage)  # by then it knew before it wrote
    assert counting(storage) == {1: "1"}
    new.append(report(2, attempt=2))
    assert counting(storage) == {1: "1", 2: "2"}
    new.close()
    with Journal(storage) as third:
        assert list(third.adopted) == [1, 2]
    assert counting(storage) == {1: "1", 2: "2"}


def test_a_zombie_that_slept_looks_before_it_writes(storage: LocalStorage, taken_for_dead: None) -> None:
    zombie = Journal(storage)
    zombie._heart.confirmed -= 60
    Journal(storage).close()
    with pytest.raises(StoppedError, match=r"another driver works on this run"):
        zombie.append(report(1))
    zombie.close()
    assert "000001/00000001.json" not in records(storage)


def test_of_a_zombies_record_all_reports_count_or_none(storage: LocalStorage, taken_for_dead: None) -> None:
    zombie = Journal(storage)
    zombie.append(report(1, attempt=1), report(2, attempt=1))
    new = Journal(storage)
    with pytest.raises(StoppedError, match=r"another driver works on this run"):
        zombie.append(report(3, attempt=1), report(4, attempt=1))
    zombie.close()
    assert "000001/00000002.json" in records(storage)
    new.append(report(4, attempt=2), report(5, attempt=2))
    new.close()
    assert counting(storage) == {1: "1", 2: "1", 4: "2", 5: "2"}


def test_a_run_that_was_moved_away_takes_no_more_reports(storage: LocalStorage, tmp_path: Path) -> None:
    journal = Journal(storage)
    Path(storage.path("_log")).rename(tmp_path / "elsewhere")
    other = Journal(storage)  # another driver began anew, at the same epoch
    with pytest.raises(StoppedError, match=r"or it was moved"):
        journal.append(report(1))
    journal.close()
    assert read_reports(storage) == {}  # it wrote into a stranger's epoch
    other.append(report(2))
    other.close()
    assert list(read_reports(storage)) == [2]


def test_journals_of_older_versions_are_read_and_adopted(storage: LocalStorage, taken_for_dead: None) -> None:
    old_epoch(storage, 1, [report(1, attempt=1), report(2, attempt=1)])
    old_epoch(storage, 3, [report(2, attempt=2), report(3, attempt=2)])
    assert counting(storage) == {1: "1", 2: "1", 3: "2"}
    with Journal(storage) as journal:
        assert (journal.epoch, list(journal.adopted)) == (4, [1, 2, 3])
        storage.create(name_of(3, 3), json.dumps(asdict(report(4))).encode())  # by an old driver that still lives
        journal.append(report(5, attempt=3), report(6, attempt=3))
    assert counting(storage) == {1: "1", 2: "1", 3: "2", 5: "3", 6: "3"}


def test_a_claim_that_died_half_way_is_passed_over(storage: LocalStorage) -> None:
    with Journal(storage) as journal:
        journal.append(report(1))
        Path(storage.path("_log/000002")).mkdir()
        journal.append(report(2))
    assert list(read_reports(storage)) == [1, 2]
    with Journal(storage) as journal:
        assert journal.epoch == 2


def test_a_folder_that_grows_while_it_is_listed(storage: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    with Journal(storage) as journal:
        for shard in range(4):
            journal.append(report(shard))
    names, missed = LocalStorage.names, iter(["00000002.json"])

    def without(self: LocalStorage, folder: str) -> list[str]:
        gone = next(missed, None) if folder.endswith("/000001") else None
        return [name for name in names(self, folder) if name != gone]

    monkeypatch.setattr(LocalStorage, "names", without)
    assert list(read_reports(storage)) == [0, 1, 2, 3]


def test_ranges_of_compactions() -> None:
    ranges = [r for n in range(1, 4097) if (r := range_at(n)) is not None]
    assert ranges[:2] == [(1, 64), (65, 128)]
    assert [r for r in ranges if r[1] in (512, 1024, 4096)] == [(1, 512), (513, 1024), (1, 4096)]
    assert list(cover(ranges)) == [(1, 4096)]
    ranges = [r for n in range(1, 5001) if (r := range_at(n)) is not None]
    assert list(cover(ranges)) == [(1, 4096), (4097, 4608), *((n + 1, n + 64) for n in range(4608, 4992, 64))]
    assert sum(last - first + 1 for first, last in ranges) <= 3 * 5000  # each record is written thrice at most


@pytest.fixture
def compacted(storage: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> LocalStorage:
    """Two epochs with compactions: of 4 and 16 records, each third of two shards, and of what the second adopted."""
    monkeypatch.setattr(compaction, "LEAST", 4)
    monkeypatch.setattr(compaction, "STEP", 4)
    monkeypatch.setattr("poolscore.engine.run.journal.MANY", 3)
    for epoch in (1, 2):
        with Journal(storage) as journal:
            for shard in range(22):
                more = [report(epoch * 1000 + shard)] if shard % 3 == 0 else []
                journal.append(report(epoch * 100 + shard), *more)
    return storage


def test_compactions_spare_reading(compacted: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    original = LocalStorage.read
    monkeypatch.setattr(LocalStorage, "read", lambda self, name: read.append(name) or original(self, name))
    assert list(read_reports(compacted)) == [
        *range(100, 122),
        *range(200, 222),
        *range(1000, 1022, 3),
        *range(2000, 2022, 3),
    ]
    assert [name[5:] for name in read] == [
        "000002/00000000.json",
        "000002/00000001-00000016.json",
        "000002/00000017-00000020.json",
        "000002/00000021.json",
        "000002/00000022.json",
        "000002/adopted.json",
        "000002/00000000.json",
    ]


@pytest.mark.parametrize("form", ["gone", "empty", "half", "changed", "foreign"])
def test_a_damaged_compaction_is_passed_over(compacted: LocalStorage, form: str) -> None:
    whole = read_reports(compacted)
    names = [f"_log/{name}" for name in records(compacted) if "-" in name or "adopted" in name]
    assert len(names) == 11
    for name in names:
        data = compacted.read(name)
        compacted.delete(name)
        if form != "gone":
            bad = {
                "empty": b"",
                "half": data[: len(data) // 2],
                "changed": data.replace(b'"scored": 10', b'"scored": 11'),
                "foreign": pack("another", [b"{}"]),
            }[form]
            compacted.create(name, bad)
        assert read_reports(compacted) == whole


def test_a_compaction_beyond_what_was_adopted_is_not_read(storage: LocalStorage, taken_for_dead: None) -> None:
    zombie = Journal(storage)
    zombie.append(report(0))
    Journal(storage).close()
    told = [json.dumps({"token": zombie._token, **asdict(report(shard))}).encode() for shard in (0, 1)]
    storage.create(name_of(1, 2), told[1])
    storage.create(name_of(1, (1, 2)), pack(zombie._token, told))
    zombie.close()
    assert list(read_reports(storage)) == [0]


def test_a_compaction_is_whole_or_none() -> None:
    data = pack("me", [b'{"a": 1}', b'{"a": 2}'])
    assert unpack(data, "me") == [{"a": 1}, {"a": 2}]
    assert unpack(data, "you") is None
    assert unpack(pack("me", []), "me") == []
    assert all(unpack(data[:end], "me") is None for end in range(len(data)))


def test_what_others_leave_there_is_passed_over(storage: LocalStorage) -> None:
    journal = Journal(storage)
    journal.append(report(1))
    for name in ("README", "000009.bak/00000001.json", "000001/notes.txt", "000001/00000002.json~", "7/00000001.json"):
        storage.create(f"_log/{name}", b"{}")
    Path(storage.path("_log/000005")).touch()
    journal.close()
    assert list(read_reports(storage)) == [1]
    with Journal(storage) as journal:
        assert journal.epoch == 2


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b'{"shard": 1, "scor', b"[]", b"{}", b"null", b"\xff"),
        json.dumps(asdict(report(1)) | {"new": 1}).encode(),
        json.dumps({"reports": [asdict(report(2)), asdict(report(3)) | {"new": 1}]}).encode(),
        json.dumps({"reports": [asdict(report(2))], "new": 1}).encode(),
        *(b'{"reports": 1}', b'{"reports": null}', b'{"reports": ["shard"]}', b'{"reports": {"shard": 1}}'),
    ],
)
def test_a_damaged_record_is_named_not_passed_over(storage: LocalStorage, data: bytes) -> None:
    with Journal(storage) as journal:
        journal.append(report(1))
    storage.create("_log/000001/00000002.json", data)
    with pytest.raises(
        StoppedError, match=r"_log/000001/00000002.json is damaged .*; delete it, and _SUCCESS"
    ) as caught:
        read_reports(storage)
    assert "\n" not in str(caught.value)


def test_a_damaged_opening_is_named(storage: LocalStorage) -> None:
    with Journal(storage) as journal:
        journal.append(report(1))
    assert newest(storage) == Opening(1, journal._token, newest(storage).driver, {})  # type: ignore[union-attr]
    for data in (b"", b"[]", b'{"adopted": 1}', b'{"adopted": {"a": 1}}'):
        storage.publish(name_of(1, 0), lambda file, data=data: file.write(data))  # type: ignore[misc]
        with pytest.raises(StoppedError, match=r"_log/000001/00000000.json is damaged"):
            read_reports(storage)
    storage.delete(name_of(1, 0))
    with Journal(storage) as journal:
        assert journal.adopted == {}
        journal.append(report(2))
    assert list(read_reports(storage)) == [2]
