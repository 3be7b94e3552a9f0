"""What the pages name is there: files and headings that they link to, tests that hold a promise, commands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from poolscore.jobs.cli import COMMANDS

ROOT = Path(__file__).parents[1]
FOLDERS = ("engine", "jobs", "kernels", "benchmarks", "tests")
PAGES = [*ROOT.glob("*.md"), *(page for folder in FOLDERS for page in (ROOT / folder).rglob("*.md"))]
CODE_BLOCK = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def missing_links(page: Path) -> list[str]:
    """Relative links of a page that lead to no file, or to no heading of it."""
    links = re.findall(r"\]\(([^)\s]+)\)", prose(page))
    return [link for link in links if "://" not in link and not leads_somewhere(page, link)]


def leads_somewhere(page: Path, link: str) -> bool:
    name, _, heading = link.partition("#")
    target = page.parent / name if name else page
    return target.exists() and (not heading or heading in anchors(target))


def anchors(page: Path) -> set[str]:
    """Headings as GitHub makes anchors of them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def missing_tests(page: Path) -> list[str]:
    """Tests that a page names and that are not there.

    A file goes by its path, or the end of it. `test_one.py::test_that` is a test of it, and so is a bare `test_other`
    that follows in the same line.
    """
    missing = []
    for line in prose(page).splitlines():
        files: list[Path] = []
        for file, test in re.findall(r"`((?:[\w/]+/)?test_\w+\.py)?(?:::)?(test_\w+)?`", line):
            if file:
                files = [path for path in (ROOT / "tests").rglob("test_*.py") if path.as_posix().endswith(f"/{file}")]
            if (file and not files) or (test and not any(f"def {test}(" in path.read_text() for path in files)):
                missing.append(f"{file}::{test}")
    return missing


def missing_files(page: Path) -> list[str]:
    """Paths from the root of the repository, maybe with a *, and names of modules, that lead to nothing."""
    paths = re.findall(rf"`((?:{'|'.join(FOLDERS)})/[\w./*-]*)`", prose(page))
    modules = [name for name in re.findall(r"`([\w/]+\.py)`", prose(page)) if name not in paths]
    return [
        *(path for path in paths if not list(ROOT.glob(path.rstrip("/")))),
        *(name for name in modules if not any(list((ROOT / folder).rglob(name)) for folder in FOLDERS)),
    ]


def prose(page: Path) -> str:
    return CODE_BLOCK.sub("", page.read_text())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_what_a_page_names_is_there(page: Path) -> None:
    assert missing_links(page) == []
    assert missing_tests(page) == []
    assert missing_files(page) == []


def test_what_is_not_there_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# One: heading\n[a](#one-heading) [b](#other) [c](gone.md) [d](https://example.com)\n"
        "| `tests/test_documents.py::test_gone`, `test_what_is_not_there_is_found`, `test_away` |\n"
        "`test_never.py`, `tests/nothing*.py`, `engine/gone.py`, `engine/*.py`,\n"
        "`run/journal.py`, `run/gone.py`\n```\n[e](gone.md)\n```\n"
    )
    assert missing_links(page) == ["#other", "gone.md"]
    assert missing_tests(page) == ["tests/test_documents.py::test_gone", "::test_away", "test_never.py::"]
    assert missing_files(page) == ["tests/nothing*.py", "engine/gone.py", "test_never.py", "run/gone.py"]


def test_every_page_of_the_code_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    own = {page.relative_to(ROOT).as_posix() for page in PAGES if page.is_relative_to(ROOT / "engine")}
    own |= {page.relative_to(ROOT).as_posix() for page in PAGES if page.is_relative_to(ROOT / "jobs")}
    assert [page for page in own - {"jobs/demo/README.md"} if f"]({page})" not in readme] == []


def test_the_readme_tells_of_every_command() -> None:
    table = (ROOT / "README.md").read_text().partition("## Commands")[2].partition("\n## ")[0]
    rows = " ".join(line.split("|")[1] for line in table.splitlines() if line.startswith("|"))
    assert [name for name in [*COMMANDS, "label"] if f"`{name}`" not in rows] == []
