"""`poolscore status`: how far a run is, and whether anybody works on it, from its directory alone."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from poolscore.engine.run import directory
from poolscore.engine.run.directory import RunDirectory
from poolscore.engine.run.heartbeat import is_at_work
from poolscore.engine.run.mixed import mixed_in_words
from poolscore.engine.run.records import newest
from poolscore.engine.run.totals import Totals
from poolscore.engine.stages import idle_share
from poolscore.jobs import show
from poolscore.jobs.verified import RANDOM_PART, verified_in_words

SHOWN = 5  # events, the latest
ASIDE = 20  # shards


def show_status(run: RunDirectory, as_json: bool) -> None:
    """Print it, for people or for scripts."""
    totals = run.totals()
    with show.busy("asking for its driver"):
        state = state_of(run, totals)
    if as_json:
        print(json.dumps(state, indent=2))
        return
    facts = show.Facts(run.storage.root)
    facts.add("status", _status(state))
    if (driver := _driver(state)) is not None:
        facts.add("driver", driver)
    facts.add("shards", f"{totals.shards:,} of {state['shards']['all']:,}")
    left_out = f", {totals.filtered:,} filtered" if totals.filtered else ""
    whole = state["finished"] or state["set_aside"] or totals.shards == state["shards"]["all"]
    part = "" if whole else f", {RANDOM_PART}"
    share = f" ({totals.rows / max(1, state['rows']['all']):.1%}{part})"
    facts.add(
        "rows",
        f"{totals.rows:,} of {state['rows']['all']:,}{share}; {totals.rejected:,} rejected, {totals.excluded:,} "
        f"excluded{left_out}",
    )
    facts.add("speed", f"{totals.rows_per_worker_second:,.0f} rows/s per worker")
    show.add_stages(facts, totals)
    for label in ("created", "updated", "deadline"):
        if state[label]:
            facts.add(label, state[label])
    for earlier in state["extends"]:
        facts.add("extends", earlier["run"])
    for shard, reason in list(state["set_aside"].items())[:ASIDE]:
        facts.add(f"shard {shard}", f"set aside: {reason}")
    if (more := len(state["set_aside"]) - ASIDE) > 0:
        facts.add("set aside", f"{more:,} more shards")
    if state["mixed"] is not None:
        facts.add("mixed", state["mixed"])
    for event in state["events"][-SHOWN:]:
        facts.add(*_event(event))
    if state["verified"]:
        facts.add("verified", verified_in_words(state["verified"]))
    facts.show()


def state_of(run: RunDirectory, totals: Totals) -> dict[str, Any]:
    """What `--json` prints."""
    info, pool = run.info, run.info["pool"]
    return {
        "status": info["status"],
        "finished": run.succeeded,
        "run": run.storage.root,
        "shards": {"done": totals.shards, "all": pool["shards"]},
        "rows": {
            "all": pool["rows"],
            "scored": totals.scored,
            "rejected": totals.rejected,
            "excluded": totals.excluded,
            "filtered": totals.filtered,
        },
        "rows_per_worker_second": totals.rows_per_worker_second,
        "stage_seconds": dict(totals.stages),
        "idle_share": idle_share(totals.stages) if totals.stages else None,
        "set_aside": info.get("set_aside") or {},
        "mixed": mixed_in_words(info, totals.profiles),
        "stopped_by": info.get("stopped_by"),
        "deadline": info.get("deadline"),
        "extends": info.get("extends") or [],
        "driver": _driver_of(run) if info["status"] == directory.RUNNING else None,
        "events": info.get("events") or [],
        "verified": info.get("verified"),
        "created": info["created"],
        "updated": info["updated"],
    }


def _driver_of(run: RunDirectory) -> dict[str, Any] | None:
    opening = newest(run.storage)
    if opening is None:
        return None
    told = opening.driver
    return {"host": told.get("host"), "pid": told.get("pid"), "at_work": is_at_work(run.storage, opening)}


def _status(state: Mapping[str, Any]) -> str:
    if state["finished"]:
        return str(directory.DONE)
    return f"{state['status']}: {state['stopped_by']}" if state["stopped_by"] else str(state["status"])


def _driver(state: Mapping[str, Any]) -> str | None:
    driver = state["driver"]
    if driver is None:
        return None
    process = f"process {driver['pid']} on {driver['host']}"
    if driver["at_work"] is None:
        return f"{process}, of an older version: whether it is at work cannot be told"
    return f"{process} is at work" if driver["at_work"] else f"{process} is gone; the same command goes on with the run"


def _event(event: Mapping[str, Any]) -> tuple[str, str]:
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event.get("at", 0)))
    shard = f", shard {event['shard']}" if event.get("shard") is not None else ""
    why = f": {event['why']}" if event.get("why") else ""
    return at, f"worker {event.get('worker')} {event.get('what')}{shard}{why}"
