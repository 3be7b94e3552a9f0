"""`poolscore status RUN --follow`: a run as it goes, from its directory alone; with a job, until that ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.text import Text

from poolscore.engine.errors import DONE, INCOMPLETE, INTERRUPTED, STOPPED, ConfigError
from poolscore.engine.run import directory
from poolscore.engine.run.directory import RunDirectory
from poolscore.engine.run.events import in_words
from poolscore.engine.run.heartbeat import Pulse
from poolscore.jobs import scripts, show
from poolscore.jobs.show.progress import PLAIN_LINE_EVERY
from poolscore.jobs.show.terminal import console
from poolscore.jobs.status import driver_in_words, facts_of, pace_in_words, state_of, time_of

EVERY = 2.0  # seconds between two looks
BEGIN = 60.0  # seconds in which a driver that made a run opens its journal, or has died before
SHARE = 0.1  # of the time at most is spent looking, which costs requests where the run lies in object storage
PATIENCE = 300.0  # seconds that storage may be away
EXIT_CODES = {  # of runs by older versions, which did not write theirs
    directory.DONE: DONE,
    directory.INCOMPLETE: INCOMPLETE,
    directory.STOPPED: STOPPED,
    directory.INTERRUPTED: INTERRUPTED,
}
State = dict[str, Any]  # see state_of


class Screen(Protocol):
    """Shows a run again and again."""

    def show(self, state: State) -> None:
        """What it is now."""


def follow(run_uri: str, stop: Callable[[], bool] | None = None, as_json: bool = False) -> int | None:
    """Show a run until it ends.

    Args:
        stop: asked after each look; then this ends when it says so, and a run that is not there yet is waited for.
        as_json: one JSON object a line, each as `status --json` has it.

    Returns:
        The run's exit code; 4 if its driver is gone. None: `stop` came first.

    Raises:
        ConfigError: there is no run, and no `stop`.
        StoppedError: its storage cannot be read.
    """
    pulse, first = Pulse(), time.monotonic()
    with _screen(as_json) as screen:
        while True:
            began = time.monotonic()
            over = stop is not None and stop()
            state = _look(run_uri, pulse, wait=stop is not None)
            if state is not None:
                screen.show(state)
            patient = time.monotonic() - first < BEGIN
            if over or (stop is None and state is not None and _is_over(run_uri, pulse, state, patient)):
                break
            time.sleep(max(EVERY, (time.monotonic() - began) / SHARE))
    if state is None:
        return None
    if state["status"] == directory.RUNNING and not over:
        driver = state["driver"]
        told = (
            driver_in_words(driver) if driver else "no driver has begun with it; the same command goes on with the run"
        )
        show.warn(f"{told}, or `poolscore retry {run_uri} --config CONFIG`")
    return _exit_code(state, over)


def _look(run_uri: str, pulse: Pulse, wait: bool) -> State | None:
    try:
        run = RunDirectory(run_uri, patience=PATIENCE)
    except ConfigError:
        if wait:
            return None
        raise
    return state_of(run, run.totals(), pulse.is_at_work, of_ended=True)


def _is_over(run_uri: str, pulse: Pulse, state: State, patient: bool) -> bool:
    """Whether nobody works on it any more.

    Args:
        patient: a run that no driver has opened yet may still be.
    """
    if state["driver"] is None and state["status"] == directory.RUNNING:
        return not patient
    at_work = state["driver"]["at_work"] if state["driver"] is not None else None  # None: nobody can tell
    if at_work or (at_work is None and state["status"] == directory.RUNNING):
        return False
    again = _look(run_uri, pulse, wait=False)  # the driver may have ended between two reads of the first look
    assert again is not None
    state.update(again)
    return True


def _exit_code(state: State, over: bool) -> int | None:
    if state["status"] == directory.RUNNING:
        return None if over else STOPPED
    return state["exit_code"] if state["exit_code"] is not None else EXIT_CODES.get(state["status"], STOPPED)


@contextmanager
def _screen(as_json: bool) -> Iterator[Screen]:
    if as_json:
        yield _Json()
    elif console.is_terminal:
        with Live(console=console, auto_refresh=False) as live:
            yield _Terminal(live)
    else:
        plain = _Plain()
        yield plain
        plain.end()


class _Json:
    def show(self, state: State) -> None:
        scripts.result(state, indent=None)


class _Terminal:
    def __init__(self, live: Live) -> None:
        self._live = live

    def show(self, state: State) -> None:
        lines = list(facts_of(state))
        width = max(len(label) for label, _ in lines)
        text = Text(state["run"], style="bold")
        for label, value in lines:
            text.append(f"\n  {label.ljust(width)}  ", style="not bold dim").append(value, style="not bold")
        bar = ProgressBar(total=max(1, state["rows"]["all"]), completed=state["rows"]["done"])
        self._live.update(Group(bar, text), refresh=True)


class _Plain:
    """A line now and then, one for each event, and the whole at the end."""

    def __init__(self) -> None:
        self._last: State | None = None
        self._told = 0.0  # when the latest event was that was told of
        self._line = float("-inf")

    def show(self, state: State) -> None:
        for event in state["events"] if self._last is not None else []:
            if event.get("at", 0.0) > self._told:
                show.done(f"{time_of(event)}  {in_words(event)}")
        self._told = max([self._told, *(event.get("at", 0.0) for event in state["events"])])
        self._last = state
        if time.monotonic() - self._line >= PLAIN_LINE_EVERY:
            self._line = time.monotonic()
            shards, rows = state["shards"], state["rows"]
            show.done(
                f"{rows['done']:,} of {rows['all']:,} rows  {shards['done']:,} of {shards['all']:,} shards  "
                f"{rows['rejected']:,} rejected  {pace_in_words(state)}"
            )

    def end(self) -> None:
        if self._last is not None:
            show.facts(self._last["run"], facts_of(self._last))
