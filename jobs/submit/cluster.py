"""A cluster that takes jobs: Ray's Job Submission client, with errors in our words and no call that waits for ever."""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import AsyncIterator, Container, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import aiohttp
from ray._private.authentication.authentication_constants import RAY_AUTHORIZATION_HEADER_NAME
from ray.dashboard.modules import dashboard_sdk
from ray.dashboard.modules.job import sdk
from ray.exceptions import AuthenticationError
from ray.job_submission import JobSubmissionClient

from poolscore.engine.config_text import one_line
from poolscore.engine.errors import ConfigError, StoppedError
from poolscore.jobs import show
from poolscore.jobs.submit.address import (
    ADDRESSES,
    AWAY,
    OPEN,
    SECONDS,
    authentication_mode,
    dashboard_address,
    is_loopback,
    way_to,
)
from poolscore.jobs.submit.job import Job
from poolscore.jobs.submit.token import HEADERS, find_token, given_headers

UPLOAD_SECONDS = 600.0  # for the answer to what carries a package, or makes the cluster unpack one
SILENT = 60.0  # seconds in which a log says nothing, after which the connection may be dead; a driver says more often
MOST_NODES = 10_000
LONGEST = 500  # characters of a message that is not ours
_RAISED = re.compile(r"^[A-Za-z_.]*(?:Error|Exception): (.+)", re.MULTILINE)


class _Refused(Exception):
    """The cluster's answer to a question that it does not like."""

    def __init__(self, status: int, text: str) -> None:
        raised = _RAISED.findall(text)  # a traceback, perhaps of several errors
        super().__init__(one_line(raised[-1] if raised else text)[:LONGEST] or f"status {status}")
        self.status = status


class _Client(JobSubmissionClient):
    """Ray's client sets no time limits, and goes by proxies and passwords that others are meant for."""

    def _do_request(self, method: str, endpoint: str, **given: Any) -> requests.Response:
        connect, answer = SECONDS
        limits = connect, answer if method == "GET" else UPLOAD_SECONDS
        options = {"timeout": limits, **way_to(self._address), **given}
        answered: requests.Response = super()._do_request(method, endpoint, **options)
        return answered

    def _raise_error(self, r: requests.Response) -> None:
        raise _Refused(r.status_code, r.text)


class Cluster:
    """A cluster that was reached and knows us.

    Args:
        url: of its dashboard.
        headers: of every request; they hold the token.

    Raises:
        ConfigError: see `connect`.
    """

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        self.url = url
        for module in (dashboard_sdk, sdk):
            module.logger.setLevel(logging.WARNING)
        with self._asking(), _only_address(url):
            self._client = _Client(url, headers=dict(headers))

    def submit(self, name: str, entrypoint: str, **given: Any) -> None:
        """Hand a job in; see Ray's `submit_job`. What it brings is uploaded first.

        Raises:
            ConfigError: the cluster does not take it, or there is a job of that name.
        """
        with self._asking(no_fault=AWAY):  # a wrong submission is 500 to Ray
            self._client.submit_job(entrypoint=entrypoint, submission_id=name, **given)

    def upload(self, archive: Path) -> str:
        """Send a .zip that the cluster does not have yet; gives its URI, for a runtime environment. Ray's client does
        the same with a working directory that is an archive, but has no public name for it."""
        with self._asking():
            uri: str = self._client._upload_package_if_needed(str(archive), include_gitignore=False, is_file=True)
            return uri

    def job(self, name: str) -> Job | None:
        """What is known of a job; None: there is none of that id."""
        try:
            with self._asking(missing=True):
                return Job.of(self._client.get_job_info(name), self.url)
        except LookupError:
            return None

    def require_job(self, name: str) -> Job:
        """What is known of a job.

        Raises:
            ConfigError: there is none.
        """
        return self._required(self.job(name), name)

    def find(self, name: str) -> Job | None:
        """The latest attempt of the job that was handed in by this name, else the job of this id; None: no such job."""
        jobs = self.jobs()
        called = (job for job in jobs if job.called == name)
        return next(called, None) or next((job for job in jobs if job.name == name), None)

    def require_found(self, name: str) -> Job:
        """The same.

        Raises:
            ConfigError: there is none.
        """
        return self._required(self.find(name), name)

    def jobs(self) -> list[Job]:
        """All jobs that were handed in, the latest first."""
        with self._asking():
            found = [Job.of(told, self.url) for told in self._client.list_jobs() if told.submission_id]
        return sorted(found, key=lambda job: (job.started or 0.0, job.name), reverse=True)

    def stop(self, name: str) -> None:
        """Ask a job to end."""
        with self._asking():
            self._client.stop_job(name)

    def log(self, name: str) -> str:
        """What a job has said so far."""
        with self._asking():
            text: str = self._client.get_job_logs(name)
            return text

    async def tail(self, name: str) -> AsyncIterator[str]:
        """What a job has said, and says until it ends.

        Raises:
            StoppedError: the connection is lost, or silent for so long that it may be.
        """
        texts = self._client.tail_job_logs(name)
        try:
            while True:
                async with asyncio.timeout(SILENT):
                    text = await anext(texts, None)
                if text is None:
                    return
                yield text
        except TimeoutError as error:
            raise StoppedError(f"{self.url}: the log of {name} is silent") from error
        except (aiohttp.ClientError, OSError, RuntimeError) as error:
            raise StoppedError(f"{self.url}: lost the log of {name} ({one_line(error)})") from error

    def nodes(self) -> list[dict[str, Any]]:
        """The machines that live, as Ray's state API tells them; none where it does not tell."""
        path = f"/api/v0/nodes?detail=1&limit={MOST_NODES}"
        with self._asking():
            answer = self._client._do_request("GET", path)
        try:
            found = answer.json()["data"]["result"]["result"]
        except (ValueError, KeyError, TypeError):
            return []
        return [node for node in found if node.get("state") == "ALIVE"]

    def _required(self, job: Job | None, name: str) -> Job:
        if job is None:
            raise ConfigError(f"{self.url} has no job '{name}'; `poolscore list` shows those that it has")
        return job

    @contextmanager
    def _asking(self, missing: bool = False, no_fault: Container[int] = range(500, 600)) -> Iterator[None]:
        """Errors in our words.

        Args:
            missing: LookupError where there is no such thing.
            no_fault: answers that are the cluster's own trouble, not that of what is asked.
        """
        try:
            yield
        except AuthenticationError as error:
            told = (
                f"the headers of {HEADERS}"
                if _authorized(given_headers())
                else "the token (RAY_AUTH_TOKEN, or its file)"
            )
            raise ConfigError(f"{self.url} refuses {told}: it is another cluster's, or an old one") from error
        except _Refused as error:
            if missing and error.status == requests.codes.not_found:
                raise LookupError from error
            if error.status in no_fault:
                raise StoppedError(f"{self.url} is in trouble (status {error.status}: {error})") from error
            raise ConfigError(f"{self.url}: {error}") from error
        except (requests.JSONDecodeError, KeyError, TypeError) as error:  # of Ray's client, about what it was told
            raise ConfigError(f"{self.url} answers, but not as a dashboard of Ray ({one_line(error)})") from error
        except (requests.RequestException, ConnectionError) as error:
            raise StoppedError(f"{self.url} does not answer any more ({type(error).__name__})") from error
        except (RuntimeError, ValueError, OSError) as error:  # Ray's, of packages that it cannot make or send
            raise ConfigError(f"{self.url}: {one_line(error)}") from error


def connect(address: str | None = None, configured: str | None = None) -> Cluster:
    """Reach a cluster; warn, before anything is sent, where others can read it on the way.

    Args:
        address, configured: of its dashboard; see `dashboard_address`.

    Raises:
        ConfigError: nobody answers there within seconds, or it wants another token.
    """
    url = dashboard_address(address, configured)
    _warn_of_listeners(url)
    headers = given_headers()
    if authentication_mode(url, headers) != OPEN and RAY_AUTHORIZATION_HEADER_NAME not in map(str.lower, headers):
        # Ray also takes it from a header of its own, where a proxy wants the usual one for itself.
        name = RAY_AUTHORIZATION_HEADER_NAME if _authorized(headers) else "Authorization"
        headers[name] = f"Bearer {find_token(url)}"
    return Cluster(url, headers)


@cache
def _warn_of_listeners(url: str) -> None:
    """Once in a process."""
    if urlsplit(url).scheme == "http" and not is_loopback(url):
        show.warn(f"{url} is not encrypted: what travels, a token too, can be read on the way; use a tunnel or https")


def _authorized(headers: Mapping[str, str]) -> bool:
    return "authorization" in {name.lower() for name in headers}


@contextmanager
def _only_address(url: str) -> Iterator[None]:
    """Ray's client believes the environment more than what it is given."""
    name = ADDRESSES[0]
    before = os.environ.get(name)
    os.environ[name] = url
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
