"""Which shortlist is wanted of a run, and whether it has that one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from poolscore.engine.config import Config
from poolscore.engine.errors import StoppedError
from poolscore.engine.run.directory import RunDirectory
from poolscore.engine.run.journal import ShardReport
from poolscore.engine.run.totals import Totals
from poolscore.engine.selection.choice import Choice
from poolscore.engine.selection.ranking import METHODS
from poolscore.engine.shortlist.cut import Labelled
from poolscore.engine.shortlist.read import about_shortlist, scores_digest


def wanted_of(reports: Mapping[int, ShardReport], config: Config, labelled: Labelled | None) -> dict[str, Any]:
    """What the shortlist is to be made of: `rows` of them, by `of`."""
    choice = ranked_by(config, 0)
    return {
        "rows": config.shortlist.rows_of(Totals.of(reports).scored, config.select.k),
        "control": round(config.select.control * config.select.k),
        "control_seed": choice.seed,
        "max_bytes": config.shortlist.max_bytes,
        "of": {
            **{name: value for name, value in choice.manifest().items() if name != "k"},
            "scores": scores_digest(reports),
            "thumbnail": config.shortlist.thumbnail,
            "labelled": labelled.digest if labelled is not None else None,
        },
    }


def made_of(run: RunDirectory, wanted: Mapping[str, Any]) -> dict[str, Any] | None:
    """The shortlist that the run has, if it is the one that is wanted: whole, and of as many rows or more of the
    same."""
    try:
        about = about_shortlist(run)
    except StoppedError:  # damaged
        return None
    if about is None or about["missing"]:
        return None
    there = about["wanted"]
    if there["of"] != wanted["of"] or there["rows"] < wanted["rows"]:
        return None
    same_draws = there["control_seed"] == wanted["control_seed"] and there["control"] >= wanted["control"]
    if wanted["control"] and not same_draws:
        return None
    room = wanted["max_bytes"]
    fits = about["rows"] * about["row_bytes"] <= room and not (about["cut"] and there["max_bytes"] < room)
    return about if fits else None


def lacks_shortlist(run: RunDirectory, config: Config, labelled: Labelled | None) -> bool:
    """Whether a shortlist is to be made for the run as it is."""
    wanted = wanted_of(run.reports(), config, labelled)
    return bool(wanted["rows"]) and made_of(run, wanted) is None


def ranked_by(config: Config, rows: int) -> Choice:
    """Which rows: where the method ranks rows one by one they hold the batch; else they are the best by score."""
    method = config.select.method if config.select.method in METHODS else "topk"
    return Choice.of(config, k=rows, method=method, max_per_group={}, quotas={}, control=0.0)
