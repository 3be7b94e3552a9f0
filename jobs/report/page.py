"""The skeleton of the page. Its policy lets nothing be loaded and nothing run, whatever gets past the escaping."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from importlib.resources import files

from poolscore.jobs.report.text import esc

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def page(title: str, sections: Iterable[str]) -> str:
    """A whole HTML document.

    Args:
        title: plain text.
        sections: HTML, already escaped.
    """
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{esc(POLICY)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<title>{esc(title)}</title>
<style>
{_style()}
</style>
</head>
<body>
<main>{"".join(sections)}
</main>
</body>
</html>
"""


def contents(sections: Iterable[str]) -> str:
    """Links to the sections that have a heading."""
    found = (link for section in sections for link in re.findall(r'<h2 id="(\w+)">([^<]+)</h2>', section))
    links = "".join(f'<li><a href="#{name}">{title}</a></li>' for name, title in found)
    return f'\n<nav aria-label="On this page"><ul>{links}</ul></nav>'


@cache
def _style() -> str:
    return files(__package__).joinpath("style.css").read_text(encoding="utf-8").strip()
