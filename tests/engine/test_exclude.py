"""Ids that are labelled already, in the forms that people keep them in."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from poolscore.engine.errors import ConfigError
from poolscore.engine.exclude import digest_of, read_ids


def parquet(folder: Path, **columns: object) -> str:
    pq.write_table(pa.table(columns), folder / "ids.parquet")
    return str(folder / "ids.parquet")


def text(folder: Path, content: str, name: str = "ids.csv") -> str:
    data = content.encode()
    (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return str(folder / name)


def test_no_file_has_no_ids() -> None:
    assert len(read_ids(None, "id")) == 0


def test_the_column_is_the_pools_own_then_id_then_the_only_one(tmp_path: Path) -> None:
    path = parquet(tmp_path, uuid=["a"], id=["b"], other=["c"])
    assert read_ids(path, "uuid").sorted() == [b"a"]
    assert read_ids(path, "name").sorted() == [b"b"]
    assert read_ids(path, None).sorted() == [b"b"]
    assert read_ids(parquet(tmp_path, row=["a#1", None, "a#1"]), None).sorted() == [b"a#1"]
    with pytest.raises(ConfigError, match=r"has no column 'uuid'; it has: x, y"):
        read_ids(parquet(tmp_path, x=[1], y=[2]), "uuid")


def test_only_the_column_of_ids_is_read(tmp_path: Path) -> None:
    pictures = pa.array([bytes(1000)] * 3)
    path = Path(parquet(tmp_path, id=[1, 2, 3], image=pictures))
    data = bytearray(path.read_bytes())
    column = pq.read_metadata(path).row_group(0).column(1)
    data[column.data_page_offset : column.data_page_offset + 8] = bytes(8)
    path.write_bytes(data)
    assert read_ids(str(path), "id").sorted() == [b"1", b"2", b"3"]


@pytest.mark.parametrize("name", ["ids.csv", "IDS.CSV", "ids.txt", "ids.csv.gz"])
def test_a_csv_is_read_as_text(tmp_path: Path, name: str) -> None:
    path = text(tmp_path, "id,label\n007,1\nNA,2\n1e3,3\n", name)
    assert read_ids(path, "id").sorted() == [b"007", b"1e3", b"NA"]


def test_integers_are_the_same_ids_in_csv_and_parquet(tmp_path: Path) -> None:
    assert digest_of(read_ids(text(tmp_path, "id\n17\n2\n"), "id")) == digest_of(
        read_ids(parquet(tmp_path, id=pa.array([2, 17, 17], pa.uint64())), "id")
    )


def test_the_first_line_of_a_csv_without_header_is_an_id(tmp_path: Path) -> None:
    assert read_ids(text(tmp_path, "d1\nd2\n"), "id").sorted() == [b"d1", b"d2"]
    assert read_ids(text(tmp_path, "uuid\nd2\n"), "uuid").sorted() == [b"d2"]


def test_the_digest_knows_the_set_alone(tmp_path: Path) -> None:
    one = digest_of(read_ids(text(tmp_path, "id\na\nb\n"), "id"))
    assert one == digest_of(read_ids(text(tmp_path, "id\nb\na\nb\n"), "id"))
    assert one != digest_of(read_ids(text(tmp_path, "id\na\n"), "id"))
    assert one != digest_of(read_ids(None, "id"))


@pytest.mark.parametrize("content", ["", "\n", "id,x\n1\n", "\x00\x01"])
def test_a_broken_csv_is_refused_by_name(tmp_path: Path, content: str) -> None:
    path = text(tmp_path, content)
    with pytest.raises(ConfigError, match=r"^pool.exclude: .*ids.csv") as caught:
        read_ids(path, "id")
    assert "\n" not in str(caught.value)


def test_other_files_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--exclude: there is no file .*none.parquet"):
        read_ids(str(tmp_path / "none.parquet"), "id", "--exclude")
    with pytest.raises(ConfigError, match=r"there is no file .*none.csv"):
        read_ids(str(tmp_path / "none.csv"), "id")
    (tmp_path / "ids.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(ConfigError, match=r"ids.parquet cannot be read as Parquet or CSV"):
        read_ids(str(tmp_path / "ids.parquet"), "id")
    with pytest.raises(ConfigError, match=r"pool.exclude column 'id' has type double"):
        read_ids(parquet(tmp_path, id=[1.5]), "id")


@pytest.mark.parametrize("content", ["id\nzwölf\n", "id,label\na,1\n"])
def test_another_encoding_is_refused_by_name(tmp_path: Path, content: str) -> None:
    (tmp_path / "ids.csv").write_bytes(content.encode("utf-16"))
    with pytest.raises(ConfigError, match=r"^pool.exclude: .*ids.csv") as caught:
        read_ids(str(tmp_path / "ids.csv"), "id")
    assert "\n" not in str(caught.value)


def test_text_that_is_none_is_refused_by_column(tmp_path: Path) -> None:
    spoilt = pa.array([b"a", b"\xff"], pa.binary()).cast(pa.string(), safe=False)
    with pytest.raises(ConfigError, match=r"pool.exclude column 'id' is not valid UTF-8"):
        read_ids(parquet(tmp_path, id=spoilt), "id")


def test_what_was_handed_over_is_known_by_its_file_or_folder(tmp_path: Path) -> None:
    (tmp_path / "sent").mkdir()
    (tmp_path / "sent/tasks.json").write_text(json.dumps({"id_type": "string", "tasks": {"id": ["a", "b"]}}))
    for path in ("sent", "sent/tasks.json"):
        assert read_ids(str(tmp_path / path), "id").sorted() == [b"a", b"b"]
