"""The report of real runs: what it says, that it is whole in itself, and that no value of the pool becomes markup."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image

from poolscore.engine import ConfigError, InterruptedRun, RunDirectory, parse_config, score_pool
from poolscore.engine.prepare import prepare
from poolscore.jobs.report import write_report
from poolscore.jobs.report.distribution import BINS, FINE, Spread
from poolscore.jobs.report.histogram import svg
from poolscore.jobs.report.pictures import EDGE, thumbnail
from poolscore.jobs.report.text import column_texts, duration, esc, number, percent, shortened, size

NETS = """
import numpy as np
from torch import nn

def pictures(channels=1, pixels=144, classes=10):
    first = nn.Linear(channels * pixels, 16)
    return nn.Sequential(nn.Flatten(), first, nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, classes))

def table(inputs=3, outputs=2):
    return nn.Sequential(nn.Linear(inputs, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, outputs))

def strict(value):
    if value is None or value < 0:
        raise ValueError("<img src=x onerror=alert(1)> is no & number")
    return np.array([value, value * 2, 1.0], dtype=np.float32)
"""
SEGMENTS = ("abcdef", "bc", "abdeg", "abcdg", "bcfg", "acdfg", "acdefg", "abc", "abcdefg", "abcdfg")
STROKES = {"a": (1, 2, 3, 9), "b": (2, 6, 8, 9), "c": (6, 10, 8, 9), "d": (9, 10, 3, 9), "e": (6, 10, 3, 4)}
STROKES |= {"f": (2, 6, 3, 4), "g": (5, 6, 3, 9)}  # top, bottom, left, right; pixels
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</title></style><svg/onload=alert(1)>",
    "' onmouseover='alert(1)",
    "javascript:alert(1)",
    "&lt;b&gt; &amp;",
    "\u202egnp.exe \x00\x1b[31m",
    "https://example.com/" + "x" * 3000,
]


def digit(number: int, noise: np.random.Generator) -> NDArray[np.uint8]:
    """A 12 × 12 seven-segment digit."""
    pixels = noise.integers(0, 60, (12, 12), dtype=np.uint8)
    for segment in SEGMENTS[number]:
        top, bottom, left, right = STROKES[segment]
        pixels[top:bottom, left:right] = noise.integers(180, 255)
    return pixels


def encoded(pixels: NDArray[np.uint8], kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind)
    return out.getvalue()


class Workshop:
    """A folder with the networks' module and seeded weights, in which pools are written and scored."""

    def __init__(self, root: Path) -> None:
        import torch

        self.root = root
        (root / "report_test_nets.py").write_text(NETS)
        sys.path.append(str(root))
        import report_test_nets as nets  # type: ignore[import-not-found]

        torch.manual_seed(0)
        for name, module in {
            "digits": nets.pictures(),
            "colour": nets.pictures(3, 128 * 96),
            "table": nets.table(),
        }.items():
            torch.save(module.state_dict(), root / f"{name}.pt")

    def digits(self, name: str, rows: int = 400, **columns: Any) -> Path:
        """A pool of digits in two files, with row groups of 50."""
        noise = np.random.default_rng(7)
        pictures: list[bytes | None] = [encoded(digit(i % 10, noise)) for i in range(rows)]
        for i in range(0, rows, 57):
            pictures[i] = b"no picture"
        pictures[5] = None
        table = pa.table({"id": [f"row-{i}" for i in range(rows)], "image": pa.array(pictures, pa.binary()), **columns})
        pool = self.root / name
        pool.mkdir()
        for part, start in (("a", 0), ("b", rows // 2)):
            pq.write_table(table.slice(start, rows // 2), pool / f"{part}.parquet", row_group_size=50)
        return pool

    def config(self, uri: Path, run: str, k: int = 40, /, **changes: dict[str, Any]) -> Any:
        model = {"source": "report_test_nets:pictures", "path": str(self.root), "weights": str(self.root / "digits.pt")}
        data: dict[str, dict[str, Any]] = {
            "pool": {"uri": str(uri), "input": "image", "decode": {"mode": "L"}, "id": "id"},
            "model": {**model, "task": "multiclass", "classes": 10},
            "passes": {"count": 5},
            "select": {"k": k},
            "run": {"dir": str(self.root / run), "executor": "local", "shard_rows": 100, "max_bad_fraction": 0.5},
        }
        return parse_config({key: {**data[key], **changes.get(key, {})} for key in data})

    def table_config(self, uri: Path, run: str, /, **changes: dict[str, Any]) -> Any:
        model = {"source": "report_test_nets:table", "weights": str(self.root / "table.pt"), "classes": 2}
        columns = {"input": ["x", "y", "z"], "decode": {"kind": "features"}}
        return self.config(
            uri, run, 10, pool={**columns, **changes.get("pool", {})}, model={**model, **changes.get("model", {})}
        )


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def whole(workshop: Workshop) -> RunDirectory:
    """A finished run of digits with bad rows; tests copy it before they change it."""
    pool = workshop.digits("digits pool", label=pa.array([i % 10 for i in range(400)]))
    names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    score_pool(workshop.config(pool, "whole", pool={"keep": ["label"]}, model={"classes": names}))
    return RunDirectory(str(workshop.root / "whole"))


def page_of(run: RunDirectory | str, images: bool = True) -> str:
    run = RunDirectory(run) if isinstance(run, str) else run
    return Path(write_report(run, images=images)).read_text(encoding="utf-8")


def copied(run: RunDirectory, to: Path) -> RunDirectory:
    shutil.copytree(run.storage.root, to)
    return RunDirectory(str(to))


TAGS = """html head meta title style body main header section h1 h2 p strong small span code pre bdi ul ol li dl dt dd
    div details summary table thead tbody tr th td img svg g rect line text"""
ATTRIBUTES = """lang charset http-equiv content name class id aria-labelledby aria-label role tabindex scope style src
    width height alt x x1 x2 y y1 y2"""


class Elements(HTMLParser):
    """What a browser makes of a page: elements, and the text outside of styles."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._skip = False
        self.feed(html)
        self.close()
        self.text = re.sub(r"\s+", " ", " ".join(self.words))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._skip = tag == "style"
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if not self._skip:
            self.words.append(data)
        self._skip = False

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def require_harmless(html: str) -> Elements:
    """Only known elements and attributes, nothing that loads or runs."""
    page = Elements(html)
    assert {tag for tag, _ in page.elements} <= set(TAGS.split())
    assert {name for _, attributes in page.elements for name in attributes} <= set(ATTRIBUTES.split())
    assert all(str(image["src"]).startswith("data:image/") for image in page.all("img"))
    styles = [str(attributes["style"]) for _, attributes in page.elements if "style" in attributes]
    assert all(re.fullmatch(r"width:\d+\.\d\d%", style) for style in styles)
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert not re.search(r"(src|href)\s*=\s*[\"']?\s*(https?:|//)", html)
    assert "default-src 'none'" in str(page.all("meta")[1]["content"])
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u202a-\u202e\u2066-\u2069]", html)
    return page


def drawn_rows(html: str) -> list[int]:
    """Rows of each bar of the histogram."""
    return [int(rows.replace(",", "")) for rows in re.findall(r"<g><title>[^<]*: ([\d,]+) rows?</title>", html)]


# -- a finished run


def test_the_page_tells_what_the_run_came_to(whole: RunDirectory) -> None:
    html = page_of(whole)
    page = require_harmless(html)
    selection = pq.read_table(whole.storage.path("selection.parquet"))
    totals = whole.totals()
    assert (totals.rejected, totals.scored) == (9, 391)
    assert "The 40 rows most worth labelling" in page.text
    assert "digits pool" in page.text
    assert "391 rows scored 97.8 % of the pool" in page.text
    assert "9 rejected" in page.text
    assert "complete" in page.text
    assert 'class="banner"' not in html
    assert f"cut-off {number(selection['score'][-1].as_py())} nats, row 40" in page.text
    assert "BALD (nats)" in page.text
    assert sum(drawn_rows(html)) == 391
    for name in ("Entropy", "Expected entropy", "Variation ratio", "Mean deviation", "Margin", "Random"):
        assert name in page.text
    assert "poolscore select" in page.text
    assert "--name batch-2 --k 40 --method topk --exclude" in page.text
    assert "report_test_nets:pictures" in page.text
    assert f"threads {whole.info['profile']['threads']}" in page.text


def test_the_part_right_of_the_cut_off_is_the_batch(whole: RunDirectory) -> None:
    html = page_of(whole)
    line = re.search(r'<line class="cutoff" x1="([\d.]+)%"', html)
    assert line is not None
    starts = [float(x) for x in re.findall(r'<rect class="batch" x="([\d.]+)%"', html)]
    ends = [
        float(x) + float(w) for x, w in re.findall(r'<rect class="pool" x="([\d.]+)%"[^>]*? width="([\d.]+)%"', html)
    ]
    assert min(starts) >= float(line[1]) >= max(ends) - 0.01


def test_every_selected_row_has_its_own_picture(whole: RunDirectory) -> None:
    page = require_harmless(page_of(whole))
    selection = pq.read_table(whole.storage.path("selection.parquet")).to_pylist()
    pool = pq.read_table(whole.config.pool.uri)
    original = dict(zip(pool["id"].to_pylist(), pool["image"].to_pylist(), strict=True))
    images = page.all("img")
    assert [image["alt"] for image in images] == [row["id"] for row in selection]
    for image, row in zip(images, selection, strict=True):
        assert image["src"] == thumbnail(original[row["id"]], "L").uri
        assert (image["width"], image["height"], image["class"]) == ("96", "96", "pixelated")
    first = selection[0]
    names = whole.config.model.class_names
    assert names is not None
    assert f"1 {number(first['score'])} {names[first['prediction']]} " in page.text
    assert f"{first['id']} label {first['label']}" in page.text


def test_class_balance_counts_pool_and_batch(whole: RunDirectory) -> None:
    page = Elements(page_of(whole))
    parts = [pq.read_table(whole.storage.path(r.scores), columns=["prediction"]) for r in whole.reports().values()]
    pool = Counter(pa.concat_tables(parts)["prediction"].to_pylist())
    batch = Counter(pq.read_table(whole.storage.path("selection.parquet"))["prediction"].to_pylist())
    names = whole.config.model.class_names
    assert names is not None
    for index, name in enumerate(names):  # those that are never predicted, too
        line = f"{name} {percent(pool[index], 391)} {pool[index]} {percent(batch[index], 40)} {batch[index]} "
        assert line in page.text


def test_rejected_rows_are_named_by_reason(whole: RunDirectory) -> None:
    page = Elements(page_of(whole))
    assert "8 no picture that can be decoded: cannot identify image file decode row-0 , row-57 , row-114 " in page.text
    assert "1 null decode row-5 " in page.text


def test_the_same_run_gives_the_same_page(whole: RunDirectory) -> None:
    assert page_of(whole) == page_of(whole)


def test_without_images_the_batch_is_a_table(whole: RunDirectory) -> None:
    page = require_harmless(page_of(whole, images=False))
    assert not page.all("img")
    assert "rank id score prediction confidence label" in page.text


def test_neither_torch_nor_ray_is_imported(whole: RunDirectory) -> None:
    code = (
        "import sys\n"
        "from poolscore.engine import RunDirectory\n"
        "from poolscore.jobs.report import write_report\n"
        f"write_report(RunDirectory({whole.storage.root!r}))\n"
        "print(sorted({'torch', 'ray', 'triton'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


# -- hostile values


def test_hostile_values_stay_text(workshop: Workshop) -> None:
    rows = 80
    ids = [f"{HOSTILE[i % len(HOSTILE)]}{i}" for i in range(rows)]
    pool = workshop.digits(
        '<b onclick="alert(1)">&amp; pool', rows, id=ids, **{"<keep>": [HOSTILE[i % 7] for i in range(rows)]}
    )
    hostile_classes = [f"{HOSTILE[i % 7]}{i}" for i in range(10)]
    config = workshop.config(pool, "<i>run'\"", pool={"keep": ["<keep>"]}, model={"classes": hostile_classes})
    score_pool(config)
    page = require_harmless(page_of(config.run.dir))
    assert len(page.all("img")) == 40
    assert any(str(image["alt"]).startswith("<script>alert(1)</script>") for image in page.all("img"))
    assert "<keep>" in page.text
    assert "\ufffdgnp.exe \ufffd\ufffd[31m" in page.text
    assert len(page.all("script")) == 0


def test_hostile_reasons_stay_text(workshop: Workshop) -> None:
    pool = workshop.root / "function"
    pool.mkdir()
    table = pa.table({"id": [f"f{i}" for i in range(60)], "value": [float(i % 20) - 1 for i in range(60)]})
    pq.write_table(table, pool / "a.parquet")
    decode = {"kind": "function", "function": "report_test_nets:strict"}
    config = workshop.table_config(pool, "function-run", pool={"input": "value", "decode": decode})
    score_pool(config)
    page = require_harmless(page_of(config.run.dir))
    assert "3 ValueError: <img src=x onerror=alert(1)> is no & number decode f0 , f20 , f40 " in page.text


# -- other pools


def features_pool(folder: Path, rows: int = 120, **columns: Any) -> Path:
    values = np.random.default_rng(3).normal(size=(3, rows)).astype(np.float32)
    folder.mkdir()
    table = pa.table({"id": [f"r{i}" for i in range(rows)], **dict(zip("xyz", values, strict=True)), **columns})
    pq.write_table(table, folder / "a.parquet")
    return folder


def test_a_pool_of_features_is_shown_as_a_table(workshop: Workshop) -> None:
    ids = pa.array([b"\xff\x00" + bytes([i]) for i in range(120)], pa.binary())
    when = pa.array(range(120), pa.timestamp("ns"))
    pool = features_pool(workshop.root / "features", id=ids, when=when, tags=[["a", "b"]] * 120)
    config = workshop.table_config(pool, "features-run", pool={"keep": ["when", "tags"]})
    score_pool(config)
    page = require_harmless(page_of(config.run.dir))
    assert not page.all("img")
    assert "The pool has no pictures to show" in page.text
    selection = pq.read_table(Path(config.run.dir) / "selection.parquet")
    assert f"1 0x{selection['id'][0].as_py().hex()} " in page.text
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
    assert '<line class="cutoff"' not in html
    assert "poolscore select" not in html


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
    assert len(images) == 200
    assert all(str(image["src"]).startswith("data:image/jpeg") for image in images)
    assert {(image["width"], image["height"]) for image in images} == {("96", "72")}
    assert "The first 200 of 210 rows" in html
    assert len(html) < 3_000_000


# -- runs that are not whole


def test_an_interrupted_run_says_so_and_shows_the_best_so_far(workshop: Workshop, whole: RunDirectory) -> None:
    config = workshop.config(Path(whole.config.pool.uri), "interrupted")

    def stop(state: Any) -> None:
        if state.totals.shards == 2:
            raise KeyboardInterrupt

    with pytest.raises(InterruptedRun):
        score_pool(config, on_progress=stop)
    run = RunDirectory(config.run.dir)
    html = page_of(run)
    page = require_harmless(html)
    scored = run.totals().scored
    assert "The run was interrupted and can be resumed." in page.text
    assert "2 of 4 shards have no result: 200 rows, 50.0 % of the pool." in page.text
    assert "The 40 rows most worth labelling so far" in page.text
    assert "not written to the run" in page.text
    assert "poolscore score CONFIG --resume" in page.text
    assert "selection.parquet" not in page.text
    assert not (Path(config.run.dir) / "selection.parquet").exists()
    assert sum(drawn_rows(html)) == scored
    assert len(page.all("img")) == 40


def test_a_run_without_a_finished_shard(whole: RunDirectory, tmp_path: Path) -> None:
    run = copied(whole, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "_log")
    run.update(status="stopped", stopped_by="<disk> full")
    page = require_harmless(page_of(run))
    assert "Nothing is scored yet" in page.text
    assert "Stopped by: <disk> full" in page.text
    assert "4 of 4 shards have no result" in page.text


def test_shards_that_were_set_aside_are_named(workshop: Workshop) -> None:
    pool = workshop.digits("cut pool")
    config = workshop.config(pool, "cut")
    prepared = prepare(config)
    file = pool / "b.parquet"
    file.write_bytes(file.read_bytes()[:-20])
    result = score_pool(config, prepared=prepared)
    assert sorted(result.set_aside) == [2, 3]
    page = require_harmless(page_of(config.run.dir))
    assert "incomplete" in page.text
    assert "Some shards could not be scored. The batch is the best of the rest." in page.text
    assert "Shard 2 (100 rows in b.parquet ): b.parquet cannot be read:" in page.text
    assert "Shard 3 (100 rows in b.parquet ): b.parquet cannot be read:" in page.text
    assert "The 40 rows most worth labelling" in page.text


def test_a_done_run_with_a_lost_record_is_not_called_complete(whole: RunDirectory, tmp_path: Path) -> None:
    run = copied(whole, tmp_path / "run")
    (tmp_path / "run" / "_log" / "000001" / "00000004.json").unlink()
    page = Elements(page_of(run))
    assert "incomplete" in page.text
    assert "1 of 4 shards have no result" in page.text


def test_a_lost_part_is_an_error_that_names_it(whole: RunDirectory, tmp_path: Path) -> None:
    run = copied(whole, tmp_path / "run")
    part = run.reports()[1].scores
    (tmp_path / "run" / part).unlink()
    with pytest.raises(ConfigError, match=Path(part).name):
        write_report(run)


# -- the pool has gone


def drop(pool: Path) -> None:
    shutil.rmtree(pool)


def cut(pool: Path) -> None:
    for file in pool.iterdir():
        file.write_bytes(file.read_bytes()[:100])


def turn_around(pool: Path) -> None:
    for file in pool.iterdir():
        table = pq.read_table(file)
        pq.write_table(table.take(pa.array(range(len(table) - 1, -1, -1))), file, row_group_size=50)


def shorten(pool: Path) -> None:
    for file in pool.iterdir():
        pq.write_table(pq.read_table(file).slice(0, 1), file)


def rename_column(pool: Path) -> None:
    for file in pool.iterdir():
        pq.write_table(pq.read_table(file).rename_columns(["id", "picture", "label"]), file, row_group_size=50)


def spoil(pool: Path) -> None:
    for file in pool.iterdir():
        table = pq.read_table(file)
        bad = pa.array([b"GIF89a" if i % 2 else None for i in range(len(table))], pa.binary())
        pq.write_table(table.set_column(1, "image", bad), file, row_group_size=50)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (drop, "the pool's file is gone"),
        (cut, "the pool's file cannot be read"),
        (turn_around, "the pool was changed since it was scored"),
        (shorten, "the pool's file cannot be read"),
        (rename_column, "the pool's file cannot be read"),
        (spoil, "the picture cannot be decoded"),
    ],
)
def test_a_pool_that_is_gone_or_changed_costs_only_the_pictures(
    whole: RunDirectory, tmp_path: Path, change: Callable[[Path], None], says: str
) -> None:
    run = copied(whole, tmp_path / "run")
    pool = tmp_path / "pool"
    shutil.copytree(whole.config.pool.uri, pool)
    plan = tmp_path / "run" / "plan.parquet"
    table = pq.read_table(plan)
    pq.write_table(table.replace_schema_metadata({**(table.schema.metadata or {}), b"root": str(pool).encode()}), plan)
    assert len(Elements(page_of(run)).all("img")) == 40
    change(pool)
    page = require_harmless(page_of(RunDirectory(run.storage.root)))
    assert not page.all("img")
    assert f"No pictures: {says}" in page.text
    assert "rank id score prediction confidence label" in page.text


# -- small parts


def spread_of(values: NDArray[np.float32], low: float, high: float) -> Spread:
    spread = Spread(low, high, np.zeros(BINS * FINE, np.int64))
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
    assert drawn_rows(svg("bald", spread, 0.0, 3)) == [10]


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
    assert [percent(a, b) for a, b in ((0, 5), (1, 5), (1, 10**6), (1, 0))] == ["0.0 %", "20.0 %", "< 0.1 %", "–"]
    assert [duration(s) for s in (0.41, 42.4, 200, 25_500)] == ["0.41 s", "42 s", "3 min 20 s", "7 h 05 min"]
    assert [size(n) for n in (12, 160_000, 2_400_000_000, 3 * 10**15)] == ["12 bytes", "160 kB", "2.4 GB", "3000.0 TB"]


@pytest.mark.parametrize(("shape", "kind", "shown"), [((8, 8), "png", (96, 96)), ((200, 400), "png", (96, 48))])
def test_thumbnails_of_grey_pictures(shape: tuple[int, int], kind: str, shown: tuple[int, int]) -> None:
    picture = thumbnail(encoded(np.zeros(shape, np.uint8)), "L")
    assert picture.uri.startswith(f"data:image/{kind};base64,")
    assert (picture.width, picture.height) == shown
    assert max(shown) <= EDGE


# -- the eye


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed: the page is not rendered")
def test_a_browser_shows_the_page_on_a_narrow_screen(whole: RunDirectory, tmp_path: Path) -> None:
    width = 400
    path = Path(write_report(copied(whole, tmp_path / "run")))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--hide-scrollbars"]
    shot = tmp_path / "shot.png"
    flags += [f"--user-data-dir={tmp_path / 'profile'}", f"--screenshot={shot}", f"--window-size={width},1600"]
    subprocess.run(["chromium", *flags, path.as_uri()], check=True, capture_output=True, timeout=60)
    pixels = np.asarray(Image.open(shot).convert("RGB"))
    assert pixels.shape == (1600, width, 3)
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50
    assert (pixels[:, -8:] == pixels[0, 0]).all()  # nothing is wider than the window


def test_the_manifest_of_a_changed_selection_is_believed(whole: RunDirectory, tmp_path: Path) -> None:
    run = copied(whole, tmp_path / "run")
    selection = tmp_path / "run" / "selection.parquet"
    table = pq.read_table(selection).slice(0, 7)
    pq.write_table(table.set_column(table.column_names.index("score_name"), "score_name", [["entropy"] * 7]), selection)
    (tmp_path / "run" / "selections").mkdir()
    (tmp_path / "run" / "selections" / "batch-2.json").write_text(json.dumps({}))
    page = require_harmless(page_of(run))
    assert "The 7 rows most worth labelling" in page.text
    assert "Entropy (nats)" in page.text
    assert "--name batch-3 --k 7" in page.text
