"""The report in headless Chromium, on a wide and on a narrow screen, with values that want to be markup."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from report_workshop import HOSTILE, Workshop, page_of

from poolscore.engine import score_pool

pytestmark = pytest.mark.skipif(
    shutil.which("chromium") is None, reason="chromium is not installed: the page is not rendered"
)
WIDTHS = (1280, 400)  # pixels
FLAGS = """--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
    --disable-component-update --disable-sync --hide-scrollbars"""

# Pages in frames of these widths (a window has a least one), and what the document around them measures of each. The
# last is without its policy: what would run if only the escaping held.
LOOK = """
window.alerts = 0;
function measured(frame) {
  const page = frame.contentDocument, width = frame.contentWindow.innerWidth;
  page.querySelectorAll("details").forEach(each => each.open = true);
  const all = [...page.querySelectorAll("*")], stops = all.filter(each => each.tabIndex >= 0);
  const headings = all.filter(each => /^H[123]$/.test(each.tagName)).map(each => +each.tagName[1]);
  const words = [...page.querySelectorAll("svg text")].map(each => each.getBoundingClientRect());
  return {
    width, scroll: page.documentElement.scrollWidth,
    words: words.length, cut: words.filter(box => box.left < 0 || box.right > width).length,
    scripts: page.scripts.length, handlers: all.filter(e => [...e.attributes].some(a => /^on/.test(a.name))).length,
    cards: page.querySelectorAll(".gallery li").length,
    stops: stops.map(each => [each.tagName, each.tabIndex, (each.focus(), page.activeElement === each)]),
    unnamed: [...page.querySelectorAll("[tabindex][role=region]:not([aria-label])")].length,
    dead: [...page.querySelectorAll("a")].filter(a => !page.getElementById(a.getAttribute("href").slice(1))).length,
    skipped: headings.some((level, i) => i && level > headings[i - 1] + 1),
  };
}
onload = () => {
  const frames = [...document.querySelectorAll("iframe")].map(measured);
  document.getElementById("found").textContent = JSON.stringify({alerts, frames});
};
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of a run whose ids, classes and kept values are hostile, some of them long."""
    workshop = Workshop(tmp_path_factory.mktemp("browser"))
    rows = 120
    hostile = [HOSTILE[i % len(HOSTILE)] for i in range(rows)]
    pool = workshop.digits(
        "<b>pool", rows, id=[f"{text}{i}" for i, text in enumerate(hostile)], **{"<keep>": hostile[::-1]}
    )
    classes = [f"{HOSTILE[i % len(HOSTILE)]}{i}" for i in range(10)]
    config = workshop.config(pool, "run", 60, pool={"keep": ["<keep>"]}, model={"classes": classes})
    score_pool(config)
    return page_of(config.run.dir)


def chromium(folder: Path, *flags: str) -> str:
    run = ["chromium", *FLAGS.split(), f"--user-data-dir={folder / 'profile'}", *flags]
    return subprocess.run(run, check=True, capture_output=True, timeout=60).stdout.decode()


def test_it_fits_wide_and_narrow_screens_runs_nothing_and_needs_no_mouse(page: str, tmp_path: Path) -> None:
    bare = re.sub("<meta http-equiv[^>]*>", "<script>window.alert = () => parent.alerts++</script>", page)
    assert bare != page
    frames = [(width, page) for width in WIDTHS] + [(WIDTHS[0], bare)]
    framed = "".join(
        f'<iframe style="border:0;width:{width}px;height:900px" srcdoc="{html.escape(text)}"></iframe>'
        for width, text in frames
    )
    around = tmp_path / "around.html"
    around.write_text(f"<!doctype html><meta charset=utf-8><pre id=found></pre><script>{LOOK}</script>{framed}")
    told = re.search(r'<pre id="found">([^<]*)</pre>', chromium(tmp_path, "--dump-dom", around.as_uri()))
    assert told is not None
    found: dict[str, Any] = json.loads(html.unescape(told[1]))
    assert found["alerts"] == 0
    for (width, _), seen in zip(frames, found["frames"], strict=True):
        assert (seen["width"], seen["scroll"]) == (width, width)
        assert (seen["words"] > 40, seen["cut"]) == (True, 0)
        assert (seen["cards"], seen["handlers"], seen["dead"], seen["unnamed"]) == (60, 0, 0, 0)
        assert not seen["skipped"]
        tags, indexes, focused = zip(*seen["stops"], strict=True)
        assert set(indexes) == {0}  # the order of the page
        assert all(focused)
        assert tags[:3] == ("A", "A", "A")
        assert tags.count("SUMMARY") == 3
    assert [seen["scripts"] for seen in found["frames"]] == [0, 0, 1]


@pytest.mark.parametrize("width", WIDTHS)
def test_a_screenshot_is_not_empty_and_nothing_reaches_the_margin(page: str, tmp_path: Path, width: int) -> None:
    path, shot = tmp_path / "report.html", tmp_path / "shot.png"
    path.write_text(page)
    chromium(tmp_path, f"--screenshot={shot}", f"--window-size={width},1500", path.as_uri())
    pixels = np.asarray(Image.open(shot).convert("RGB"))
    assert pixels.shape == (1500, width, 3)
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50
    assert (pixels[:, -8:] == pixels[0, 0]).all()
    assert (pixels[:, :8] == pixels[0, 0]).all()
