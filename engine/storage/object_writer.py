"""Writing single objects, also on the condition that there is none of that name, which Arrow's file systems cannot.

S3 through botocore, AWS's own client, which is also below boto3; Google Cloud Storage through gcsfs.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Protocol

from poolscore.engine.errors import ConfigError
from poolscore.engine.storage.clients import (
    CONNECT_SECONDS,
    SILENCE_SECONDS,
    attempts,
    s3_endpoint,
    s3_region,
    unsigned,
)
from poolscore.engine.storage.uri import ObjectUri

TAKEN = (409, 412)  # HTTP: somebody writes it at this moment; it is there


class Writer(Protocol):
    """Writes objects of any bucket. Its exceptions are those of the client below; `filesystem.reason` knows them."""

    def put(self, place: ObjectUri, data: bytes, new: bool) -> bool:
        """Write an object by one PUT. With `new` it is not written where there is one; then the answer is False."""

    def delete(self, place: ObjectUri) -> None:
        """Take an object away; nothing happens if there is none."""


def writer_for(place: ObjectUri) -> Writer:
    """The writer of this process for a kind of storage.

    Raises:
        ConfigError: its client is not installed.
    """
    try:
        if place.scheme == "s3":
            return _s3(s3_endpoint(), place.anonymous or unsigned(), attempts())
        return _gs(place.anonymous)
    except ImportError as error:
        raise ConfigError(
            f"{place.scheme}://{place.bucket}: reading needs nothing more, but writing there needs a client: "
            f"pip install 'poolscore[{place.scheme}]'"
        ) from error


@cache
def _s3(endpoint: str | None, anonymous: bool, times: int) -> Writer:
    return S3Writer(endpoint, anonymous, times)


@cache
def _gs(anonymous: bool) -> Writer:
    return GsWriter(anonymous)


class S3Writer:
    """See Writer."""

    def __init__(self, endpoint: str | None, anonymous: bool, times: int) -> None:
        from botocore import UNSIGNED
        from botocore.config import Config
        from botocore.session import Session

        settings: dict[str, Any] = {"signature_version": UNSIGNED} if anonymous else {}
        if endpoint:  # as Arrow does: few such servers have a host name for each bucket
            settings["s3"] = {"addressing_style": "path"}
        self._client: Any = Session().create_client(
            "s3",
            endpoint_url=endpoint,
            region_name=s3_region(endpoint),
            config=Config(
                connect_timeout=CONNECT_SECONDS,
                read_timeout=SILENCE_SECONDS,
                retries={"mode": "standard", "total_max_attempts": times},
                **settings,
            ),
        )

    def put(self, place: ObjectUri, data: bytes, new: bool) -> bool:
        """See Writer."""
        from botocore.exceptions import ClientError

        condition = {"IfNoneMatch": "*"} if new else {}
        try:
            self._client.put_object(Bucket=place.bucket, Key=place.key, Body=data, **condition)
        except ClientError as error:
            if new and error.response["ResponseMetadata"]["HTTPStatusCode"] in TAKEN:
                return False
            raise
        return True

    def delete(self, place: ObjectUri) -> None:
        """See Writer."""
        self._client.delete_object(Bucket=place.bucket, Key=place.key)


class GsWriter:
    """See Writer."""

    def __init__(self, anonymous: bool) -> None:
        from gcsfs import GCSFileSystem

        options = {"token": "anon"} if anonymous else {}
        self._files: Any = GCSFileSystem(use_listings_cache=False, **options)

    def put(self, place: ObjectUri, data: bytes, new: bool) -> bool:
        """See Writer."""
        try:
            self._files.pipe_file(place.path, data, mode="create" if new else "overwrite")
        except FileExistsError:
            return False
        return True

    def delete(self, place: ObjectUri) -> None:
        """See Writer."""
        try:
            self._files.rm_file(place.path)
        except FileNotFoundError:
            return
