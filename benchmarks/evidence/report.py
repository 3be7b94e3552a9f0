"""From a result to its picture and to its place in README.md."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

README = Path(__file__).resolve().parent / "README.md"


def report(
    name: str,
    table: Callable[[dict[str, Any]], str],
    plot: Callable[[dict[str, Any], Path], None] | None,
    file: Path,
    readme: Path = README,
) -> None:
    """Plot beside the result `file`, and the table between the markers `NAME reduced` or `NAME full`."""
    result = json.loads(file.read_text())
    lines = table(result)
    print(lines)
    parts = [of_machine(file.name, result), result.get("note"), unfinished(result)]
    if plot:
        picture = file.with_suffix(".png")
        plot(result, picture)
        parts.append(f"![{name.replace('_', ' ')}](../results/{picture.name})")
    parts.append(lines)
    fill(readme, f"{name} {result.get('form', 'reduced')}", "\n\n".join(part for part in parts if part))


def of_machine(name: str, result: dict[str, Any]) -> str:
    """Which file, when, and on what."""
    where = result["environment"]
    machine = where["gpu"]["name"] if where["gpu"] else f"{where['cpu']}, {where['cores']} cores"
    return f"`{name}`: {where['date'][:10]}, {machine}, {result['minutes_of_work']} minutes of work of one thread"


def unfinished(result: dict[str, Any]) -> str | None:
    """What of the form has not been run."""
    missing = result.get("missing")
    return f"**Not whole.** Still to be run: {'; '.join(missing)}." if missing else None


def fill(readme: Path, place: str, text: str) -> None:
    """Puts a text between two markers and leaves the rest alone."""
    before, begin, rest = readme.read_text().partition(f"<!-- {place} -->\n")
    _, end, after = rest.partition(f"<!-- end of {place} -->")
    if not end:
        raise SystemExit(f"{readme.name}: has no place for '{place}'")
    readme.write_text(f"{before}{begin}{text}\n{end}{after}")
