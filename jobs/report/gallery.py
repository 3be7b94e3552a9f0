"""The batch to label: pictures where the pool has them, else a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from poolscore.engine.config import Config
from poolscore.engine.inputs.thumbnail import picture_input
from poolscore.engine.selection.alike import NearDuplicates
from poolscore.jobs.report.balance import class_name
from poolscore.jobs.report.facts import SHOWN, Facts, Selection
from poolscore.jobs.report.pictures import Picture, Pictures
from poolscore.jobs.report.text import column_texts, count, esc, number, percent, rows

COLUMNS = 8  # of `pool.keep` on the page
VALUE = 60  # characters of a kept value
ID = 80  # characters of an id
NOTE = 500  # characters of a sentence


@dataclass(frozen=True)
class Line:
    """One selected row; text not yet escaped."""

    row_id: int
    rank: int
    id: str
    score: str
    prediction: str
    confidence: str  # "" where there is none
    kept: dict[str, str]


def section(facts: Facts, pictures: Pictures | None) -> str:
    """The best rows, at most SHOWN of them."""
    selection = facts.selection
    if selection is None or not selection.rows:
        return ""
    lines = lines_of(selection.best, facts.config)
    shown = pictures is not None and bool(pictures.by_row)
    title = "The batch to label" if selection.written else "The best rows so far"
    body = cards(lines, pictures) if pictures is not None and shown else table(lines)
    return f"""
<section aria-labelledby="batch">
<h2 id="batch">{title}</h2>
<p class="lead">{_lead(selection, facts)}</p>
{_alike(selection, facts)}
{_problems(pictures, len(lines))}
{body}
</section>"""


def _lead(selection: Selection, facts: Facts) -> str:
    text = f"{rows(selection.rows)}, best first"
    if selection.rows > SHOWN:
        text = f"The first {SHOWN} of {rows(selection.rows)}, best first"
    if not selection.written:
        text += "; chosen for this page from the shards that are scored, not written to the run"
    if picture_input(facts.config) is None:
        text += ". The pool has no pictures to show; columns named in <code>pool.keep</code> appear here"
    return text + "."


def _alike(selection: Selection, facts: Facts) -> str:
    """How many near-duplicates the written batch holds."""
    entry = facts.run.info.get("near_duplicates")
    if not selection.written or not entry:  # none in the runs of older versions
        return ""
    return f'<p class="note">Near-duplicates: {esc(NearDuplicates.from_json(entry).in_words(), NOTE)}.</p>'


def _problems(pictures: Pictures | None, of: int) -> str:
    if pictures is None or not pictures.problems:
        return ""
    missing = sum(pictures.problems.values())
    reasons = "; ".join(
        esc(reason) if n == missing else f"{esc(reason)}: {count(n)}" for reason, n in pictures.problems.most_common(3)
    )
    how_many = "No pictures" if missing >= of else f"{count(missing)} of {count(of)} pictures are not shown"
    return f'<p class="note">{how_many}: {reasons}.</p>'


def lines_of(best: pa.Table, config: Config) -> list[Line]:
    """Rows of a selection, best first: rank, row_id, id, score, prediction, confidence and kept columns."""
    keep = [name for name in config.pool.keep if name in best.column_names][:COLUMNS]
    kept = {name: column_texts(best[name]) for name in keep}
    predictions = _predictions(best["prediction"], config)
    rank, row_id, score, confidence = _lists(best, "rank", "row_id", "score", "confidence")
    return [
        Line(
            row_id=row_id[i],
            rank=rank[i],
            id=id_,
            score=number(score[i]),
            prediction=predictions[i],
            confidence="" if confidence[i] is None else percent(confidence[i], 1),
            kept={name: kept[name][i] for name in keep},
        )
        for i, id_ in enumerate(column_texts(best["id"]))
    ]


def _lists(table: pa.Table, *names: str) -> list[list[Any]]:
    return [table[name].to_pylist() for name in names]


def _predictions(column: pa.ChunkedArray[Any], config: Config) -> list[str]:
    values: list[Any] = column.to_pylist()
    if pa.types.is_integer(column.type):
        return [class_name(value, config) for value in values]
    return [", ".join(map(number, v[:COLUMNS])) if isinstance(v, list) else number(v) for v in values]


def cards(lines: list[Line], pictures: Pictures) -> str:
    """A gallery."""
    return f'<ol class="gallery">{"".join(_card(line, pictures.by_row.get(line.row_id)) for line in lines)}</ol>'


def _card(line: Line, picture: Picture | None) -> str:
    sure = f' <span class="muted">{esc(line.confidence)}</span>' if line.confidence else ""
    kept = "".join(
        f"<dt>{esc(name, VALUE)}</dt><dd><bdi>{esc(value, VALUE)}</bdi></dd>" for name, value in line.kept.items()
    )
    return (
        f'<li class="card"><div class="frame">{_image(line, picture)}</div>'
        f'<p class="rank"><span>{count(line.rank)}</span><span class="num">{esc(line.score)}</span></p>'
        f'<p class="class"><bdi>{esc(line.prediction, VALUE)}</bdi>{sure}</p>'
        f'<p class="id"><bdi>{esc(line.id, ID)}</bdi></p>' + (f"<dl>{kept}</dl>" if kept else "") + "</li>"
    )


def _image(line: Line, picture: Picture | None) -> str:
    if picture is None:
        return '<span class="muted">no picture</span>'
    pixelated = ' class="pixelated"' if picture.pixelated else ""
    return (
        f'<img{pixelated} src="{esc(picture.uri, len(picture.uri))}" width="{picture.width}" height="{picture.height}" '
        f'alt="{esc(line.id, ID)}">'
    )


def table(lines: list[Line]) -> str:
    """The same where there are no pictures."""
    keep = list(lines[0].kept)
    sure = any(line.confidence for line in lines)
    head = [("rank", True), ("id", False), ("score", True), ("prediction", False)]
    head += [("confidence", True)] * sure + [(name, False) for name in keep]
    heads = "".join(f'<th scope="col"{" class=num" if right else ""}>{esc(name, VALUE)}</th>' for name, right in head)
    body = "".join(_table_row(line, sure) for line in lines)
    return f"""<div class="card scroll tall" tabindex="0" role="region" aria-label="Selected rows">
<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>"""


def _table_row(line: Line, sure: bool) -> str:
    kept = "".join(f"<td><bdi>{esc(value, VALUE)}</bdi></td>" for value in line.kept.values())
    return (
        f'<tr><td class="num">{count(line.rank)}</td><th scope="row"><bdi>{esc(line.id, ID)}</bdi></th>'
        f'<td class="num">{esc(line.score)}</td><td><bdi>{esc(line.prediction, VALUE)}</bdi></td>'
        + (f'<td class="num">{esc(line.confidence)}</td>' if sure else "")
        + f"{kept}</tr>"
    )
