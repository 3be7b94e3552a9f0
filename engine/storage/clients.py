"""The clients by which Arrow reads local files, S3 and Google Cloud Storage, and where their settings come from.

As for the clouds' own tools: credentials from the environment, profiles and the machine's role; the endpoint of an
S3-compatible server from AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL, its region from AWS_REGION. Calls that fail for a
moment (503, throttling, a lost connection) are repeated with growing pauses.
"""

from __future__ import annotations

import os
from datetime import timedelta
from functools import cache

import pyarrow as pa
from pyarrow import fs

from poolscore.engine.storage.uri import ObjectUri

ATTEMPTS = 7  # of a call; the pauses between them add up to about half a minute
CONNECT_SECONDS = 10.0
SILENCE_SECONDS = 30.0  # without a byte, before a call counts as failed
CONNECTIONS = 256  # of a process to S3 at most: footers are small, and each takes two round trips
NO_REGION = "us-east-1"  # what S3-compatible servers take where nothing is said


@cache
def local() -> fs.LocalFileSystem:
    """Files of this machine."""
    return fs.LocalFileSystem()


def s3(place: ObjectUri) -> fs.S3FileSystem:
    """One client for all that is read of a bucket with these settings."""
    endpoint = s3_endpoint()
    region = s3_region(endpoint) if endpoint else _aws_region(place.bucket)
    return _s3_client(endpoint, region, place.anonymous or unsigned(), attempts())


@cache
def _s3_client(endpoint: str | None, region: str | None, anonymous: bool, times: int) -> fs.S3FileSystem:
    pa.set_io_thread_count(max(pa.io_thread_count(), CONNECTIONS))  # from which the client takes its limit
    return fs.S3FileSystem(
        anonymous=anonymous,
        region=region,
        endpoint_override=endpoint,
        connect_timeout=CONNECT_SECONDS,
        request_timeout=SILENCE_SECONDS,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=times),
    )


@cache
def _aws_region(bucket: str) -> str | None:
    """Where AWS keeps a bucket: another region than the machine's answers no request."""
    try:
        return str(fs.resolve_s3_region(bucket))
    except OSError:  # no such bucket, which is told of where it is read; or a network that reaches one region only
        return s3_region(None)


@cache
def gs(anonymous: bool) -> fs.GcsFileSystem:
    """Google Cloud Storage, or the emulator that the environment names."""
    scheme, _, host = os.environ.get("STORAGE_EMULATOR_HOST", "").rpartition("://")
    return fs.GcsFileSystem(
        anonymous=anonymous or bool(host),
        scheme=(scheme or "http") if host else None,
        endpoint_override=host or None,
        retry_time_limit=timedelta(minutes=1),
    )


def s3_endpoint() -> str | None:
    """The S3-compatible server that the environment names; None: AWS."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None


def s3_region(endpoint: str | None) -> str | None:
    """What the environment says; else NO_REGION for an endpoint of its own, and None, the profile's, for AWS."""
    given = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    return given or (NO_REGION if endpoint else None)


def unsigned() -> bool:
    """Whether the environment says that S3 is asked without credentials."""
    return os.environ.get("AWS_NO_SIGN_REQUEST", "").lower() in ("1", "true", "yes")


def attempts() -> int:
    """Times that a call is made before it counts as failed; AWS_MAX_ATTEMPTS, as in the clouds' own tools."""
    given = os.environ.get("AWS_MAX_ATTEMPTS", "")
    return int(given) if given.isdecimal() and int(given) else ATTEMPTS
