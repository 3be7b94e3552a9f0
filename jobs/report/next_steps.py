"""Where the results are, and the command for what comes next."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from poolscore.engine.run import directory
from poolscore.jobs.report.facts import Facts
from poolscore.jobs.report.text import esc, rows

PATH = 1000  # characters: a command must be whole to be copied


def section(facts: Facts) -> str:
    """Commands first, then files."""
    return f"""
<section aria-labelledby="next">
<h2 id="next">What to do next</h2>
{_steps(facts)}
<dl class="facts">{_files(facts)}</dl>
</section>"""


def _steps(facts: Facts) -> str:
    steps = ""
    if facts.missing:
        what = "Score the missing shards" if facts.status == directory.INCOMPLETE else "Go on where the run stopped"
        steps += f"<p>{what}:</p>{_command('poolscore', 'score', 'CONFIG', '--resume')}"
    if facts.selection is not None and facts.selection.written and facts.selection.rows:
        steps += "".join(f"<p>{why}:</p>{_command(*words)}" for why, words in _after(facts))
    return steps


def _after(facts: Facts) -> Iterator[tuple[str, list[str]]]:
    """What to do with a batch: why, in HTML, and the command."""
    assert facts.selection is not None
    root = facts.run.storage.root
    tasks, labels = f"{root.rstrip('/')}-tasks", ["--labels", "labels.parquet"]
    yield (
        "Hand the batch to people, as tasks for Label Studio; <code>--to</code> takes cvat, csv, jsonl and folder, too",
        ["poolscore", "export-tasks", root, "--to", "labelstudio", "--out", tasks],
    )
    yield "Add what they answered to the labels", ["poolscore", "label", "import", tasks, "ANSWERS", *labels]
    if facts.selection.control:
        yield (
            f"See whether it was worth it: {rows(facts.selection.control)} of the batch were drawn at random, "
            "and nobody is told which",
            ["poolscore", "label", "worth", root, *labels],
        )
    yield (
        "Choose another batch from the stored scores, without a GPU and without the rows of this one",
        select_command(facts),
    )
    best = str(facts.selection.best["row_id"][0].as_py())
    yield "Why a row is where it is: the first", ["poolscore", "explain", root, "--row-id", best]


def select_command(facts: Facts) -> list[str]:
    """The words of a `poolscore select` that continues behind the selection."""
    assert facts.selection is not None
    storage = facts.run.storage
    taken = set(storage.names("selections"))
    number = next(n for n in range(2, len(taken) + 3) if not {f"batch-{n}.json", f"batch-{n}.parquet"} & taken)
    batch = ["--name", f"batch-{number}", "--k", str(facts.selection.rows), "--method", facts.selection.method]
    return ["poolscore", "select", storage.root, *batch, "--exclude", storage.path(directory.SELECTION)]


def _files(facts: Facts) -> str:
    storage = facts.run.storage
    files = {
        "scores of every row": f"{storage.root}/scores",
        "configuration, digests, profile": storage.path(directory.RUN),
    }
    if facts.selection is not None and facts.selection.written:
        files = {"the batch to label": storage.path(directory.SELECTION), **files}
    if facts.totals.rejected:
        files["rows that could not be scored"] = f"{storage.root}/errors"
    return "".join(f"<div><dt>{what}</dt><dd><code>{esc(path, PATH)}</code></dd></div>" for what, path in files.items())


def _command(*words: str) -> str:
    return f'<pre class="card" tabindex="0"><code>{esc(shlex.join(words), 4 * PATH)}</code></pre>'
