"""Results as a page: tables and, where passes or batch sizes were swept over, curves."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from poolscore.jobs.report.curve import curves_svg
from poolscore.jobs.report.page import page
from poolscore.jobs.report.text import esc

Points = Sequence[Mapping[str, Any]]


def bench_page(result: Mapping[str, Any]) -> str:
    """HTML, self-contained."""
    subject, points = result["subject"], result["points"]
    where = result["environment"]
    machine = where["gpu"]["name"] if where["gpu"] else f"{where['cpu']}, {where['cores']} cores"
    facts = {**subject, "measured on": machine, "date": where["date"], "commit": where["commit"]}
    told = "".join(f"<div><dt>{esc(k)}</dt><dd>{esc(str(v), 300)}</dd></div>" for k, v in facts.items() if v)
    return page(
        f"poolscore bench {subject['name']}",
        [
            f"""<header><p class="over">poolscore bench</p><h1>{esc(subject["name"])}</h1></header>
<section aria-labelledby="what"><h2 id="what">What was measured</h2><dl class="facts">{told}</dl></section>""",
            f"""<section aria-labelledby="rates"><h2 id="rates">Rows a second of one worker</h2>
{_table(points)}{"".join(_plots(points))}</section>""",
        ],
    )


def _table(points: Points) -> str:
    head = ("passes", "batch", "rows/s", "bounded by", "idle", "prefix ms", "suffix ms", "reduce ms", "of copy")
    rows = (
        (
            point["passes"],
            point["batch"],
            f"{point['rows_per_second']:,.0f}",
            point["bounded_by"],
            f"{point['idle_share']:.0%}",
            *(f"{point['batch_ms'][part]:,.2f}" for part in ("prefix", "suffix", "reduce")),
            f"{point['reduction']['fraction_of_copy']:.0%}",
        )
        for point in points
    )
    cells = "".join("<tr>" + "".join(f"<td>{esc(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    titles = "".join(f'<th scope="col">{esc(name)}</th>' for name in head)
    return f'<div class="scroll"><table><thead><tr>{titles}</tr></thead><tbody>{cells}</tbody></table></div>'


def _plots(points: Points) -> Iterator[str]:
    """Rates over each of the two settings that has several values, a curve for each value of the other."""
    for x, by, name in (("passes", "batch", "passes T"), ("batch", "passes", "rows of a batch")):
        if len({point[x] for point in points}) < 2:
            continue
        for y, words in (("rows_per_second", "rows/s end to end"), ("model_rows_per_second", "rows/s of the model")):
            curves: dict[str, dict[str, list[tuple[float, float]]]] = defaultdict(lambda: {"": []})
            for point in points:
                curves[f"{by} {point[by]}"][""].append((point[x], point[y]))
            yield curves_svg(curves, name, words)
