"""`pack` on a CSV: types, ids, verbatim cells, and rows that do not fit."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from poolscore.engine.errors import ConfigError
from poolscore.jobs.pack import pack, table


def packed(tmp_path: Path, text: str | bytes, name: str = "t.csv", **options: Any) -> pa.Table:
    data = text.encode() if isinstance(text, str) else text
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    pack(tmp_path / name, tmp_path / "pool", overwrite=True, **options)
    return pq.read_table(tmp_path / "pool")


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "T.CSV"])
def test_types_are_inferred_and_rows_numbered(tmp_path: Path, name: str) -> None:
    rows = packed(tmp_path, 'a,b,text\n1,0.5,"x, y\nz"\n2,,ü\n', name)
    assert rows.to_pydict() == {"id": [0, 1], "a": [1, 2], "b": [0.5, None], "text": ["x, y\nz", "ü"]}
    assert rows.schema.types == [pa.int64(), pa.int64(), pa.float64(), pa.string()]


def test_cells_that_look_like_formulas_are_kept_verbatim(tmp_path: Path) -> None:
    cells = ["=1+1", "+cmd", "-x", "@SUM(A1)", "\tx", "NA", ""]
    rows = packed(tmp_path, "text,n\n" + "".join(f"{cell},1\n" for cell in cells))
    assert rows["text"].to_pylist() == cells


@pytest.mark.parametrize(
    ("text", "options", "ids"),
    [
        ("n,id\n1,7\n2,9\n", {}, [7, 9]),
        ("id,n\na7,1\nb9,2\n", {}, ["a7", "b9"]),
        ("uuid,id\n5,7\n6,9\n", {"id_column": "uuid"}, [5, 6]),
        ("id,n\n18446744073709551615,1\n2,2\n", {}, ["18446744073709551615", "2"]),
        ("id,n\n2024-01-01,1\n2024-01-02,2\n", {}, ["2024-01-01", "2024-01-02"]),
        ("id,n\n007,1\n08,2\n", {"text_columns": ["id"]}, ["007", "08"]),
    ],
)
def test_the_id_column_is_int64_or_string(tmp_path: Path, text: str, options: dict[str, Any], ids: list[Any]) -> None:
    assert packed(tmp_path, text, **options)[options.get("id_column", "id")].to_pylist() == ids


def test_a_column_named_otherwise_gets_row_numbers_under_the_asked_name(tmp_path: Path) -> None:
    assert packed(tmp_path, "id\n5\n", id_column="row").to_pydict() == {"row": [0], "id": [5]}


def test_types_widen_when_later_blocks_do_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "BLOCK_BYTES", 64)
    head = "i,s,n,id\n" + "".join(f"{k},{k},,{k}\n" for k in range(50))
    rows = packed(tmp_path, head + "1.5,zwei,late,0x\n")
    assert rows.schema.types == [pa.float64(), pa.string(), pa.string(), pa.string()]
    assert rows.slice(50).to_pylist() == [{"i": 1.5, "s": "zwei", "n": "late", "id": "0x"}]
    assert rows["id"].to_pylist()[:3] == ["0", "1", "2"]
    assert rows["n"].to_pylist()[0] == ""


def test_row_numbers_go_on_over_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "BLOCK_BYTES", 64)
    rows = packed(tmp_path, "n\n" + "".join(f"{k}\n" for k in range(200)))
    assert rows["id"].to_pylist() == rows["n"].to_pylist() == list(range(200))


@pytest.mark.parametrize(
    ("name", "text", "options"),
    [("t.tsv", "a\tb\n1\tx\n", {}), ("t.csv", "a;b\n1;x\n", {"delimiter": ";"}), ("t.tsv.gz", "a\tb\n1\tx\n", {})],
)
def test_delimiters(tmp_path: Path, name: str, text: str, options: dict[str, Any]) -> None:
    assert packed(tmp_path, text, name, **options).to_pylist() == [{"id": 0, "a": 1, "b": "x"}]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("a,b\n1,2\n3\n", {}, r"t.csv, row 3 \(the header is row 1\): Expected 2 columns, got 1"),
        ("a,b\n" + "1,2\n" * 40 + "1,2,3\n", {}, "row 42 .*got 3"),
        ("", {}, "is empty"),
        ("a,b\n", {}, "no rows"),
        ("a,a\n1,2\n", {}, "'a' more than once"),
        ("a,b\n1,2\n", {"delimiter": ""}, "one ASCII character"),
        ("a,b\n1,2\n", {"delimiter": "::"}, "one ASCII character"),
        ("a,b\n1,2\n", {"text_columns": ["c"]}, "no column 'c'"),
        (b"a,b\n1,\xff\n", {}, "'b' of .* not UTF-8"),
        (b"a,\xff\n1,2\n", {}, "cannot be read as CSV"),
        (b"a,b\n" + b"1,x\n" * 40 + b"1,\xff\n", {}, "row 42 .*UTF8"),
        ('a,b\n1,"x\n2,y\n3,z\n', {}, "never closed"),
    ],
)
def test_wrong_csv_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | bytes, options: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr(table, "BLOCK_BYTES", 64)
    with pytest.raises(ConfigError, match=message) as error:
        packed(tmp_path, text, **options)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "pool").exists()


@pytest.mark.parametrize("text", ['a,b\n1,"x\n"\n', 'a,b\n1,"x\ny"', 'a,b\n1,"x\n"\r\n\r\n'])
def test_a_last_cell_with_line_breaks_is_fine_when_its_quote_is_closed(tmp_path: Path, text: str) -> None:
    assert packed(tmp_path, text).num_rows == 1


def test_truncated_gzip_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b"a\n" + b"1\n" * 500)[:-9])
    with pytest.raises(ConfigError, match="cannot be read as CSV"):
        pack(tmp_path / "t.csv.gz", tmp_path / "pool")


def test_odd_column_names_survive(tmp_path: Path) -> None:
    assert packed(tmp_path, ",a.b,c d\n0,1,x\n").to_pylist() == [{"id": 0, "": 0, "a.b": 1, "c d": "x"}]
