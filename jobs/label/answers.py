"""What people answered, whatever tool they used."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from poolscore.engine.errors import ConfigError


@dataclass(frozen=True)
class Given:
    """One person's answer to one task, as the tool's file has it."""

    ref: str  # by what the file knows the row
    by: Literal["task", "id"]  # ref is the task's name, or that of a file, which holds it; or the id
    value: Any  # a class, a list of labels, a number, or text that stands for one; None: skipped
    annotator: str  # '' where the file does not say
    at: datetime | None  # in UTC
    where: str  # for errors


def when(text: Any, where: str) -> datetime | None:
    """A time as tools write it (ISO 8601), in UTC; None: there is none.

    Raises:
        ConfigError: it is no time.
    """
    if text is None or text == "":
        return None
    try:
        found = datetime.fromisoformat(str(text))
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ConfigError(f"{where}: {text!r} is no time; write it as 2026-01-31T12:00:00Z") from error


def who(annotator: Any) -> str:
    """The person by the tool's own name or number; '' where it is not said."""
    if isinstance(annotator, dict):  # Label Studio may write all that it knows of its user
        annotator = next((annotator[k] for k in ("email", "username", "id") if annotator.get(k) not in (None, "")), "")
    return "" if annotator is None else str(annotator)
