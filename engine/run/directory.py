"""The run directory: what a run leaves behind, and how it is read again.

Readers (`select`, `report`, `status`) import neither torch nor Ray.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import pyarrow as pa

from poolscore.engine.config import Config, parse_config
from poolscore.engine.errors import ConfigError, StoppedError
from poolscore.engine.pool.plan import Plan
from poolscore.engine.run.events import RunEvent, log_event
from poolscore.engine.run.footers import FOOTERS
from poolscore.engine.run.journal import Journal, ShardReport, read_reports, require_no_driver
from poolscore.engine.run.records import newest
from poolscore.engine.run.totals import Totals
from poolscore.engine.storage.base import Storage
from poolscore.engine.storage.filesystem import require_reachable
from poolscore.engine.storage.open import open_storage

EVENTS = 200  # the latest are kept
KEEP_UP = 10.0  # seconds
FORMAT = 1  # of the run directory; readers of a newer one read older ones
RUN, PLAN, SUCCESS, SELECTION = "run.json", "plan.parquet", "_SUCCESS", "selection.parquet"
BAD_FILES = "bad_files.json"  # path → why the file could not be read, where pool.bad_files is 'skip'
RUNNING, DONE, INCOMPLETE, STOPPED, INTERRUPTED = "running", "done", "incomplete", "stopped", "interrupted"

_ENTRIES = {"poolscore": str, "status": str, "created": str, "updated": str, "config": dict, "identity": dict}
_POOL_ENTRIES = {"rows": int, "shards": int}  # both: what readers rely on

_SECRET = re.compile(
    "secret|passw|passphrase|credential|authorization|(api|access|private)[_-]?key|(^|[_-]|auth|access|bearer|hf)token$",
    re.IGNORECASE,
)
REDACTED = "[redacted]"
_USERINFO = re.compile(r"(?<=://)(?!anonymous@)[^/\s]+@")


class RunDirectory:
    """A run that exists.

    Args:
        plan: its plan, where it is known: a large one need not be in memory twice.
        patience: seconds to wait for storage that fails; see PatientStorage.

    Raises:
        ConfigError: there is no run, a damaged one, or one of a newer format.
    """

    def __init__(self, root: str, plan: Plan | None = None, patience: float = 0.0) -> None:
        self.info: dict[str, Any] = {}
        self.storage: Storage = open_storage(root, patience, on_waited=self._waited)
        self._settled: dict[int, ShardReport] | None = None
        self._noted: list[dict[str, Any]] = []  # events that run.json does not have yet
        self._written = time.monotonic()  # when run.json was
        if plan is not None:
            self.plan = plan
        require_reachable(root)
        try:
            self.info = json.loads(self.storage.read(RUN))
        except FileNotFoundError as error:
            raise ConfigError(f"{root} is no run directory (it has no {RUN})") from error
        except ValueError as error:
            raise ConfigError(f"{root}/{RUN} is damaged: {error}") from error
        if not isinstance(self.info, dict) or not isinstance(self.info.get("format"), int):
            raise ConfigError(f"{root} is no run directory (its {RUN} was not written by poolscore)")
        if self.info["format"] > FORMAT:
            newer = self.info.get("poolscore", "of a newer version")
            raise ConfigError(f"{root} was written by poolscore {newer}; upgrade poolscore to read it")
        if wrong := _wrong(self.info, _ENTRIES) or _wrong(self.info.get("pool"), _POOL_ENTRIES):
            raise ConfigError(f"{root}/{RUN} is damaged: {wrong}")

    @cached_property
    def config(self) -> Config:
        """The configuration as it was resolved; secrets are gone."""
        return parse_config(self.info["config"], where=self.storage.path(RUN))

    @cached_property
    def plan(self) -> Plan:
        """How the pool was cut.

        Raises:
            StoppedError: it cannot be read.
        """
        try:
            return Plan.from_parquet(self.storage.read(PLAN))
        except (OSError, pa.ArrowException, KeyError) as error:
            reason = " ".join(str(error).split())
            raise StoppedError(f"{self.storage.path(PLAN)} cannot be read ({reason}); bring it back") from error

    def reports(self) -> dict[int, ShardReport]:
        """The report that counts for each finished shard, as the journal says now, or as was settled."""
        return read_reports(self.storage) if self._settled is None else self._settled

    def settle(self) -> dict[int, ShardReport]:
        """Read the journal a last time: nothing more is appended to it. From storage that answers slowly that takes
        seconds, and all that is done at the end of a run asks for it."""
        self._settled = read_reports(self.storage)
        return self._settled

    def totals(self) -> Totals:
        """Sums over the finished shards, from the journal."""
        return Totals.of(self.reports())

    @property
    def succeeded(self) -> bool:
        """Whether every shard of the run is scored. A mark set by an older driver beside a newer one says nothing, nor
        does one beside a journal that lacks a shard: somebody lost a record."""
        try:
            mark = json.loads(self.storage.read(SUCCESS) or "null")
        except (FileNotFoundError, ValueError):
            return False
        opening = newest(self.storage)
        if mark is not None and (opening is None or opening.epoch != mark["epoch"]):  # None: an older version's
            return False
        return len(self.reports()) >= int(self.info["pool"]["shards"])

    def succeed(self, journal: Journal) -> None:
        """Set the mark that the run is whole."""
        write_json(self.storage, SUCCESS, {"epoch": journal.epoch})

    def update(self, **changes: Any) -> None:
        """Change entries of run.json.

        Raises:
            StoppedError: another run stands in this one's place, moved there by --fresh, or another driver works on it;
                it is left as it is.
        """
        try:
            there = json.loads(self.storage.read(RUN))
        except (OSError, ValueError):
            there = {}
        if there.get("id") != self.info["id"]:
            raise StoppedError(f"{self.storage.root} holds another run by now; this one was moved aside")
        if there.get("epoch", 0) > changes.get("epoch", self.info.get("epoch", 0)):
            raise StoppedError(f"{self.storage.root}: another driver works on this run by now; it is left as it is")
        noted, self._noted = self._noted, []  # others may come while storage is waited for
        try:
            events = [*there.get("events", ()), *noted][-EVENTS:]
            info = {**there, "events": events, **changes, "updated": now()}
            write_json(self.storage, RUN, info)
        except BaseException:
            self._noted = [*noted, *self._noted]
            raise
        self.info = info
        self._written = time.monotonic()

    def note(self, event: RunEvent) -> None:
        """Log an event and keep it; it is written with the next change of run.json, or when `keep_up` says so."""
        log_event(event)
        self._noted.append(event.to_json() | {"epoch": self.info.get("epoch")})
        del self._noted[:-EVENTS]

    def end(self, status: str, exit_code: int, why: str | None = None, **changes: Any) -> None:
        """What became of the run in this call: the last change of a driver."""
        self.note(RunEvent("ended", why=status if why is None else f"{status}: {why}"))
        self.update(status=status, exit_code=exit_code, stopped_by=why, live=None, **changes)

    def keep_up(self, **changes: Any) -> None:
        """The same as `update`, at most every KEEP_UP seconds: what others read, and a driver that is killed leaves."""
        if time.monotonic() - self._written >= KEEP_UP:
            self.update(**changes)

    def _waited(self, seconds: float, why: str) -> None:
        self.note(RunEvent("waited", why=f"{seconds:.0f} s for storage: {why}"))


def exists(root: str) -> bool:
    """Whether there is a run, finished or not.

    Raises:
        ConfigError: the directory holds something else.
    """
    names = open_storage(root).names("")
    if RUN in names:
        return True
    # A plan alone is a run of an older version that was stopped at its birth, and `poolscore plan` leaves footers.
    # A journal without its run.json must not pass for a new run's.
    if others := [name for name in names if name not in (PLAN, BAD_FILES, FOOTERS)]:
        raise ConfigError(f"run.dir: {root} holds other files ({others[0]}, …); choose an empty or new directory")
    return False


def require_usable(root: str) -> None:
    """Prove before any work that a job can write there, and that no other one of this machine does.

    Raises:
        ConfigError: it cannot be written.
        StoppedError: a driver works on the run.
    """
    storage = open_storage(root)
    storage.require_writable()
    require_no_driver(storage, watch=False)


def write_json(storage: Storage, name: str, value: Any) -> None:
    """Write a JSON object that people read, too."""
    storage.publish(name, lambda file: file.write(as_json(value)))


def redacted(value: Any, key: str = "") -> Any:
    """`value` without what looks like a secret: by the name of its key, or as the user of a URI."""
    if value is not None and not isinstance(value, bool) and _SECRET.search(key):
        return REDACTED
    if isinstance(value, Mapping):
        # The model's inputs may have any name, such as 'token'.
        return {name: redacted(entry, "" if key.endswith("inputs") else str(name)) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [redacted(entry, key) for entry in value]
    if isinstance(value, str):
        return _USERINFO.sub(f"{REDACTED}@", value)
    return value


def as_json(value: Any) -> bytes:
    """A JSON object that people read, too."""
    return (json.dumps(value, indent=2, default=str) + "\n").encode()


def now() -> str:
    """The time of day, as run.json has it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def _wrong(values: Any, entries: Mapping[str, type]) -> str | None:
    """The first entry that is missing or of another type."""
    values = values if isinstance(values, Mapping) else {}
    return next((f"no '{key}'" for key, kind in entries.items() if not isinstance(values.get(key), kind)), None)
