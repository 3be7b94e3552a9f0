"""What the page tells of each selected row: what its passes voted for, its entropies, its picture or its text."""

from __future__ import annotations

import base64
import io
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from report_workshop import Elements, Workshop, copied, encoded, finished_run, page_of, require_harmless

from poolscore.engine import RunDirectory, score_pool
from poolscore.engine.explain.shortlisted import passes_of
from poolscore.engine.inputs.base import BadRow
from poolscore.engine.scores import Task
from poolscore.engine.shortlist.read import read_shortlist
from poolscore.jobs.report import gallery, pictures
from poolscore.jobs.report.balance import class_name
from poolscore.jobs.report.lines import Entropies, Line, Votes, _votes
from poolscore.jobs.report.pictures import EDGE, FRAME, Pictures, of_shortlist
from poolscore.jobs.report.text import NBSP, number


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("batch"))


@pytest.fixture(scope="module")
def whole(workshop: Workshop) -> RunDirectory:
    return finished_run(workshop)


def line(rank: int = 1, **changes: Any) -> Line:
    row = {"row_id": rank, "rank": rank, "id": f"r{rank}", "score": "1", "prediction": "cat", "confidence": ""}
    return Line(**{**row, "votes": None, "entropies": None, "seen": {}, "kept": {}, **changes})


def test_votes_are_those_of_the_passes_on_the_shortlist(whole: RunDirectory) -> None:
    page = Elements(page_of(whole))
    shortlist = read_shortlist(whole)
    assert shortlist.log_probs_NTC is not None
    row_ids = shortlist.rows["row_id"].to_pylist()
    for row in pq.read_table(whole.storage.path("selection.parquet")).slice(0, 5).to_pylist():
        says_T = shortlist.log_probs_NTC[row_ids.index(row["row_id"])].argmax(axis=1)
        votes = np.bincount(says_T, minlength=10)
        for index in np.flatnonzero(votes).tolist():
            said = re.search(rf" {row['id']} votes (.*?) entropy", page.text)
            assert said is not None
            assert f"{class_name(index, whole.config)}: {votes[index]}" in said[1]


def test_entropies_are_those_of_the_scores(whole: RunDirectory) -> None:
    page = Elements(page_of(whole))
    parts = [pq.read_table(whole.storage.path(report.scores)) for report in whole.reports().values()]
    by_id = {row["id"]: row for row in pa.concat_tables(parts).to_pylist()}
    for row in pq.read_table(whole.storage.path("selection.parquet")).to_pylist():
        scores = by_id[row["id"]]
        said = f"entropy {number(scores['entropy'])}, expected {number(scores['expected_entropy'])} "
        assert re.search(rf" {row['id']} votes [^,]*(,[^,]*)* {re.escape(said)}", page.text)


def test_votes_of_a_row_with_few_and_with_many_classes() -> None:
    config: Any = type("Config", (), {"model": type("Model", (), {"class_names": None, "task": Task.MULTICLASS})})
    says = [0] * 5 + [1] * 3 + [2] * 3 + [3] * 2 + [4, 5, 6]
    log_probs_TC = np.log(np.full((len(says), 7), 0.01) + np.eye(7)[says]).astype(np.float32)
    votes = _votes(passes_of(log_probs_TC, True, Task.MULTICLASS), config)
    assert votes == Votes(16, (("class 0", 5), ("class 1", 3), ("class 2", 3), ("class 3", 2), ("class 4", 1)), 2)
    assert gallery.votes_in_words(votes).replace(NBSP, " ").endswith("class 4: 1, others: 2")
    likeliest_TC = np.log(np.array([[0.98, 0.02], [0.45, 0.55], [0.45, 0.55]], np.float32))  # has fewer votes
    votes = _votes(passes_of(likeliest_TC, True, Task.MULTICLASS), config)
    assert votes == Votes(3, (("class 1", 2), ("class 0", 1)), 0)
    assert _votes(passes_of(np.zeros((4, 2), np.float32), False, Task.REGRESSION), config) is None
    yes_TC = np.log(np.array([[0.9, 0.1, 0.6], [0.8, 0.2, 0.4]], np.float32))
    labels = _votes(passes_of(np.concatenate([yes_TC, yes_TC], 1), True, Task.MULTILABEL), config)
    assert labels == Votes(2, (("class 0", 2), ("class 2", 1)), 0)
    assert "stack" not in gallery._votes(labels)  # both labels may be said by one pass: no shares of a whole


def test_the_bars_are_shares_of_the_passes_and_of_the_largest_entropy() -> None:
    html = gallery.cards([line(votes=Votes(4, (("a", 3), ("b", 1)), 0), entropies=Entropies(1.0, 0.6))], Pictures())
    widths = re.findall(r'width:([\d.]+)%"', html)
    assert widths == ["75.00", "25.00", "60.00", "40.00"]


def test_all_but_the_first_rows_are_folded() -> None:
    html = gallery.cards([line(i) for i in range(1, 1001)], Pictures())
    folded = html[html.index("<details>") :]
    assert html.count("<li") == 1000
    assert folded.count("<li") == 1000 - gallery.FIRST
    assert f'<ol class="gallery" start="{gallery.FIRST + 1}">' in folded
    assert f"The other {1000 - gallery.FIRST}<" in folded


def noise(width: int, height: int) -> bytes:
    return encoded(np.random.default_rng(1).integers(0, 255, (height, width, 3), dtype=np.uint8), "JPEG")


@pytest.mark.parametrize(
    ("size", "shown", "kept"),
    [((128, 64), (96, 48), (128, 64)), ((40, 20), (80, 40), (40, 20)), ((600, 300), (96, 48), (EDGE, EDGE // 2))],
)
def test_pictures_of_the_shortlist_fit_their_frame(
    size: tuple[int, int], shown: tuple[int, int], kept: tuple[int, int]
) -> None:
    data = noise(*size)
    picture = of_shortlist(data)
    assert (picture.width, picture.height) == shown
    assert max(shown) <= FRAME
    embedded = base64.b64decode(picture.uri.removeprefix("data:image/jpeg;base64,"))
    assert Image.open(io.BytesIO(embedded)).size == kept
    assert (embedded == data) == (max(size) <= EDGE)


@pytest.mark.parametrize("data", [b"", b"<svg onload=alert(1)>", b"GIF89a" + bytes(20)])
def test_a_thumbnail_that_is_no_picture_of_ours_is_not_shown(data: bytes) -> None:
    with pytest.raises(BadRow):
        of_shortlist(data)


def test_a_thousand_pictures_of_noise_stay_below_twenty_megabytes() -> None:
    picture = of_shortlist(noise(EDGE, EDGE))
    found = Pictures(dict.fromkeys(range(1, 1001), picture))
    found.cut(range(1, 1001))
    html = gallery.cards([line(i) for i in range(1, 1001)], found)
    assert 10_000_000 < len(html) < 18_000_000
    assert len(found.by_row) + sum(found.problems.values()) == 1000
    assert sorted(found.by_row) == list(range(1, len(found.by_row) + 1))  # the best rows keep theirs


def test_a_damaged_shortlist_costs_votes_only(whole: RunDirectory, tmp_path: Path) -> None:
    run = copied(whole, tmp_path / "run")
    for part in (tmp_path / "run" / "shortlist").glob("part-*"):
        part.write_bytes(b"no parquet")
    page = require_harmless(page_of(run))
    assert "which shortlist/shortlist.json names, cannot be read" in page.text
    assert len(page.all("img")) == 40  # from the pool
    assert " votes " not in page.text
    shutil.rmtree(tmp_path / "run" / "shortlist")
    assert "cannot be read" not in Elements(page_of(run)).text


def test_text_is_shown_beside_its_id(workshop: Workshop) -> None:
    pool = workshop.root / "text"
    pool.mkdir()
    texts = [f"<i>question</i> {i} " + "long " * 100 for i in range(60)]
    table = pa.table({"id": [f"q{i}" for i in range(60)], "text": texts})
    pq.write_table(table, pool / "a.parquet", row_group_size=20)
    decode = {"kind": "function", "function": "report_test_nets:letters"}
    config = workshop.table_config(pool, "text-run", pool={"input": "text", "decode": decode})
    score_pool(config)
    page = require_harmless(page_of(config.run.dir))
    assert "rank id text score prediction" in page.text
    first = pq.read_table(Path(config.run.dir) / "selection.parquet").to_pylist()[0]
    assert f"1 {first['id']} {texts[first['row_id']][:80]}" in page.text
    assert "question" not in require_harmless(page_of(config.run.dir, images=False)).text
    shutil.rmtree(pool)
    assert "No inputs: the pool's file is gone" in require_harmless(page_of(config.run.dir)).text


def test_pictures_beyond_a_pages_room_are_counted(whole: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MOST_BYTES", 4 << 10)
    page = require_harmless(page_of(whole))
    shown = len(page.all("img"))
    assert 0 < shown < 40
    assert f"{40 - shown} of 40 pictures are not shown: a page holds 0 MiB of pictures" in page.text
