"""The log: one line for each event, as text or JSON, each with the run's id and epoch. On standard error.

POOLSCORE_LOG=text or json asks for it. A library must leave logging alone, so only processes of our own call `set_up`:
the command line, and workers on Ray, whose lines go into Ray's log files.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

from poolscore.engine.errors import ConfigError

LOG = logging.getLogger("poolscore")
VARIABLE = "POOLSCORE_LOG"
FORMS = ("text", "json")
_bound: dict[str, Any] = {}  # fields of every line of this process


class Lines(logging.StreamHandler[TextIO]):
    """Writes records to standard error, whatever that is when they come: a progress bar takes its place for a while,
    and writes lines above itself."""

    def __init__(self, form: str) -> None:
        super().__init__(sys.stderr)
        self.form = form

    def emit(self, record: logging.LogRecord) -> None:
        """See logging.Handler."""
        self.stream = sys.stderr
        super().emit(record)

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        message = " ".join(record.getMessage().split())
        fields = {**_bound, **getattr(record, "fields", {})}
        if record.exc_info:
            fields["exception"] = logging.Formatter().formatException(record.exc_info)
        if self.form == "json":
            line = {"time": at, "level": record.levelname.lower(), "message": message, **fields}
            return json.dumps(line, default=str, ensure_ascii=False)
        known = " ".join(f"{name}={value}" for name, value in _bound.items())
        raised = " | ".join(str(fields.get("exception", "")).splitlines())
        return " ".join(part for part in (at, record.levelname, known, message, raised) if part)


def asked_for() -> str | None:
    """What POOLSCORE_LOG asks for; None: nothing.

    Raises:
        ConfigError: something else.
    """
    form = os.environ.get(VARIABLE) or None
    if form is not None and form not in FORMS:
        raise ConfigError(f"{VARIABLE}={form}: it is {' or '.join(FORMS)}")
    return form


def set_up(form: str, level: int = logging.INFO, **fields: Any) -> None:
    """Write the log of this process; `fields` are part of every line. Called again: in another way."""
    for handler in [handler for handler in LOG.handlers if isinstance(handler, Lines)]:
        LOG.removeHandler(handler)
    LOG.addHandler(Lines(form))
    LOG.setLevel(level)
    LOG.propagate = False
    bind(**fields)


def set_up_worker(form: str | None, **fields: Any) -> None:
    """The same in a worker's process; what Ray keeps of it has warnings at least, whatever the driver writes."""
    set_up(form or "text", logging.INFO if form else logging.WARNING, **fields)


def bind(**fields: Any) -> None:
    """From now on these are part of every line of this process."""
    _bound.update(fields)


def bound() -> dict[str, Any]:
    """Fields of every line of this process."""
    return dict(_bound)


def form_of_log() -> str | None:
    """How this process writes its log; None: it does not."""
    return next((handler.form for handler in LOG.handlers if isinstance(handler, Lines)), None)


def event(level: int, message: str, **fields: Any) -> None:
    """A line with fields of its own."""
    LOG.log(level, "%s", message, extra={"fields": fields})
