"""The top of the page: what was asked, what it came to, and whether that is all."""

from __future__ import annotations

from pathlib import PurePath

from poolscore.engine.run import directory
from poolscore.engine.run.mixed import mixed_in_words
from poolscore.engine.words import amount
from poolscore.jobs.report.facts import Facts
from poolscore.jobs.report.text import count, duration, esc, percent, rows, size
from poolscore.jobs.report.words import words_of
from poolscore.jobs.shortlisted import shortlist_in_words
from poolscore.jobs.verified import RANDOM_PART, verified_in_words

NAMED = 20  # set-aside shards in the banner
FILES = 3  # of each
STATES = {
    directory.DONE: "complete",
    directory.INCOMPLETE: "incomplete",
    directory.RUNNING: "not finished",
    directory.STOPPED: "stopped",
    directory.INTERRUPTED: "interrupted",
}


def title(facts: Facts) -> str:
    """Of the page; not escaped."""
    return f"poolscore: {pool_name(facts)}"


def pool_name(facts: Facts) -> str:
    """The last part of the pool's address."""
    return PurePath(facts.config.pool.uri).name or facts.config.pool.uri


def heading(facts: Facts) -> str:
    """One sentence that says what lies before the reader."""
    selection = facts.selection
    head = "Nothing is scored yet"
    if selection is not None and not selection.rows:
        head = "No rows to label"
    elif selection is not None:
        so_far = "" if selection.written else " so far"
        head = f"The {rows(selection.rows)} most worth labelling{so_far}"
    state = STATES.get(facts.status, facts.status)
    kind = "good" if facts.status == directory.DONE else "warn"
    passes = facts.config.passes.count
    by = f"by {esc(words_of(facts.score).title)} over {passes} passes" if passes > 1 else f"by {esc(facts.score)}"
    return f"""
<header>
<p class="over">poolscore report <span class="chip {kind}">{esc(state)}</span></p>
<h1>{head}</h1>
<p class="lead">From <strong><bdi>{esc(pool_name(facts))}</bdi></strong>, a pool of {rows(facts.pool_rows)}, {by}.</p>
</header>"""


def banner(facts: Facts) -> str:
    """Says plainly when the run is not whole."""
    if not facts.missing:
        return _wrong(facts)
    left = facts.pool_rows - facts.totals.rows
    what = {
        directory.INCOMPLETE: "Some shards could not be scored. The batch is the best of the rest.",
        directory.STOPPED: "The run was stopped before its end and can be resumed.",
        directory.INTERRUPTED: "The run was interrupted and can be resumed.",
    }.get(facts.status, "The run is still going on, or it was killed and can be resumed.")
    reason = facts.run.info.get("stopped_by") if facts.status in (directory.STOPPED, directory.INCOMPLETE) else None
    if facts.status == directory.INCOMPLETE and reason:
        what = f"The run ended at a limit and can be resumed. The batch is the best of {RANDOM_PART}."
    return f"""{_wrong(facts)}
<section class="banner" aria-label="The run is not whole">
<p><strong>{what}</strong></p>
<p>{count(len(facts.missing))} of {count(len(facts.run.plan.shards))} shards have no result:
{rows(left)}, {percent(left, facts.pool_rows)} of the pool.</p>
{f"<p>Stopped by: <bdi>{esc(reason, 500)}</bdi></p>" if reason else ""}
{_set_aside(facts)}
</section>"""


def _wrong(facts: Facts) -> str:
    """Scores that came out otherwise when they were computed again."""
    found = (facts.run.info.get("verified") or {}).get("wrong", ())
    if not found:
        return ""
    lines = "".join(f"<li><bdi>{esc(one, 300)}</bdi></li>" for one in found)
    return f"""
<section class="banner" aria-label="Scores are wrong">
<p><strong>Scores came out otherwise when they were computed again. Do not label by them.</strong></p>
<ul>{lines}</ul>
</section>"""


def _set_aside(facts: Facts) -> str:
    lines = []
    for index, reason in list(facts.set_aside.items())[:NAMED]:
        shard = facts.run.plan.shards[index]
        files = list(dict.fromkeys(piece.path for piece in shard.pieces))
        more = f" and {amount(len(files) - FILES, 'more file')}" if len(files) > FILES else ""
        named = ", ".join(f"<code>{esc(path)}</code>" for path in files[:FILES])
        lines.append(
            f"<li><strong>Shard {index}</strong> ({rows(shard.rows)} in {named}{more}): "
            f"<bdi>{esc(reason, 300)}</bdi></li>"
        )
    left = len(facts.set_aside) - len(lines)
    more_shards = f"<p>and {count(left)} more; all are in <code>run.json</code>.</p>" if left else ""
    return f"<ul>{''.join(lines)}</ul>{more_shards}" if lines else ""


def totals(facts: Facts) -> str:
    """The numbers of the run."""
    t = facts.totals
    workers = len({report.worker for report in facts.reports.values()})
    tiles = [
        (count(t.scored), "rows scored", percent(t.scored, facts.pool_rows) + " of the pool"),
        (count(t.rejected), "rejected", "see below" if t.rejected else "no bad row"),
        (count(t.excluded), "excluded", "labelled already" if t.excluded else "no row"),
        *([(count(t.filtered), "left out", "by filter or sample")] if t.filtered else []),
        (duration(t.worker_seconds), "worker time", f"{count(workers)} worker{'' if workers == 1 else 's'}"),
        (count(round(t.rows_per_worker_second)), "rows/s per worker", f"{facts.config.passes.count} passes each"),
        (count(t.shards), "shards", f"of {count(len(facts.run.plan.shards))}, from {_files(facts)}"),
    ]
    shown = "".join(
        f'<li class="card"><strong>{esc(value)}</strong><span>{esc(name)}</span><small>{esc(note)}</small></li>'
        for value, name, note in tiles
    )
    return f'<section aria-label="Totals"><ul class="tiles">{shown}</ul></section>'


def _files(facts: Facts) -> str:
    files = int(facts.run.info["pool"]["files"])
    return f"{amount(files, 'file')}, {size(int(facts.run.info['pool']['bytes']))}"


def asked(facts: Facts) -> str:
    """The question, and what its last bits depend on."""
    config, info = facts.config, facts.run.info
    selection = facts.selection
    lines = {
        "pool": config.pool.uri,
        "model": config.model.source,
        "weights": config.model.weights or "as the factory makes them",
        "task": config.model.task.value,
        "passes": f"{config.passes.count}, {config.passes.masks} masks, {config.passes.precision}",
        "selected by": f"{facts.score}, {selection.method if selection else config.select.method}",
        "rows to label": count(selection.rows if selection and selection.written else config.select.k),
        "seed": config.passes.seed,
        "excluded ids": ", ".join(config.pool.exclude_lists) or "none",
        **_chosen(facts),
        "started": info["created"],
        "last change": info["updated"],
        **({"shortlist": shortlist_in_words(info["shortlist"])} if info.get("shortlist") else {}),
        **({"verified": verified_in_words(info["verified"])} if info.get("verified") else {}),
        "poolscore": info["poolscore"],
    }
    profile = info.get("profile") or {}
    mixed = mixed_in_words(info, facts.totals.profiles)
    digests = {"pool": info["pool"]["digest"], **{k: v for k, v in info["identity"].items() if k.startswith("the ")}}
    return f"""
<section aria-labelledby="asked">
<h2 id="asked">What was asked</h2>
<dl class="facts">{_pairs(lines)}</dl>
<details><summary>Numeric profile and digests</summary>
<p class="muted">Within one profile the scores are the same to the last bit, on any number of workers.</p>
{f"<p>This run is mixed: <bdi>{esc(mixed, 500)}</bdi>.</p>" if mixed is not None else ""}
<dl class="facts">{_pairs(profile)}{_pairs(digests)}</dl></details>
</section>"""


def _chosen(facts: Facts) -> dict[str, object]:
    """What of the pool was not to be scored, where there is such a thing."""
    config, pool = facts.config.pool, facts.run.info["pool"]
    lines: dict[str, object] = {}
    if config.filter is not None:
        lines["filter"] = config.filter
    if config.sample is not None:
        lines["sample"] = config.sample
    if pool.get("passed_over"):
        lines["passed over"] = f"{rows(pool['passed_over'])} in row groups outside filter or sample"
    if pool.get("bad_files"):
        lines["unreadable files"] = f"{count(pool['bad_files'])}, left out; see {directory.BAD_FILES}"
    return lines


def _pairs(lines: dict[str, object]) -> str:
    return "".join(
        f"<div><dt>{esc(name)}</dt><dd><bdi>{esc(value, 500)}</bdi></dd></div>" for name, value in lines.items()
    )
