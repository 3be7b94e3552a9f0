"""Reports on other pools than digits, and the bounds of a page."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from report_workshop import (
    Elements,
    Workshop,
    copied,
    drawn_rows,
    encoded,
    features_pool,
    finished_run,
    lose_shards,
    page_of,
    require_harmless,
)

from poolscore.engine import RunDirectory, score_pool
from poolscore.engine.config import ImageDecode
from poolscore.jobs.report import balance, pool_rows, rejected, summary
from poolscore.jobs.report.distribution import BINS, FINE, Spread
from poolscore.jobs.report.histogram import svg
from poolscore.jobs.report.pictures import FRAME, thumbnail
from poolscore.jobs.report.text import column_texts, duration, esc, number, percent, shortened, size


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def whole(workshop: Workshop) -> RunDirectory:
    return finished_run(workshop)


# -- other pools


def test_a_pool_of_features_is_shown_as_a_table(workshop: Workshop) -> None:
    ids = pa.array([b"\xff\x00" + bytes([i]) for i in range(120)], pa.binary())
    when = pa.array(range(120), pa.timestamp("ns"))
    pool = features_pool(workshop.root / "features", id=ids, when=when, tags=[["a", "b"]] * 120)
    config = workshop.table_config(pool, "features-run", pool={"keep": ["when", "tags"]})
    score_pool(config)
    page = require_harmless(page_of(config.run.dir))
    assert not page.all("img")
    selection = pq.read_table(Path(config.run.dir) / "selection.parquet")
    assert f"1 0x{selection['id'][0].as_py().hex()} " in page.text
    assert "rank id score prediction confidence votes entropy expected x y z when tags " in page.text
    inputs = pq.read_table(pool).slice(selection["row_id"][0].as_py(), 1).select(["x", "y", "z"]).to_pylist()[0]
    assert " ".join(number(inputs[name]) for name in "xyz") in page.text
    assert "1970-01-01 00:00:00.0000000" in page.text
    assert "['a', 'b']" in page.text
    assert "class 0" in page.text
    assert "Rows that could not be scored" not in page.text


@pytest.mark.parametrize(("outputs", "noise"), [(2, False), (2, True)])
def test_regression_has_outputs_instead_of_classes(workshop: Workshop, outputs: int, noise: bool) -> None:
    pool = features_pool(workshop.root / f"numbers-{noise}")
    model = {"task": "regression", "classes": outputs // 2 if noise else outputs, "predicts_noise": noise}
    config = workshop.table_config(pool, f"numbers-run-{noise}", model=model)
    score_pool(config)
    page = require_harmless(page_of(config.run.dir))
    assert "Predictive variance (squared units of the output)" in page.text
    assert "Predicted classes" not in page.text
    assert "confidence" not in page.text
    first = pq.read_table(Path(config.run.dir) / "selection.parquet")["prediction"][0].as_py()
    assert f" {number(first) if noise else ', '.join(map(number, first))} " in page.text


def test_an_empty_batch_has_no_cut_off(workshop: Workshop) -> None:
    pool = features_pool(workshop.root / "none")
    config = workshop.table_config(pool, "none-run")
    config = config.model_copy(update={"select": config.select.model_copy(update={"k": 0})})
    score_pool(config)
    html = page_of(config.run.dir)
    assert sum(drawn_rows(html)) == 120
    assert "No rows to label" in html
    assert '<line class="cutoff"' not in html
    assert "poolscore select" not in html


@pytest.mark.parametrize("id_column", ["id", None])
def test_pictures_out_of_a_row_group_of_many_shards(workshop: Workshop, id_column: str | None) -> None:
    pool = workshop.digits(f"huge-{id_column}")
    for part in sorted(pool.iterdir()):
        pq.write_table(pq.read_table(part), part)  # one row group of 200 rows each, cut into ranges of 40
    config = workshop.config(pool, f"huge-run-{id_column}", pool={"id": id_column})
    config = config.model_copy(update={"run": config.run.model_copy(update={"shard_rows": 40})})
    score_pool(config)
    images = require_harmless(page_of(config.run.dir)).all("img")
    original = pq.read_table(pool)["image"].to_pylist()
    row_ids = pq.read_table(Path(config.run.dir) / "selection.parquet")["row_id"].to_pylist()
    assert [image["src"] for image in images] == [
        thumbnail(original[row_id], ImageDecode(mode="L")).uri for row_id in row_ids
    ]


def test_many_large_pictures_stay_small(workshop: Workshop) -> None:
    noise = np.random.default_rng(1)
    pictures = [encoded(noise.integers(0, 255, (96, 128, 3), dtype=np.uint8), "JPEG") for _ in range(220)]
    pool = workshop.root / "colour"
    pool.mkdir()
    names = ["x" * 5000 + str(i) for i in range(220)]
    struct = [{"bytes": data, "path": None} for data in pictures]  # as Hugging Face writes them
    pq.write_table(pa.table({"id": names, "image": struct, "keep": names}), pool / "a.parquet", row_group_size=64)
    model = {"args": {"channels": 3, "pixels": 128 * 96}, "weights": str(workshop.root / "colour.pt")}
    config = workshop.config(pool, "colour-run", 210, pool={"decode": {"mode": "RGB"}, "keep": ["keep"]}, model=model)
    score_pool(config)
    html = page_of(config.run.dir)
    images = require_harmless(html).all("img")
    assert len(images) == 210
    assert all(str(image["src"]).startswith("data:image/jpeg") for image in images)
    assert {(image["width"], image["height"]) for image in images} == {("96", "72")}
    assert len(html) < 4_000_000


# -- bounds


def test_long_lists_are_cut_and_counted(whole: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = copied(whole, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "shortlist")
    monkeypatch.setattr(rejected, "REASONS", 1)
    monkeypatch.setattr(balance, "CLASSES", 3)
    monkeypatch.setattr(pool_rows, "MOST_BYTES", 1)
    page = require_harmless(page_of(run))
    assert "and 1 row for one more reason." in page.text
    assert "and 7 more." in page.text
    assert "No pictures: more than 0 GiB of the pool would have to be read." in page.text


def test_reasons_beyond_a_number_are_counted_together(whole: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rejected, "DISTINCT", 1)
    assert "1 other reasons row-5 " in Elements(page_of(whole)).text


def test_many_shards_that_were_set_aside(whole: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = copied(whole, tmp_path / "run")
    lose_shards(run, 2)
    run.update(status="incomplete", set_aside={str(shard): "<b>" for shard in range(4)})  # two of them scored since
    monkeypatch.setattr(summary, "NAMED", 1)
    page = require_harmless(page_of(run))
    assert page.text.count("): <b>") == 1
    assert "and 1 more; all are in run.json" in page.text


def test_two_names_name_the_sides_of_one_logit(workshop: Workshop) -> None:
    pool = features_pool(workshop.root / "sides")
    for names, shown in ((["cat", "dog"], "cat"), (["dog"], "class 0")):
        model = {"task": "binary", "classes": names, "args": {"outputs": 1}, "weights": str(workshop.root / "side.pt")}
        config = workshop.table_config(pool, f"sides-{len(names)}", model=model)
        score_pool(config)
        assert f" {shown} " in Elements(page_of(config.run.dir)).text


# -- small parts


def spread_of(values: NDArray[np.float32], low: float, high: float) -> Spread:
    spread = Spread(low, high, np.zeros(BINS * FINE, np.int64), np.zeros(BINS, np.int64))
    for block in np.array_split(values, 3):
        spread.add(block)
    return spread


@pytest.mark.parametrize("rows", [1, 2, 3, 1000])
def test_a_spread_agrees_with_numpy(rows: int) -> None:
    values = np.random.default_rng(rows).gamma(2.0, 0.2, rows).astype(np.float32)
    spread = spread_of(np.append(values, [np.nan, np.inf]).astype(np.float32), 0.0, float(values.max()))
    assert spread.rows == rows
    assert spread.mean == pytest.approx(values.astype(np.float64).mean())
    assert (spread.least, spread.most) == (values.min(), values.max())
    assert spread.median == pytest.approx(np.median(values), abs=0.2 if rows == 2 else 0.02)
    np.testing.assert_array_equal(spread.drawn, np.histogram(values, BINS, (0.0, float(values.max())))[0])


def test_scores_that_are_all_the_same_can_be_drawn() -> None:
    spread = spread_of(np.zeros(10, np.float32), 0.0, 1.0)
    assert spread.median == 0.0
    assert drawn_rows(svg("bald", spread, 0.0, 3) + "<details>") == [10]


def test_values_become_text() -> None:
    assert column_texts(pa.chunked_array([pa.array([1.23456, None])])) == ["1.235", "–"]
    assert column_texts(pa.chunked_array([pa.array([b"\x00\xff"])])) == ["0x00ff"]
    assert column_texts(pa.chunked_array([pa.array(["a", "b"]).dictionary_encode()])) == ["a", "b"]
    broken = pa.array([b"\xffx", "é".encode()]).view(pa.string())  # a file may call anything text
    assert column_texts(pa.chunked_array([broken])) == ["0xff78", "é"]
    assert column_texts(pa.chunked_array([pc.cast(pa.array(["é"]), pa.large_string())])) == ["é"]
    nested = pa.ListArray.from_arrays([0, 1], broken.slice(0, 1))
    assert column_texts(pa.chunked_array([nested])) == ["(not valid text)"]
    assert esc("<a href='x'>\n") == "&lt;a href=&#x27;x&#x27;&gt; "
    assert shortened("abcdefghij", 7) == "abcd…ij"
    assert [number(v) for v in (0.0, 0.63, 1234.4, 1e7, float("nan"))] == ["0", "0.6300", "1234", "1.000e+07", "nan"]
    shares = [percent(a, b).replace("\xa0", " ") for a, b in ((0, 5), (1, 5), (1, 10**6), (1, 0))]
    assert shares == ["0.0 %", "20.0 %", "< 0.1 %", "–"]
    times = [duration(s).replace("\xa0", " ") for s in (0.41, 42.4, 200, 25_500)]
    assert times == ["0.41 s", "42 s", "3 min 20 s", "7 h 05 min"]
    sizes = [size(n).replace("\xa0", " ") for n in (12, 160_000, 2_400_000_000, 3 * 10**15)]
    assert sizes == ["12 bytes", "160 kB", "2.4 GB", "3000.0 TB"]


@pytest.mark.parametrize(("shape", "shown"), [((8, 8), (96, 96)), ((200, 400), (96, 48))])
def test_thumbnails_of_grey_pictures(shape: tuple[int, int], shown: tuple[int, int]) -> None:
    picture = thumbnail(encoded(np.zeros(shape, np.uint8)), ImageDecode(mode="L"))
    assert picture.uri.startswith("data:image/jpeg;base64,")
    assert (picture.width, picture.height) == shown
    assert max(shown) <= FRAME
