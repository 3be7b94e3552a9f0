"""Runs to report on, made by the real engine, and what a browser would make of a page."""

from __future__ import annotations

import io
import json
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from poolscore.engine import RunDirectory, parse_config, score_pool
from poolscore.jobs.report import write_report

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

def letters(text):
    return np.array([text.count(letter) for letter in "123"], dtype=np.float32)
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
        modules = {"digits": nets.pictures(), "colour": nets.pictures(3, 128 * 96)}
        modules |= {"table": nets.table(), "side": nets.table(outputs=1)}
        for name, module in modules.items():
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
            "run": {
                "dir": str(self.root / run),
                "executor": "local",
                "verify_rows": 0,
                "shard_rows": 100,
                "max_bad_fraction": 0.5,
            },
        }
        return parse_config({key: {**data[key], **changes.get(key, {})} for key in data})

    def table_config(self, uri: Path, run: str, /, **changes: dict[str, Any]) -> Any:
        model = {"source": "report_test_nets:table", "weights": str(self.root / "table.pt"), "classes": 2}
        columns = {"input": ["x", "y", "z"], "decode": {"kind": "features"}}
        return self.config(
            uri, run, 10, pool={**columns, **changes.get("pool", {})}, model={**model, **changes.get("model", {})}
        )


def finished_run(workshop: Workshop) -> RunDirectory:
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


def lose_shards(run: RunDirectory, count: int) -> None:
    """Take the shards that were journalled last out of the journal; a record may tell of several."""
    records = sorted(Path(run.storage.path("_log")).glob("*/[0-9]*.json"))
    while count:
        told = json.loads((record := records.pop()).read_text())
        kept = told.get("reports", [told])[:-count]
        count -= len(told.get("reports", [told])) - len(kept)
        if kept:
            record.write_text(json.dumps({**told, "reports": kept}))
        else:
            record.unlink()


TAGS = """html head meta title style body main header nav section h1 h2 h3 p strong small span code pre bdi ul ol li
    dl dt dd a div details summary table thead tbody tr th td img svg g rect line text path circle polyline polygon"""
ATTRIBUTES = """lang charset http-equiv content name class id aria-labelledby aria-label role tabindex scope style src
    width height alt x x1 x2 y y1 y2 cx cy r d
    points viewbox preserveaspectratio aria-hidden loading decoding start href"""


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
    return [
        int(rows.replace(",", ""))
        for rows in re.findall(r"<g><title>[^<]*: ([\d,]+) rows?[<,]", html[: html.index("<details>")])
    ]


def features_pool(folder: Path, rows: int = 120, **columns: Any) -> Path:
    values = np.random.default_rng(3).normal(size=(3, rows)).astype(np.float32)
    folder.mkdir()
    table = pa.table({"id": [f"r{i}" for i in range(rows)], **dict(zip("xyz", values, strict=True)), **columns})
    pq.write_table(table, folder / "a.parquet")
    return folder
