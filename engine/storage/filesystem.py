"""What lies behind a path or URI, read through Arrow, and what storage means by its errors."""

from __future__ import annotations

import os
import re
import shutil
import socket
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies

import pyarrow.parquet as pq
from pyarrow import fs

from poolscore.engine.config_text import one_line
from poolscore.engine.errors import ConfigError, StoppedError
from poolscore.engine.storage.clients import gs, local, s3, s3_endpoint
from poolscore.engine.storage.threads import StorageThreads, apart
from poolscore.engine.storage.uri import ANONYMOUS, local_path, parse_object_uri

A = TypeVar("A")
B = TypeVar("B")
MOMENT = 5.0  # seconds that a call is repeated for, beyond its client's own attempts
FIRST_PAUSE = 0.2  # seconds
PIECE = 8 << 20  # bytes of one request; where nothing is said Arrow asks for 256 KiB of a stream at a time
REACH_SECONDS, KNOCK_EVERY = 4.0, 1.0  # a server that is just starting may take a moment

_WORDS = (  # what clients call it → what it is
    ("NO_SUCH_BUCKET|NoSuchBucket|bucket does not exist", "there is no such bucket"),
    (
        "INVALID_ACCESS_KEY_ID|InvalidAccessKeyId|SIGNATURE_DOES_NOT_MATCH|SignatureDoesNotMatch|ExpiredToken|"
        "INVALID_CLIENT_TOKEN_ID|REQUEST_EXPIRED|InvalidToken",
        "the credentials are wrong or have expired",
    ),
    ("NoCredentials|DefaultCredentialsError", "there are no credentials"),
    ("SLOW_DOWN|SlowDown|SERVICE_UNAVAILABLE|ServiceUnavailable|HTTP status 503", "the storage is too busy"),
    (
        "NETWORK_CONNECTION|EndpointConnectionError|ConnectTimeoutError|ReadTimeoutError|ConnectionClosedError|REQUEST_TIMEOUT",
        "the endpoint cannot be reached",
    ),
)
# What may be better in a moment. Arrow's client of S3 asks again after most of it, but not where an answer is cut off.
_PASSING = (
    r"SLOW_DOWN|SlowDown|SERVICE_UNAVAILABLE|ServiceUnavailable|INTERNAL_FAILURE|InternalError|HTTP status 5\d\d|"
    "NETWORK_CONNECTION|REQUEST_TIMEOUT|RequestTimeout|ConnectTimeoutError|ReadTimeoutError|ConnectionClosedError|"
    r"EndpointConnectionError|ServerError|HttpError.*\b5\d\d\b|[(]UNAVAILABLE|[(]DEADLINE_EXCEEDED|[(]INTERNAL"
)
_DENIED = "ACCESS_DENIED|AccessDenied|PERMISSION_DENIED|PermissionDenied|Forbidden|HTTP status 403"
_BUCKETS: set[tuple[str | None, str]] = set()  # endpoint, name: those that were seen
_CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI")


@dataclass(frozen=True)
class Location:
    """A file or folder, inside its file system. Does not travel between processes: its URI does."""

    filesystem: fs.FileSystem
    path: str


def locate(uri: str) -> Location:
    """The file system behind a local path or a URI (`file://`, `s3://`, `gs://`); one for all URIs of a bucket. Nothing
    is read, but AWS is asked once for the bucket's region.

    Raises:
        ConfigError: a kind of storage that is not supported, or a URI that is none.
    """
    path = local_path(uri)
    if path is not None:
        return Location(local(), str(path))
    place = parse_object_uri(uri)
    return Location(s3(place) if place.scheme == "s3" else gs(place.anonymous), place.path)


def require_bucket(uri: str) -> None:
    """A bucket that is not there is no empty one, though Arrow calls both by one name. One that was seen is not asked
    for again: workers often look for what is not there.

    Raises:
        ConfigError: there is no such bucket.
    """
    if local_path(uri) is not None:
        return
    at = locate(uri)
    bucket = at.path.partition("/")[0]
    if (here := (s3_endpoint(), bucket)) in _BUCKETS:
        return
    with suppress(OSError):  # it may be hidden from us, and its objects not
        if at.filesystem.get_file_info(bucket).type == fs.FileType.NotFound:
            raise ConfigError(f"{uri}: there is no bucket '{bucket}' here")
        _BUCKETS.add(here)


def require_reachable(uri: str) -> None:
    """Knock at the S3-compatible server that the environment names: a wrong address is told within seconds, not after
    all attempts of a call. Nothing is asked of AWS, or where a proxy lies between.

    Raises:
        ConfigError: nobody answered for REACH_SECONDS.
    """
    endpoint = s3_endpoint()
    if endpoint is None or not uri.lower().startswith("s3://") or getproxies():
        return
    at = urlsplit(endpoint if "://" in endpoint else f"https://{endpoint}")
    until = time.monotonic() + REACH_SECONDS
    while True:
        try:
            left = max(until - time.monotonic(), 0.1)
            socket.create_connection((at.hostname or "", at.port or (80 if at.scheme == "http" else 443)), left).close()
            return
        except OSError as error:
            if time.monotonic() + KNOCK_EVERY > until:
                raise ConfigError(
                    f"{uri}: the endpoint cannot be reached: {endpoint} ({reason(error)}); look at AWS_ENDPOINT_URL "
                    "and at the network"
                ) from error
            time.sleep(KNOCK_EVERY)


def open_parquet(uri: str) -> pq.ParquetFile:
    """A Parquet file by its path or URI, to be closed. No more of it is kept in memory than what is asked for."""
    at = locate(uri)
    # pre_buffer keeps whole row groups in memory: 700 MB instead of 50 MB for an image pool (NOTES)
    return pq.ParquetFile(at.path, filesystem=at.filesystem, pre_buffer=False)


@contextmanager
def on_disk(uri: str) -> Iterator[Path]:
    """A file for libraries that read local files only: itself, or a temporary copy.

    Raises:
        OSError: it cannot be read; FileNotFoundError where there is none.
    """
    path = local_path(uri)
    if path is not None:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="poolscore-") as folder:
        copy = Path(folder) / parse_object_uri(uri).path.rpartition("/")[2]
        fetch(uri, copy)
        yield copy


def fetch(uri: str, to: Path) -> None:
    """Copy a file to the local disk.

    Raises:
        OSError: it cannot be read; FileNotFoundError where there is none.
    """

    def copy() -> None:
        at = locate(uri)
        with at.filesystem.open_input_stream(at.path, compression=None) as source, to.open("wb") as file:
            shutil.copyfileobj(source, file, PIECE)

    apart(repeated, copy, uri)


def read_whole(at: Location, compression: str | None = None) -> bytes:
    """A file as it is; with 'detect' unpacked, if its name says that it is packed.

    Raises:
        OSError: it cannot be read; FileNotFoundError where there is none.
    """
    with at.filesystem.open_input_stream(at.path, compression=compression) as file:
        return b"".join(iter(lambda: file.read(PIECE), b""))


def in_order(read: Callable[[A], B], places: Iterable[A], at_once: int) -> Iterator[B]:
    """What `read` gives for each place, in their order; up to `at_once` are read at the same time, and a place is asked
    for only when its turn to be read comes."""
    if at_once == 1:
        yield from map(read, places)
        return
    with StorageThreads(at_once, "in-order") as threads:
        waiting: deque[Future[B]] = deque()
        for place in places:
            waiting.append(threads.submit(read, place))
            if len(waiting) == at_once:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def repeated(call: Callable[[], A], uri: str) -> A:
    """`call()`, again for a MOMENT where storage fails in a way that may pass.

    Raises:
        StoppedError: it did not pass.
    """
    try:
        return once_more(call)
    except Exception as error:  # the clients' exceptions have no common base
        if not may_pass(error):
            raise
        raise StoppedError(
            f"{uri} cannot be read ({reason(error)}); mend the storage, then run the same command again"
        ) from error


def once_more(call: Callable[[], A], stopped: Event | None = None) -> A:
    """`call()`, again for a MOMENT if storage fails in a way that may pass: one lost answer is no user's mistake, and
    no reason to ask again for all that was answered before. Then its own error is raised, or once `stopped` is set."""
    stopped, until, pause = stopped or Event(), time.monotonic() + MOMENT, FIRST_PAUSE
    while True:
        try:
            return call()
        except Exception as error:
            if not may_pass(error) or time.monotonic() + pause > until or stopped.wait(pause):
                raise
            pause *= 2


def may_pass(error: BaseException) -> bool:
    """Whether storage that failed so may work a moment later, and nobody has to mend anything."""
    return re.search(_PASSING, _told(error)) is not None


def reason(error: BaseException) -> str:
    """Why storage failed, on one line: the system's words for a local file; for object storage what the clients' words
    mean, without request ids. What is denied is never called missing."""
    text = one_line(getattr(error, "strerror", None) or error) or type(error).__name__
    whole = _told(error)
    if re.search(_DENIED, whole):
        return _denied()
    words = next((words for pattern, words in _WORDS if re.search(pattern, whole)), text)
    endpoint = s3_endpoint()
    return f"{words}: {endpoint}" if endpoint and "endpoint" in words else words


def _told(error: BaseException) -> str:
    return f"{type(error).__name__} {one_line(error)} {error.__cause__!r}"


def _denied() -> str:
    known = any(os.environ.get(name) for name in _CREDENTIALS)
    if known or any((Path.home() / ".aws" / name).exists() for name in ("credentials", "config")):
        return "access is denied; look at the credentials and at the bucket's policy"
    return (
        f"access is denied, and there are no credentials in the environment or in ~/.aws ({ANONYMOUS}@ before the "
        + ("bucket's name does without, for public buckets)")
    )
