"""The terminal: its two consoles, one line of each kind, and tables of facts."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape

from poolscore.engine import log

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)


class _Notes(logging.Handler):
    """Warnings of the engine, for people. Events are not among them: the run directory has them."""

    def emit(self, record: logging.LogRecord) -> None:
        if not hasattr(record, "fields"):
            warn(record.getMessage())


def set_up_log() -> None:
    """The log of the command line's process: what POOLSCORE_LOG asks for, else notes.

    Raises:
        ConfigError: it asks for something else.
    """
    logging.getLogger("poolscore.model").setLevel(logging.ERROR)  # told with the plan, see before.warnings
    if (form := log.asked_for()) is not None:
        log.set_up(form)
    else:
        log.LOG.addHandler(_Notes(logging.WARNING))


def done(text: str) -> None:
    """A result."""
    console.print(escape(text), soft_wrap=True)


def warn(text: str) -> None:
    """Something to know."""
    if log.form_of_log() is not None:
        log.event(logging.WARNING, text)
    else:
        errors.print(f"[yellow]note:[/] {escape(text)}", soft_wrap=True)


def failure(text: str) -> None:
    """Why the command stopped."""
    if log.form_of_log() is not None:
        log.event(logging.ERROR, text)
    else:
        errors.print(f"[red]poolscore:[/] {escape(text)}", soft_wrap=True)


@contextmanager
def busy(what: str) -> Iterator[None]:
    """A spinner for what takes seconds."""
    if console.is_terminal:
        with console.status(what):
            yield
    else:
        yield


class Facts:
    """Two columns, label and value; a value is never folded, so that paths can be copied and scripts can read lines."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._rows: list[tuple[str, str]] = []

    def add(self, label: str, value: str) -> None:
        self._rows.append((label, value))

    def show(self) -> None:
        width = max((len(label) for label, _ in self._rows), default=0)
        console.print(f"[bold]{escape(self._title)}[/]", soft_wrap=True)
        for label, value in self._rows:
            console.print(f"  [dim]{escape(label.ljust(width))}[/]  {escape(value)}", soft_wrap=True)


def facts(title: str, lines: Iterable[tuple[str, str]]) -> None:
    """Labels and values."""
    found = Facts(title)
    for label, value in lines:
        found.add(label, value)
    found.show()


def duration(seconds: float) -> str:
    """Seconds, in words."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
