"""`doctor`: what it finds in pools in good and bad shape, and that `pack` mends it."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from poolscore.engine.errors import ConfigError
from poolscore.engine.pool import health
from poolscore.jobs.cli import app
from poolscore.jobs.doctor import examine, sample
from poolscore.jobs.pack import pack


def photo(seed: int, kind: str = "JPEG", size: tuple[int, int] = (40, 30), mode: str = "RGB", **save: Any) -> bytes:
    out = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(out, kind, **save)
    return out.getvalue()


def photos(rows: int, size: tuple[int, int] = (40, 30)) -> pa.Table:
    return pa.table({"id": [f"r{n}" for n in range(rows)], "image": [photo(n, size=size) for n in range(rows)]})


def well(path: Path, table: pa.Table, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, compression="none", use_dictionary=False, **options)


def kinds(pool: Path, **options: Any) -> list[str]:
    return [finding.kind for finding in examine(str(pool), **options).findings]


def test_a_pool_in_good_shape(tmp_path: Path) -> None:
    well(tmp_path / "in/a.parquet", photos(60), row_group_size=25)
    found = examine(str(tmp_path / "in"))
    about = found.to_dict()
    assert about["findings"] == []
    assert (about["rows"], about["files"], about["row_groups"]) == (60, 1, 3)
    assert about["row_group_rows"] == (10, 25, 25)
    assert about["bytes"] == (tmp_path / "in/a.parquet").stat().st_size
    assert about["pictures"]["image"]["formats"] == {"JPEG": 60}
    assert about["pictures"]["image"]["widths"] == (40, 40, 40)
    assert about["ids"] == {"rows": 60, "whole": True, "repeated": 0, "example": "", "nulls": 0}
    text = str(found)
    assert text.endswith("nothing to mend")
    assert "60 rows in 1 file, " in text
    assert "sample of image: 60 rows: 60 JPEG; 40x30 px" in text


def test_bad_shape_is_found_and_the_advised_command_mends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "HUGE_GROUP", 500_000)
    table = photos(400, (120, 90))  # larger ones, as tiny JPEGs are all the same headers
    pool = tmp_path / "in"
    pool.mkdir()
    pq.write_table(table.slice(0, 300), pool / "0.parquet", compression="snappy")
    for number in range(20):
        pq.write_table(table.slice(300 + 5 * number, 5), pool / f"1-{number:02d}.parquet", compression="snappy")
    found = examine(str(pool))
    assert [finding.kind for finding in found.findings] == [
        "huge_row_groups",
        "compressed_twice",
        "dictionary_encoded",
        "tiny_files",
    ]
    assert all(f"`poolscore pack {pool} NEW`" in finding.advice for finding in found.findings)
    pack(pool, tmp_path / "new", row_group_bytes=450_000)
    assert kinds(tmp_path / "new") == []
    assert pq.read_table(tmp_path / "new").to_pydict() == table.to_pydict()


def test_odd_turned_large_and_broken_pictures(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    grey16 = io.BytesIO()
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(grey16, "PNG")
    values = [photo(n, size=(600, 520)) for n in range(6)]
    values += [photo(7, mode="CMYK"), photo(8, "PNG", mode="P"), photo(9, exif=exif), grey16.getvalue(), b"", None]
    values += [photo(10)[:100], b"no picture"]
    well(tmp_path / "a.parquet", pa.table({"id": range(len(values)), "pic": values}))
    found = examine(str(tmp_path / "a.parquet"))
    assert [finding.kind for finding in found.findings] == ["rejected_pictures", "turned_pictures", "large_pictures"]
    rejected, _, large = found.findings
    assert "5 of 14 sampled rows of 'pic' cannot be decoded" in rejected.what
    assert rejected.where == "9, 10, 11"
    assert large.advice.endswith("NEW --resize SIDE --image-column pic`")
    about = found.to_dict()["pictures"]["pic"]
    assert about["odd"] == {"CMYK": 1, "P": 1, "I;16": 1}
    assert (about["nulls"], about["empty"], about["turned"]) == (1, 1, 1)
    assert "of odd kinds 1 CMYK" in str(found)


def test_pictures_without_a_header_are_named(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(40):
        (tmp_path / "in" / f"{number:02d}.jpg").write_bytes(b"no picture" if number % 9 == 5 else photo(number))
    pack(tmp_path / "in", tmp_path / "pool", row_group_rows=10)
    (rejected, unread) = examine(str(tmp_path / "pool")).findings[::-1]
    assert unread.what == "4 pictures without a readable header (null in 'width')"
    assert unread.where == rejected.where == "05.jpg, 14.jpg, 23.jpg"
    packed = pq.read_table(tmp_path / "pool").drop_columns(["id"])
    well(tmp_path / "nameless/a.parquet", packed.slice(0, 8))
    well(tmp_path / "nameless/b.parquet", packed.slice(8), row_group_size=5)
    where = {finding.kind: finding.where for finding in examine(str(tmp_path / "nameless")).findings}
    assert where["no_header"] == where["rejected_pictures"] == "a.parquet#5, b.parquet#6, b.parquet#15"


def test_advised_commands_work_as_they_stand(tmp_path: Path) -> None:
    pool = tmp_path / "my pool"
    for n in range(20):
        image = {"bytes": photo(n, size=(600, 520)), "path": None}
        table = pa.table({"id": [str(n)], "image": [image]} if n else {"id": ["0"], "image": [image], "more": [1]})
        well(pool / f"day={n}" / "a.parquet", table)
    findings = {finding.kind: finding.advice for finding in examine(str(pool)).findings}
    again = f"give all files the same columns and types, then repack it: `poolscore pack '{pool}' NEW`"
    assert findings["tiny_files"] == again
    assert findings["large_pictures"].endswith("store smaller ones")
    well(pool / "day=0" / "a.parquet", table)
    assert examine(str(pool)).findings[0].advice == again.partition("then ")[2]
    pack(pool, tmp_path / "new")
    assert "tiny_files" not in kinds(tmp_path / "new")


def test_ids(tmp_path: Path) -> None:
    table = photos(30)
    twice = pa.concat_tables([table, table.slice(0, 4)])
    well(tmp_path / "in/a.parquet", twice, row_group_size=10)
    (finding,) = examine(str(tmp_path / "in")).findings
    assert finding.kind == "repeated_ids"
    assert finding.what.startswith("4 of 34 ids repeat another, such as 'r")
    assert kinds(tmp_path / "in", id_column="key") == ["no_ids"]
    well(tmp_path / "in/a.parquet", pa.table({"id": pa.array(["a", None, None]).dictionary_encode()}))
    assert kinds(tmp_path / "in") == ["null_ids"]


def test_ids_of_a_large_pool_are_sampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample, "ID_ROWS", 50)
    well(tmp_path / "a.parquet", pa.table({"id": range(1000)}), row_group_size=10)
    ids = examine(str(tmp_path / "a.parquet")).ids
    assert ids is not None
    assert (ids.rows, ids.whole) == (50, False)


def test_files_that_cannot_be_read_and_differing_schemas(tmp_path: Path) -> None:
    well(tmp_path / "in/a.parquet", photos(5))
    well(tmp_path / "in/b.parquet", photos(5).append_column("more", pa.array(range(5))))
    (tmp_path / "in/c.parquet").write_bytes(b"PAR1")
    found = examine(str(tmp_path / "in"))
    assert [finding.kind for finding in found.findings] == ["unreadable_files", "differing_schemas", "repeated_ids"]
    assert found.findings[0].where == "c.parquet"


def test_rows_that_cannot_be_read_are_a_finding(tmp_path: Path) -> None:
    well(tmp_path / "a.parquet", photos(50))
    data = bytearray((tmp_path / "a.parquet").read_bytes())
    at = pq.read_metadata(tmp_path / "a.parquet").row_group(0).column(1).data_page_offset
    data[at : at + 40] = b"\xff" * 40
    (tmp_path / "a.parquet").write_bytes(data)
    assert "unreadable_rows" in kinds(tmp_path / "a.parquet")


def test_nothing_that_can_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing at"):
        examine(str(tmp_path / "none"))
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(ConfigError, match=r"1 of them cannot be read \(first: a.parquet\)"):
        examine(str(tmp_path / "a.parquet"))


def test_the_command(tmp_path: Path) -> None:
    well(tmp_path / "a.parquet", pa.concat_tables([photos(5), photos(5)]))
    result = CliRunner().invoke(app, ["doctor", str(tmp_path / "a.parquet")])
    assert result.exit_code == 0
    assert "- 5 of 10 ids repeat another" in result.output
    result = CliRunner().invoke(app, ["doctor", str(tmp_path / "a.parquet"), "--json", "--rows", "3"])
    about = json.loads(result.output)
    assert [finding["kind"] for finding in about["findings"]] == ["repeated_ids"]
    assert about["pictures"]["image"]["rows"] == 3


def test_neither_torch_nor_ray_is_needed(tmp_path: Path) -> None:
    well(tmp_path / "a.parquet", photos(5))
    code = (
        "import sys; from poolscore.jobs.doctor import examine; examine(sys.argv[1]); "
        "assert not {'torch', 'ray'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.parquet")], check=True)


def test_files_with_other_columns_are_told_of_and_rows_all_over_a_large_row_group_are_looked_at(tmp_path: Path) -> None:
    picture = io.BytesIO()
    Image.new("RGB", (9, 7)).save(picture, "PNG")
    images = [picture.getvalue()] * 1000
    images[900:] = [b"broken"] * 100
    pool = tmp_path / "pool"
    pool.mkdir()
    pq.write_table(pa.table({"id": range(1000), "image": images}), pool / "a.parquet")
    pq.write_table(pa.table({"id": range(5)}), pool / "b.parquet")
    found = examine(str(pool))
    pictures = found.pictures["image"]
    assert 0 < pictures.rejected.total() < pictures.rows / 5
    assert any(finding.kind == "differing_schemas" for finding in found.findings)
