"""What a cluster says of a job, and which exit code of the contract that is."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import count
from typing import Any

from poolscore.engine.config_text import one_line
from poolscore.engine.errors import DONE, INCOMPLETE, INTERRUPTED, STOPPED, WRONG_INPUT

PENDING, RUNNING, SUCCEEDED, FAILED, ENDED = "pending", "running", "succeeded", "failed", "stopped"  # Ray's states
RUN_DIR, VERSION, CALLED = (
    "run_dir",
    "poolscore",
    "called",
)  # of a job's metadata, which everybody sees who may ask the cluster for jobs

_OURS = (DONE, WRONG_INPUT, INCOMPLETE, STOPPED, INTERRUPTED)
_NO_PYTHON = (126, 127)  # of the shell: the command is not there, or is none
_NEVER_STARTED = ("RUNTIME_ENV_SETUP_FAILURE", "JOB_SUPERVISOR_ACTOR_UNSCHEDULABLE")  # and would not the next time
_TOLD = re.compile(r"^poolscore: (.+)$", re.MULTILINE)  # jobs/show.py: failure
_LONGEST = 500  # characters of a message that is not ours


@dataclass(frozen=True)
class Job:
    """A job of a cluster."""

    name: str  # the submission id, by which Ray Jobs knows it
    state: str  # pending, running, succeeded, failed, stopped
    run_dir: str | None  # where its results go; None: it is none of poolscore's
    exit_code: int | None  # of the contract; None: it has not ended
    message: str | None  # why it failed, in one line
    started: float | None  # seconds since 1970
    ended: float | None
    address: str  # of the cluster's dashboard
    called: str | None = None  # by which it was handed in; later attempts share it, and have ids of their own

    @property
    def at_work(self) -> bool:
        """Whether it runs, or waits for a place."""
        return self.exit_code is None

    @classmethod
    def of(cls, told: Any, address: str) -> Job:
        """What Ray tells (`JobDetails`)."""
        metadata = told.metadata or {}
        state = str(told.status.value).lower()
        return cls(
            name=told.submission_id,
            state=state,
            run_dir=metadata.get(RUN_DIR),
            exit_code=exit_code_of(state, told.driver_exit_code, told.error_type),
            message=reason_of(told.message) if state == FAILED else None,
            started=told.start_time / 1000 if told.start_time else None,
            ended=told.end_time / 1000 if told.end_time else None,
            address=address,
            called=metadata.get(CALLED),
        )


def next_id(name: str, jobs: Iterable[Job]) -> str:
    """The id of a further attempt, for Ray takes each once: the name itself, then name-2, name-3, …"""
    taken = {job.name for job in jobs}
    return next(one for n in count(1) if (one := name if n == 1 else f"{name}-{n}") not in taken)


def exit_code_of(state: str, of_driver: int | None, error_type: str | None) -> int | None:
    """The exit code of the contract; None while a job is at work.

    Args:
        of_driver: the driver's own, if it ended by itself.
        error_type: Ray's, of a job that failed.
    """
    if state in (PENDING, RUNNING):
        return None
    if state == SUCCEEDED:
        return DONE
    if state == ENDED:
        return INTERRUPTED
    if of_driver is None:
        return WRONG_INPUT if error_type in _NEVER_STARTED else STOPPED
    if of_driver in _NO_PYTHON:
        return WRONG_INPUT
    return of_driver if of_driver in (*_OURS, 1) else STOPPED  # others: it was killed


def reason_of(message: str | None) -> str | None:
    """The driver's own last word, out of a message that ends in the end of its log; else the message itself."""
    if not message:
        return None
    if told := _TOLD.findall(message):
        return one_line(told[-1])
    if (told_in_json := _error_in_json(message)) is not None:
        return one_line(told_in_json)
    text = one_line(message)
    return text if len(text) <= _LONGEST else f"…{text[-_LONGEST:]}"


def _error_in_json(log: str) -> str | None:
    """The last error of a log that is JSON lines (engine/log.py)."""
    for line in reversed(log.splitlines()):
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and record.get("level") == "error":
            return str(record.get("message"))
    return None


def find_job(name: str, address: str | None = None) -> Job | None:
    """The latest attempt of the job of that name; None if the cluster has none.

    Args:
        address: of the cluster's dashboard; None: see `dashboard_address`.

    Raises:
        ConfigError: there is no cluster, or it wants another token.
    """
    from poolscore.jobs.submit.cluster import connect  # Ray is not needed for the types

    return connect(address).find(name)
