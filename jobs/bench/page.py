"""Results as a page: tables and, where passes or batch sizes were swept over, curves."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from poolscore.engine.worker.stages import STAGES
from poolscore.jobs.bench.point import PARTS
from poolscore.jobs.bench.words import by_bytes, facts_of, in_hours, number, share
from poolscore.jobs.report.curve import curves_svg
from poolscore.jobs.report.page import page
from poolscore.jobs.report.text import esc

Points = Sequence[Mapping[str, Any]]

STAGES_SAID = """Rows/s of each stage while it is at work for one shard, over all rounds. Two shards are at work at
a time, so a stage can be slower than the whole. The device idles for the share of its time in which it waits for rows.
Then reading or decoding bounds, whichever takes longer; where it hardly waits, what takes longest on the device.
Writing bounds where it takes longer than all that."""
PARTS_SAID = """The model alone, batch after batch on the device. The prefix is computed once per row, the suffix is all
T passes behind it; reduce makes scores of logits, whose bytes it reads once: beside what the device's copy moves."""


def bench_page(result: Mapping[str, Any]) -> str:
    """HTML, self-contained."""
    name, points, where = result["subject"]["name"], result["points"], result["environment"]
    packages = ", ".join(f"{package} {version}" for package, version in where["packages"].items() if version)
    facts = {
        **dict(facts_of(result)),
        **{key: where[key] for key in ("date", "commit", "command", "python")},
        "packages": packages,
    }
    told = "".join(f"<div><dt>{esc(key)}</dt><dd>{esc(value, 500)}</dd></div>" for key, value in facts.items() if value)
    notes = dict.fromkeys(note for point in points for note in point["notes"])
    return page(
        f"poolscore bench {name}",
        [
            f"""<header><p class="over">poolscore bench</p><h1>{esc(name)}</h1></header>
<section aria-labelledby="what"><h2 id="what">What was measured</h2><dl class="facts">{told}</dl></section>""",
            f"""<section aria-labelledby="rates"><h2 id="rates">Rows a second of one worker</h2>
{_table(map(_end_to_end, points))}{"".join(f"<p>{esc(note, 500)}</p>" for note in notes)}
{"".join(_plots(points))}</section>""",
            f"""<section aria-labelledby="stages"><h2 id="stages">Stages</h2>
<p>{STAGES_SAID}</p>{_table(map(_stages, points))}</section>""",
            f"""<section aria-labelledby="parts"><h2 id="parts">The model</h2>
<p>{PARTS_SAID}</p>{_table(map(_parts, points))}</section>""",
        ],
    )


def _place(point: Mapping[str, Any]) -> dict[str, str]:
    return {"passes T": str(point["passes"]), "rows of a batch": str(point["batch"])}


def _end_to_end(point: Mapping[str, Any]) -> dict[str, str]:
    follows: dict[str, str] = {}
    if point["price_per_hour"] is not None:
        follows |= {
            "price of an hour": number(point["price_per_hour"]),
            "of a million rows": number(point["price_per_million_rows"]),
        }
    if point["hours"] is not None:
        follows |= {"rows of the pool": f"{point['pool_rows']:,}", "workers": str(point["workers"])}
        follows["time for it"] = in_hours(point["hours"])
    if point["price_of_pool"] is not None:
        follows["price of it"] = number(point["price_of_pool"])
    return {
        **_place(point),
        "rows/s": number(point["rows_per_second"]),
        "of each round": ", ".join(map(number, point["rounds"])),
        "rows measured": f"{point['rows']:,}",
        "rejected": str(point["rejected"]),
        **follows,
    }


def _stages(point: Mapping[str, Any]) -> dict[str, str]:
    rates = point["stage_rows_per_second"]
    return {
        **_place(point),
        **{name: number(rates[name]) if name in rates else "–" for name in STAGES if name != "idle"},
        "idle": f"{point['idle_share']:.0%}",
        "bounded by": point["bounded_by"],
    }


def _parts(point: Mapping[str, Any]) -> dict[str, str]:
    reduction = point["reduction"]
    return {
        **_place(point),
        "rows/s": number(point["model_rows_per_second"]),
        **{f"{name}, ms a batch": number(point["batch_ms"][name]) for name in PARTS},
        "bytes reduced, a batch": by_bytes(reduction["bytes"]),
        "a second": by_bytes(reduction["bytes_per_second"]),
        "of a copy": share(reduction["fraction_of_copy"]),
    }


def _table(rows: Iterator[Mapping[str, str]]) -> str:
    every = list(rows)
    titles = "".join(f'<th scope="col">{esc(name)}</th>' for name in (every[0] if every else ()))
    cells = "".join("<tr>" + "".join(f"<td>{esc(cell)}</td>" for cell in row.values()) + "</tr>" for row in every)
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
            yield curves_svg(curves, name, words, from_zero=True)
