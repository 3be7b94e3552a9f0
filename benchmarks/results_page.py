"""RESULTS.md and the table of README.md's section "Measured", from the files of benchmarks/results/ and nothing else.

    python benchmarks/results_page.py              writes both
    python benchmarks/results_page.py --plots      the pictures, too (needs matplotlib)

The newest file of each theme counts. A second run of a benchmark lies in benchmarks/results/again/ under the same name.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "evidence"))

from page_parts.headlines import HEADLINES
from page_parts.theme import Result, Theme, rows_to_table
from page_parts.themes import THEMES
from report import fill

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
WITHIN = 0.15  # of a ratio of the first run
NO_GPU = "There are no results from a GPU yet: every figure here is from a CPU."
STAMP = len("2026-01-02-030405")  # the end of the name of a part's file


def newest(folder: Path, theme: str) -> Path | None:
    """The last file of a theme from a CPU by the date in its name."""
    return max(folder.glob(f"{theme}_cpu_????-??-??.json"), key=lambda file: file.name, default=None)


@contextmanager
def of_file(file: Path) -> Iterator[Result]:
    """A result.

    Raises:
        SystemExit: it is no JSON, or not what its theme takes; the message names the file.
    """
    try:
        yield json.loads(file.read_text())
    except (ValueError, LookupError, TypeError, AttributeError, StopIteration) as error:
        raise SystemExit(f"{file}: cannot be used: {type(error).__name__}: {error}") from error


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
    picture = file.with_suffix(".png")
    with of_file(file) as result:
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
    """What `make gpu` measured."""
    return "\n\n".join(map(_part, gpu_parts(results))) or NO_GPU


def gpu_parts(results: Path) -> list[Result]:
    """The newest document of each part of `make gpu`, in the order in which they ran."""
    parts: dict[str, Result] = {}
    for file in sorted(results.glob("*_????-??-??-??????.json"), key=lambda file: file.stem[-STAMP:]):
        with of_file(file) as document:
            if "part" in document and "_cpu_" not in file.name:  # other benchmarks name files like this, too
                parts[document["part"]] = document
    return list(parts.values())


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
    missing = []
    for theme, file in found:
        first_ratios = _ratios(theme, file)
        second = newest(folder, theme.name)
        if first_ratios and not second:
            missing.append(theme.title)
        if second:
            second_ratios = _ratios(theme, second)
            for name in first_ratios.keys() & second_ratios.keys():
                off = second_ratios[name] / first_ratios[name] - 1
                said = f"{off:+.0%}" + ("" if abs(off) <= WITHIN else ": not reproduced")
                rows.append([theme.title, name, first_ratios[name], second_ratios[name], said])
    if not rows:
        return "Not made yet."
    head = ["", "ratio", "first", "second", "difference"]
    to_do = f" Not made yet of: {', '.join(missing)}." if missing else ""
    return f"To be reproduced within {WITHIN:.0%}.{to_do}\n\n{rows_to_table(head, sorted(rows, key=str))}"


def _ratios(theme: Theme, file: Path) -> dict[str, float]:
    with of_file(file) as result:
        return theme.ratios(result)


def headline(results: Path = RESULTS) -> str:
    """What README.md says: on a GPU whatever had something to reach, then on a CPU; each line leads to its section."""
    rows: list[list[object]] = []
    for theme in THEMES:
        if theme.name in HEADLINES and (file := newest(results, theme.name)):
            with of_file(file) as result:
                rows += [[_link(what, theme.title), *said] for what, *said in HEADLINES[theme.name](result)]
    parts = gpu_parts(results)
    of_gpu = [
        [_link(one["what"], part["part"]), f"{one['measured']} {one['unit']}".strip(), one["reach"]]
        for part in parts
        for one in part["result"]["figures"]
        if one["reach"]
    ]
    gpus = (part["environment"]["gpu"] for part in parts)  # none where a part broke it
    names = ", ".join(dict.fromkeys(gpu["name"] for gpu in gpus if gpu))
    tables = [NO_GPU] if not parts else []
    if of_gpu:
        tables.append(rows_to_table([names, "measured", "to reach"], of_gpu))
    return "\n\n".join([*tables, rows_to_table(["on 2 CPU cores", "poolscore", "beside it"], rows)])


def _link(what: object, title: str) -> str:
    return f"[{what}](benchmarks/RESULTS.md#{anchor(title)})"


def anchor(title: str) -> str:
    """Of a heading, as GitHub makes it."""
    return "".join(letter for letter in title.lower().replace(" ", "-") if letter.isalnum() or letter in "-_")


def draw_all(results: Path = RESULTS) -> None:
    """The pictures of the newest results."""
    from page_parts.plots import draw  # matplotlib, which is no dependency

    for theme in THEMES:
        if file := newest(results, theme.name):
            with of_file(file) as result:
                draw(result, file.with_suffix(".png"), theme.name)


def main() -> None:
    """Write both, and the pictures where they are asked for; say what of."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--plots", action="store_true", help="draw the pictures, too")
    if arguments.parse_args().plots:
        draw_all()
    results, lines = page(), headline()  # both, before one of them is written
    (HERE / "RESULTS.md").write_text(results)
    fill(HERE.parent / "README.md", "headline", lines)
    benchmarks = sum(newest(RESULTS, theme.name) is not None for theme in THEMES)
    print(f"written: RESULTS.md and README.md, of {benchmarks} benchmarks on a CPU, {len(gpu_parts(RESULTS))} on a GPU")


if __name__ == "__main__":
    main()
