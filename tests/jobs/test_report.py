"""The report of a finished run: what it says, and that no value of the pool becomes markup."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from report_workshop import (
    HOSTILE,
    Elements,
    Workshop,
    copied,
    drawn_rows,
    finished_run,
    page_of,
    require_harmless,
)

from poolscore.engine import RunDirectory, score_pool
from poolscore.engine.config import ImageDecode
from poolscore.engine.scores import Task, scores_of
from poolscore.jobs.report import write_report
from poolscore.jobs.report.pictures import thumbnail
from poolscore.jobs.report.text import number, percent


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def whole(workshop: Workshop) -> RunDirectory:
    return finished_run(workshop)


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


def test_the_batch_is_drawn_where_its_scores_are(whole: RunDirectory) -> None:
    html = page_of(whole)
    first = html[: html.index("<details>")]  # the histogram of the selecting score
    line = re.search(r'<line class="cutoff" x1="([\d.]+)%"', first)
    assert line is not None
    bars = re.findall(r'<rect class="batch" x="([\d.]+)%" [^>]*? width="([\d.]+)%"', first)
    assert min(float(x) + float(width) for x, width in bars) >= float(line[1])
    assert sum(map(int, re.findall(r" rows?, (\d+) of the batch</title>", first))) == 40
    others = html[html.index("<details>") : html.index("</details>")]
    of_batch = list(map(int, re.findall(r" rows?, (\d+) of the batch</title>", others)))
    assert sum(of_batch) == 40 * (len(scores_of(Task.MULTICLASS, 5)) - 1)


def test_every_selected_row_has_its_own_picture(whole: RunDirectory) -> None:
    page = require_harmless(page_of(whole))
    selection = pq.read_table(whole.storage.path("selection.parquet")).to_pylist()
    pool = pq.read_table(whole.config.pool.uri)
    original = dict(zip(pool["id"].to_pylist(), pool["image"].to_pylist(), strict=True))
    images = page.all("img")
    assert [image["alt"] for image in images] == [row["id"] for row in selection]
    for image, row in zip(images, selection, strict=True):
        assert (
            image["src"] == thumbnail(original[row["id"]], ImageDecode(mode="L")).uri
        )  # small: as the shortlist has it
        assert (image["width"], image["height"], image["class"]) == ("96", "96", "pixelated")
    first = selection[0]
    names = whole.config.model.class_names
    assert names is not None
    assert f"1 {number(first['score'])} {names[first['prediction']]} " in page.text
    assert re.search(rf" {first['id']} votes .* entropy\s[\d.]+, expected\s[\d.]+ label {first['label']} ", page.text)


def test_class_balance_counts_pool_and_batch(whole: RunDirectory) -> None:
    page = Elements(page_of(whole))
    parts = [pq.read_table(whole.storage.path(r.scores), columns=["prediction"]) for r in whole.reports().values()]
    pool = Counter(pa.concat_tables(parts)["prediction"].to_pylist())
    batch = Counter(pq.read_table(whole.storage.path("selection.parquet"))["prediction"].to_pylist())
    names = whole.config.model.class_names
    assert names is not None
    for index, name in enumerate(names):  # those that are never predicted, too
        line = f"{name} {percent(pool[index], 391)} {pool[index]} {percent(batch[index], 40)} {batch[index]} "
        assert line.replace("\xa0", " ") in page.text


def test_rejected_rows_are_named_by_reason(whole: RunDirectory) -> None:
    page = Elements(page_of(whole))
    assert "8 no picture that can be decoded: cannot identify image file decode row-0 , row-57 , row-114 " in page.text
    assert "1 null decode row-5 " in page.text


def test_the_same_run_gives_the_same_page(whole: RunDirectory) -> None:
    assert page_of(whole) == page_of(whole)


def test_without_images_the_batch_is_a_table(whole: RunDirectory) -> None:
    page = require_harmless(page_of(whole, images=False))
    assert not page.all("img")
    assert "rank id score prediction confidence votes entropy expected label" in page.text


def test_a_run_without_thumbnails_has_no_pictures_in_its_report_either(whole: RunDirectory, tmp_path: Path) -> None:
    run = copied(whole, tmp_path / "run")
    run.info["config"]["shortlist"]["thumbnail"] = 0
    assert not require_harmless(Path(write_report(run)).read_text(encoding="utf-8")).all("img")
    assert require_harmless(Path(write_report(run, images=True)).read_text(encoding="utf-8")).all("img")


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
