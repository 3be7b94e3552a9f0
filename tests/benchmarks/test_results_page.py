"""RESULTS.md and the README's table say what the result files say, and which ratios a second run did not reproduce."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import results_page
from gpu_parts.part import figure
from page_parts.theme import rows_to_table
from page_parts.themes import THEMES
from results_page import HERE, NO_GPU, again, headline, newest, on_gpu, page

ENVIRONMENT: dict[str, Any] = {
    "date": "2026-01-02 03:04:05 +0000",
    "command": "python bench.py",
    "commit": "abc",
    "cpu": "one",
    "cores": 2,
    "packages": {"torch": "2"},
    "gpu": None,
}
LATENCY = next(theme for theme in THEMES if theme.name == "feed_latency")


def write(file: Path, with_latency: float, **environment: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    latency = {"rows_per_second": 100.0, "with_latency": with_latency}
    file.write_text(json.dumps({"latency": latency, "environment": ENVIRONMENT | environment}))
    return file


def test_what_is_committed_is_what_the_results_say() -> None:
    """After a new result: python benchmarks/results_page.py"""
    assert (HERE / "RESULTS.md").read_text() == page()
    assert f"<!-- headline -->\n{headline()}\n<!-- end of headline -->" in (HERE.parent / "README.md").read_text()


def test_the_newest_result_of_a_theme_counts(tmp_path: Path) -> None:
    write(tmp_path / "feed_latency_cpu_2026-01-02.json", 10.0)
    new = write(tmp_path / "feed_latency_cpu_2026-01-10.json", 50.0)
    write(tmp_path / "feed_latency_more_cpu_2026-02-01.json", 99.0)  # another theme
    assert newest(tmp_path, "feed_latency") == new
    assert "| 100 | 50 | 0.5 |" in page(tmp_path)
    assert "2026-01-02, one, 2 cores, torch 2, commit abc: `python bench.py`" in page(tmp_path)


def test_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    write(tmp_path / "feed_latency_cpu_2026-01-02.json", 10.0)
    assert on_gpu(tmp_path) == NO_GPU
    dry = {"part": "bits", "about": "Same bits", "result": {"ok": True, "figures": []}, "environment": ENVIRONMENT}
    (tmp_path / "bits_cpu_2026-01-02-030405.json").write_text(json.dumps(dry))
    assert on_gpu(tmp_path) == NO_GPU


def test_of_each_part_on_a_gpu_the_newest_counts(tmp_path: Path) -> None:
    for time, measured in (("030405", 7), ("040506", 8)):
        found = figure("rate", measured, "rows/s", predicted=9, reach="10")
        environment = ENVIRONMENT | {"gpu": {"name": "H200"}}
        part = {"part": "bits", "about": "Same bits", "result": {"ok": True, "figures": [found]}}
        (tmp_path / f"bits_H200_2026-01-02-{time}.json").write_text(json.dumps(part | {"environment": environment}))
    assert "Same bits. 2026-01-02, H200, torch 2" in on_gpu(tmp_path)
    assert on_gpu(tmp_path).endswith("| rate | 8 rows/s | 9 | 10 |")

    (tmp_path / "row_stats_cuda_2026-01-03-030405.json").write_text(json.dumps({"environment": environment}))  # no part
    assert "rate | 8 rows/s" in on_gpu(tmp_path)


def test_the_readme_has_what_was_to_be_reached_on_a_gpu(tmp_path: Path) -> None:
    assert headline(tmp_path).startswith(NO_GPU)
    figures = [figure("rate", 8, "rows/s", reach=">= 7"), figure("bytes", 3)]
    for part, day, hardware in (("row_stats", "02", "A"), ("row_stats", "01", "B"), ("bits", "03", "A")):
        document = {
            "part": part,
            "result": {"ok": True, "figures": figures if part == "row_stats" else []},
            "environment": ENVIRONMENT | {"gpu": {"name": hardware}},
        }
        (tmp_path / f"{part}_{hardware}_2026-01-{day}-030405.json").write_text(json.dumps(document))
    lines = headline(tmp_path).splitlines()
    assert lines[0] == "| A | measured | to reach |"  # the newest, whatever the hardware's name
    assert lines[2] == "| [rate](benchmarks/RESULTS.md#row_stats) | 8 rows/s | >= 7 |"
    assert NO_GPU not in headline(tmp_path)


def test_a_part_that_broke_the_gpu_is_shown_as_failed(tmp_path: Path) -> None:
    result = {"ok": False, "figures": [figure("rate", 8, reach=">= 7")], "error": "CUDA error"}
    broken = {
        "part": "soak",
        "about": "Soak",
        "result": result,
        "environment": ENVIRONMENT,
    }
    (tmp_path / "soak_H200_2026-01-02-030405.json").write_text(json.dumps(broken))
    assert "**Failed.** CUDA error" in on_gpu(tmp_path)
    assert "| [rate](benchmarks/RESULTS.md#soak) | 8 | >= 7 |" in headline(tmp_path)


@pytest.mark.parametrize("content", ['{"latency": ', "[]", "{}"])
def test_a_broken_file_is_named(tmp_path: Path, content: str) -> None:
    file = tmp_path / "feed_latency_cpu_2026-01-02.json"
    file.write_text(content)
    with pytest.raises(SystemExit, match=f"{file}: cannot be used: "):
        page(tmp_path)


def test_it_says_what_it_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("a\n<!-- headline -->\n<!-- end of headline -->\nb\n")
    (tmp_path / "benchmarks").mkdir()
    monkeypatch.setattr(results_page, "HERE", tmp_path / "benchmarks")
    monkeypatch.setattr(sys, "argv", ["results_page.py"])
    results_page.main()
    count = sum(newest(HERE / "results", theme.name) is not None for theme in THEMES)
    said = f"written: RESULTS.md and README.md, of {count} benchmarks on a CPU, "
    assert capsys.readouterr().out.startswith(said)
    assert (tmp_path / "benchmarks" / "RESULTS.md").read_text() == page()
    assert headline() in readme.read_text()


def test_a_ratio_that_a_second_run_does_not_reproduce_is_named(tmp_path: Path) -> None:
    first = write(tmp_path / "feed_latency_cpu_2026-01-02.json", 80.0)
    assert again([(LATENCY, first)], tmp_path / "again") == "Not made yet."
    write(tmp_path / "again" / "feed_latency_cpu_2026-01-02.json", 90.0)
    assert "| 0.8 | 0.9 | +12% |" in again([(LATENCY, first)], tmp_path / "again")
    write(tmp_path / "again" / "feed_latency_cpu_2026-01-03.json", 40.0)
    assert "| 0.8 | 0.4 | -50%: not reproduced |" in again([(LATENCY, first)], tmp_path / "again")
    other = dataclasses.replace(LATENCY, name="other", title="Another")
    assert "Not made yet of: Another." in again([(LATENCY, first), (other, first)], tmp_path / "again")


def test_cells_are_read_easily() -> None:
    table = rows_to_table(["a", "b"], [["x", 1234.5], [0.123456, 1234567]])
    assert table.splitlines()[2:] == ["| x | 1,234 |", "| 0.123 | 1,234,567 |"]
