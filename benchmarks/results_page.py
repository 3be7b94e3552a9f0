"""RESULTS.md and the table of README.md's section "Measured", from the files of benchmarks/results/ and nothing else.

    python benchmarks/results_page.py              writes both
    python benchmarks/results_page.py --plots      the pictures, too (needs matplotlib)

The newest file of each theme counts. A second run of a benchmark lies in benchmarks/results/again/ under the same name.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "evidence"))

from report import fill
from result_headlines import HEADLINES
from result_themes import THEMES, Result, Theme, rows_to_table

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
WITHIN = 0.15  # of a ratio of the first run
NO_GPU = "There are no results from a GPU yet: every figure here is from a CPU."


def newest(folder: Path, theme: str) -> Path | None:
    """The last file of a theme from a CPU by the date in its name."""
    return max(folder.glob(f"{theme}_cpu_????-??-??.json"), key=lambda file: file.name, default=None)


def page(results: Path = RESULTS) -> str:
    """RESULTS.md."""
    found = [(theme, file) for theme in THEMES if (file := newest(results, theme.name))]
    parts = [
        "# Results",
        "Written by `python benchmarks/results_page.py` from `benchmarks/results/*.json`; how each was measured is in "
        "[NOTES.md](NOTES.md), whether the batches save labels in [evidence/README.md](evidence/README.md). Of absolute"
        " paths the commands keep the last part: `--data mnist` is `../shared/data/mnist`, `--peers python` the peers' "
        "interpreter.",
        "## On a GPU",
        on_gpu(results),
        "## On a CPU",
        *(section(theme, file) for theme, file in found),
        "## A second run",
        again(found, results / "again"),
    ]
    return "\n\n".join(parts) + "\n"


def section(theme: Theme, file: Path) -> str:
    """Of one benchmark."""
    result = json.loads(file.read_text())
    picture = file.with_suffix(".png")
    parts = [f"### {theme.title}", theme.about, *(of_run(run) for run in result.get("runs", [result]))]
    if picture.exists():
        parts.append(f"![{theme.title}](results/{picture.name})")
    return "\n\n".join([*parts, theme.table(result)])


def of_run(result: Result) -> str:
    """When, on what, of which commit, and by which command."""
    where = result["environment"]
    machine = where["gpu"]["name"] if where["gpu"] else f"{where['cpu']}, {where['cores']} cores"
    torch = where["packages"]["torch"]
    return f"{where['date'][:10]}, {machine}, torch {torch}, commit {where['commit']}: `{where['command']}`"


def on_gpu(results: Path) -> str:
    """What `make gpu` measured: the newest of each part."""
    parts: dict[str, Result] = {}
    for file in sorted(results.glob("*_????-??-??-??????.json")):  # by the date, as far as a part goes
        document = json.loads(file.read_text())
        if document["environment"]["gpu"]:
            parts[document["part"]] = document
    return "\n\n".join(_part(document) for document in parts.values()) if parts else NO_GPU


def _part(document: Result) -> str:
    result = document["result"]
    ended = "" if result["ok"] else f"**Failed.** {result.get('error', '')}\n\n"
    rows = (
        [one["what"], f"{one['measured']} {one['unit']}".strip(), one["predicted"] or "", one["reach"]]
        for one in result["figures"]
    )
    figures = rows_to_table(["", "measured", "predicted", "to reach"], rows)
    return f"### {document['part']}\n\n{document['about']}. {of_run(document)}\n\n{ended}{figures}"


def again(found: list[tuple[Theme, Path]], folder: Path) -> str:
    """How far the ratios of a second run are from those of the first."""
    rows: list[list[object]] = []
    for theme, file in found:
        second = newest(folder, theme.name)
        if second:
            first_ratios, second_ratios = (theme.ratios(json.loads(one.read_text())) for one in (file, second))
            for name in first_ratios.keys() & second_ratios.keys():
                off = second_ratios[name] / first_ratios[name] - 1
                said = f"{off:+.0%}" + ("" if abs(off) <= WITHIN else ": not reproduced")
                rows.append([theme.title, name, first_ratios[name], second_ratios[name], said])
    if not rows:
        return "Not made yet."
    head = ["", "ratio", "first", "second", "difference"]
    return f"To be reproduced within {WITHIN:.0%}.\n\n{rows_to_table(head, sorted(rows, key=str))}"


def headline(results: Path = RESULTS) -> str:
    """The table of README.md; each line leads to its section."""
    rows = []
    for theme in THEMES:
        if theme.name in HEADLINES and (file := newest(results, theme.name)):
            for what, *said in HEADLINES[theme.name](json.loads(file.read_text())):
                rows.append([f"[{what}](benchmarks/RESULTS.md#{anchor(theme.title)})", *said])
    return rows_to_table(["", "poolscore", "beside it"], rows)


def anchor(title: str) -> str:
    """Of a heading, as GitHub makes it."""
    return "".join(letter for letter in title.lower().replace(" ", "-") if letter.isalnum() or letter == "-")


def draw_all(results: Path = RESULTS) -> None:
    """The pictures of the newest results."""
    from result_plots import draw  # matplotlib, which is no dependency

    for theme in THEMES:
        if file := newest(results, theme.name):
            draw(file, theme.name)


def main() -> None:
    """Write both, and the pictures where they are asked for."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--plots", action="store_true", help="draw the pictures, too")
    if arguments.parse_args().plots:
        draw_all()
    (HERE / "RESULTS.md").write_text(page())
    fill(HERE.parent / "README.md", "headline", headline())


if __name__ == "__main__":
    main()
