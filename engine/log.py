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


class Lines(logging.StreamHandler[TextIO]):
    """Writes records to standard error, whatever that is when they come."""

    def __init__(self, form: str) -> None:
        logging.Handler.__init__(self)
        self.form = form
        self.fields: dict[str, Any] = {}  # of every line

    @property
    def stream(self) -> TextIO:
        """A progress bar takes standard error's place for a while, and writes lines above itself."""
        return sys.stderr

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        fields = {**self.fields, **getattr(record, "fields", {})}
        message = " ".join(record.getMessage().split())
        if self.form == "json":
            line = {"time": at, "level": record.levelname.lower(), "message": message, **fields}
            return json.dumps(line, default=str, ensure_ascii=False)
        own = " ".join(f"{name}={value}" for name, value in self.fields.items())
        return " ".join(part for part in (at, record.levelname, own, message) if part)


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
    for handler in _handlers():
        LOG.removeHandler(handler)
    LOG.addHandler(Lines(form))
    LOG.setLevel(level)
    LOG.propagate = False
    bind(**fields)


def bind(**fields: Any) -> None:
    """From now on these are part of every line of this process."""
    for handler in _handlers():
        handler.fields.update(fields)


def form_of_log() -> str | None:
    """How this process writes its log; None: it does not."""
    return next((handler.form for handler in _handlers()), None)


def event(level: int, message: str, **fields: Any) -> None:
    """A line with fields of its own."""
    LOG.log(level, "%s", message, extra={"fields": fields})


def _handlers() -> list[Lines]:
    return [handler for handler in LOG.handlers if isinstance(handler, Lines)]
