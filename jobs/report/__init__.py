"""`poolscore report`: one self-contained HTML page about a run, for the person who looks at it in the morning.

Reads the run directory, and from the pool only the selected rows: pictures that the shortlist does not have, text and
features. Needs neither torch nor Ray.
"""

from __future__ import annotations

from typing import BinaryIO

import pyarrow as pa

from poolscore.engine.errors import StoppedError
from poolscore.engine.run.directory import RunDirectory
from poolscore.engine.storage.filesystem import may_pass, reason
from poolscore.jobs.report import (
    balance,
    gallery,
    histogram,
    next_steps,
    page,
    rejected,
    summary,
    throughput,
    uncertainty,
)
from poolscore.jobs.report.distribution import read_distribution
from poolscore.jobs.report.facts import gather

REPORT = "report.html"


def write_report(run: RunDirectory, *, images: bool | None = None) -> str:
    """Write `report.html` into a run directory, finished or not; replaces an older one.

    Args:
        run: the run; its journal, parts, errors and selection are read, part by part.
        images: show pictures, text or features of the best rows; default: unless shortlist.thumbnail is 0, by which a
            run directory has none. What the shortlist lacks is read from the pool; where that is gone, the report is
            written without and says so.

    Returns:
        Path of the page.

    Raises:
        StoppedError: a part that the journal names cannot be read, or the page cannot be written.
    """
    try:
        html = _html(run, run.config.shortlist.thumbnail > 0 if images is None else images)
    except (OSError, pa.ArrowException) as error:
        what = (
            "its parts cannot be read just now"
            if may_pass(error)
            else "the run is damaged, a part named in its journal cannot be read"
        )
        raise StoppedError(f"{run.storage.root}: {what}: {reason(error)}") from error
    data = html.encode("utf-8", "backslashreplace")  # a path may hold bytes that are no text

    def fill(file: BinaryIO) -> None:
        file.write(data)

    run.storage.publish(REPORT, fill)
    return run.storage.path(REPORT)


def _html(run: RunDirectory, images: bool) -> str:
    facts = gather(run)
    distribution = read_distribution(run, facts.reports, *facts.row_ids)
    sections = [
        summary.banner(facts),
        summary.totals(facts),
        histogram.section(facts, distribution),
        uncertainty.section(facts, distribution),
        gallery.section(facts, distribution, gallery.look(facts, images)),
        balance.section(facts, distribution),
        rejected.section(facts),
        throughput.section(facts),
        next_steps.section(facts),
        summary.asked(facts),
    ]
    return page.page(summary.title(facts), [summary.heading(facts), page.contents(sections), *sections])
