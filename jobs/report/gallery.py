"""The batch to label: pictures where the pool has them, else a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from poolscore.engine.selection.alike import NearDuplicates
from poolscore.jobs.report.distribution import Distribution
from poolscore.jobs.report.facts import SHOWN, Facts, Selection
from poolscore.jobs.report.lines import Entropies, Line, Votes, lines_of
from poolscore.jobs.report.pictures import Picture, Pictures, Values, read_pictures, read_values
from poolscore.jobs.report.shortlisted import Shortlisted, read_shortlisted
from poolscore.jobs.report.text import NBSP, count, esc, key, number, rows, shortened

FIRST = 24  # cards that are there at once; the others are one click away
VALUE = 60  # characters of a name
TEXT = 240  # characters of a value
LONG = 24  # characters of a value that needs room
ID = 80  # characters of an id
NOTE = 500  # characters of a sentence


@dataclass(frozen=True)
class Seen:
    """What is known of the rows on the page beside the selection."""

    shortlisted: Shortlisted = field(default_factory=Shortlisted)
    pictures: Pictures | None = None  # None: the pool has none, or none are wanted
    values: Values = field(default_factory=dict)
    problems: Counter[str] = field(default_factory=Counter)  # why values are missing → rows


def look(facts: Facts, images: bool) -> Seen:
    """Read votes and pictures from the shortlist; from the pool pictures that it does not have, text and features.

    Args:
        images: False: nothing that people see of a row is wanted, and the pool is not read.
    """
    if facts.selection is None:
        return Seen()
    best, (_, shown) = facts.selection.best, facts.row_ids
    shortlisted = read_shortlisted(facts.run, shown, images)
    if not images:
        return Seen(shortlisted)
    row_ids: list[int] = best["row_id"].to_pylist()
    left = pa.array([row_id not in shortlisted.pictures for row_id in row_ids], pa.bool_())
    pictures = read_pictures(facts.run, best.filter(left))
    if pictures is not None:
        pictures.by_row |= shortlisted.pictures
        pictures.cut(row_ids)
    problems: Counter[str] = Counter()
    return Seen(shortlisted, pictures, read_values(facts.run, best, problems), problems)


def section(facts: Facts, distribution: Distribution, seen: Seen) -> str:
    """The best rows, at most SHOWN of them."""
    selection = facts.selection
    if selection is None or not selection.rows:
        return ""
    lines = lines_of(selection.best, facts.config, distribution.shown, seen.shortlisted.passes, seen.values)
    pictures = seen.pictures
    title = "The batch to label" if selection.written else "The best rows so far"
    body = cards(lines, pictures) if pictures is not None and pictures.by_row else table(lines)
    return f"""
<section aria-labelledby="batch">
<h2 id="batch">{title}</h2>
<p class="lead">{_lead(selection, lines, seen)}</p>
{_alike(selection, facts)}
{_problems(pictures.problems if pictures is not None else seen.problems, len(lines), pictures is not None)}
{_damaged(seen.shortlisted)}
{body}
</section>"""


def _lead(selection: Selection, lines: Sequence[Line], seen: Seen) -> str:
    text = f"{rows(selection.rows)}, best first"
    if selection.rows > SHOWN:
        text = f"The first {count(SHOWN)} of {rows(selection.rows)}, best first"
    if not selection.written:
        text += "; chosen for this page from the shards that are scored, not written to the run"
    if seen.pictures is None and not any(line.seen or line.kept for line in lines):
        text += ". The pool has no pictures to show; columns named in <code>pool.keep</code> appear here"
    text += "."
    if (votes := next((line.votes for line in lines if line.votes), None)) is not None:
        text += f" Votes: how many of the {votes.of} passes say so."
    if any(line.entropies for line in lines):
        text += (
            f" The entropy of a row is {key('expected', 'what single')} passes are unsure of (expected entropy) and "
            f"{key('bald', 'what they')} disagree about (BALD)."
        )
    return text


def _alike(selection: Selection, facts: Facts) -> str:
    """How many near-duplicates the written batch holds."""
    entry = facts.run.info.get("near_duplicates")
    if not selection.written or not entry:  # none in the runs of older versions
        return ""
    return f'<p class="note">Near-duplicates: {esc(NearDuplicates.from_json(entry).in_words(), NOTE)}.</p>'


def _problems(problems: Counter[str], of: int, pictures: bool) -> str:
    missing = sum(problems.values())
    if not missing:
        return ""
    reasons = "; ".join(
        esc(reason) if n == missing else f"{esc(reason)}: {count(n)}" for reason, n in problems.most_common(3)
    )
    what = "pictures" if pictures else "inputs"
    how_many = f"No {what}" if missing >= of else f"{count(missing)} of {count(of)} {what} are not shown"
    return f'<p class="note">{how_many}: {reasons}.</p>'


def _damaged(shortlisted: Shortlisted) -> str:
    return f'<p class="note">{esc(shortlisted.damaged, NOTE)}.</p>' if shortlisted.damaged else ""


def cards(lines: Sequence[Line], pictures: Pictures) -> str:
    """A gallery; what comes after the first rows is folded, so that the page behind it is near."""
    most = max((line.entropies.entropy for line in lines if line.entropies), default=0.0)
    shown = [_card(line, pictures.by_row.get(line.row_id), most) for line in lines]
    gallery = f'<ol class="gallery">{"".join(shown[:FIRST])}</ol>'
    if len(shown) <= FIRST:
        return gallery
    return (
        f"{gallery}<details><summary>The other {count(len(shown) - FIRST)}</summary>"
        f'<ol class="gallery" start="{FIRST + 1}">{"".join(shown[FIRST:])}</ol></details>'
    )


def _card(line: Line, picture: Picture | None, most: float) -> str:
    sure = f' <span class="muted">{esc(line.confidence)}</span>' if line.confidence else ""
    kept = "".join(
        f"<dt>{esc(name, VALUE)}</dt><dd><bdi>{esc(value, TEXT)}</bdi></dd>"
        for name, value in (line.seen | line.kept).items()
    )
    return (
        f'<li class="card"><div class="frame">{_image(line, picture)}</div>'
        f'<p class="rank"><span>{count(line.rank)}</span><span class="num">{esc(line.score)}</span></p>'
        f'<p class="class"><bdi>{esc(line.prediction, VALUE)}</bdi>{sure}</p>'
        f'<p class="id"><bdi>{esc(line.id, ID)}</bdi></p>'
        f"{_votes(line.votes)}{_entropies(line.entropies, most)}" + (f"<dl>{kept}</dl>" if kept else "") + "</li>"
    )


def votes_in_words(votes: Votes) -> str:
    """'cat: 12, dog: 7, others: 1'; 'none' where no pass says yes to a label."""
    told = [f"{shortened(name, VALUE)}:{NBSP}{n}" for name, n in votes.each] + [f"others:{NBSP}{votes.rest}"] * (
        votes.rest > 0
    )
    return ", ".join(told) or "none"


def _votes(votes: Votes | None) -> str:
    """A bar of the passes' shares, but not of labels: a pass may say yes to several of them."""
    if votes is None:
        return ""
    shares = "".join(f'<span style="width:{100 * n / votes.of:.2f}%"></span>' for _, n in votes.each)
    one_each = sum(n for _, n in votes.each) + votes.rest == votes.of
    bar = f'<div class="stack votes" aria-hidden="true">{shares}</div>' if one_each else ""
    return f'{bar}<p class="said">votes <bdi>{esc(votes_in_words(votes), TEXT)}</bdi></p>'


def _entropies(entropies: Entropies | None, most: float) -> str:
    """A bar: expected entropy and what it lacks to the entropy. `most`: the largest entropy on the page."""
    if entropies is None or most <= 0:
        return ""
    parts = (("expected", entropies.expected), ("bald", entropies.bald))
    shares = "".join(f'<span class="{kind}" style="width:{100 * value / most:.2f}%"></span>' for kind, value in parts)
    said = f"entropy{NBSP}{number(entropies.entropy)}, expected{NBSP}{number(entropies.expected)}"
    return f'<div class="stack" aria-hidden="true">{shares}</div><p class="said">{said}</p>'


def _image(line: Line, picture: Picture | None) -> str:
    if picture is None:
        return '<span class="muted">no picture</span>'
    pixelated = ' class="pixelated"' if picture.pixelated else ""
    return (
        f'<img{pixelated} src="{esc(picture.uri, len(picture.uri))}" width="{picture.width}" height="{picture.height}" '
        f'alt="{esc(line.id, ID)}" loading="lazy" decoding="async">'
    )


def table(lines: Sequence[Line]) -> str:
    """The same where there are no pictures."""
    first, last = _columns(lines)
    sure, voted = any(line.confidence for line in lines), any(line.votes for line in lines)
    measured = any(line.entropies for line in lines)
    head = [("rank", True), ("id", False), *[(name, False) for name in first]]
    head += [("score", True), ("prediction", False), *[("confidence", True)] * sure]
    head += [("votes", False)] * voted + [("entropy", True), ("expected", True)] * measured
    head += [(name, False) for name in last]
    heads = "".join(f'<th scope="col"{" class=num" if right else ""}>{esc(name, VALUE)}</th>' for name, right in head)
    body = "".join(_table_row(line, first, last, sure, voted, measured) for line in lines)
    return f"""<div class="card scroll tall" tabindex="0" role="region" aria-label="Selected rows">
<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>"""


def _columns(lines: Sequence[Line]) -> tuple[list[str], list[str]]:
    """Of what people see, and of what is kept: a single text stands beside the id, the others come last."""
    seen, kept = list(lines[0].seen), list(lines[0].kept)
    return (seen, kept) if len(seen) == 1 else ([], seen + kept)


def _table_row(line: Line, first: Sequence[str], last: Sequence[str], sure: bool, voted: bool, measured: bool) -> str:
    cells = [f'<td class="num">{esc(line.confidence)}</td>'] * sure
    cells += [_cell(votes_in_words(line.votes) if line.votes else "–")] * voted
    if measured:
        both = (line.entropies.entropy, line.entropies.expected) if line.entropies else ()
        cells += [f'<td class="num">{number(value)}</td>' for value in both] or ["<td></td>"] * 2
    values = line.seen | line.kept
    cells += [_cell(values[name]) for name in last]
    before = "".join(_cell(values[name]) for name in first)
    return (
        f'<tr><td class="num">{count(line.rank)}</td><th scope="row"><bdi>{esc(line.id, ID)}</bdi></th>'
        f'{before}<td class="num">{esc(line.score)}</td>'
        f"<td><bdi>{esc(line.prediction, VALUE)}</bdi></td>{''.join(cells)}</tr>"
    )


def _cell(text: str) -> str:
    """A cell of a table; long text gets a wide one."""
    wide = ' class="wide"' if len(text) > LONG else ""
    return f"<td{wide}><bdi>{esc(text, TEXT)}</bdi></td>"
