"""Paths and URIs as users write them: `pool/`, `file:///data/pool`, `s3://bucket/pool`, `gs://anonymous@bucket/pool`.

The key of an object is taken as it stands, as the clouds' own tools take it: nothing in it is percent-decoded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from poolscore.engine.errors import ConfigError

ANONYMOUS = "anonymous"  # s3://anonymous@bucket/…: without credentials, for public buckets
_URI = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?:(?P<user>[^/]*)@)?(?P<host>[^/]*)/?(?P<key>.*)", re.DOTALL)


@dataclass(frozen=True)
class ObjectUri:
    """A place in object storage."""

    scheme: str  # s3 or gs
    bucket: str
    key: str  # without a slash at its ends
    anonymous: bool

    @property
    def path(self) -> str:
        """Bucket and key, as file systems name them."""
        return f"{self.bucket}/{self.key}" if self.key else self.bucket


def local_path(uri: str) -> Path | None:
    """The path behind a local path or a `file://` URI; None for other URIs.

    Raises:
        ConfigError: a `file://` URI of another machine.
    """
    found = _URI.fullmatch(uri)
    if found is None:
        return Path(uri)
    if found["scheme"].lower() != "file":
        return None
    if found["host"] not in ("", "localhost") or found["user"] is not None:
        raise ConfigError(f"{uri}: a file on another machine; a local file is file:///folder/file, with three slashes")
    return Path("/" + unquote(found["key"]))


def parse_object_uri(uri: str) -> ObjectUri:
    """Read a URI that is not local.

    Raises:
        ConfigError: a kind of storage that is not supported, no bucket, or credentials in the URI.
    """
    found = _URI.fullmatch(uri)
    scheme = found["scheme"].lower() if found else ""
    if found is None or scheme not in ("s3", "gs"):
        raise ConfigError(f"{uri}: there is no storage of this kind; give a local path, file://, s3:// or gs://")
    if found["user"] not in (None, ANONYMOUS) or ":" in found["host"]:  # a secret may hold slashes
        bucket = found["host"] if ":" not in found["host"] else "…"
        raise ConfigError(
            f"{scheme}://…@{bucket}: credentials do not belong into a URI; give them in the environment or in a "
            f"profile, or write {scheme}://{ANONYMOUS}@BUCKET for a public bucket"
        )
    if not found["host"]:
        raise ConfigError(f"{uri}: names no bucket; write {scheme}://BUCKET/…")
    return ObjectUri(scheme, found["host"], found["key"].strip("/"), found["user"] is not None)


def join(root: str, name: str) -> str:
    """The path or URI of `name`, a relative POSIX path, below `root`."""
    return f"{root.rstrip('/')}/{name}" if root else name


def lies_in(inner: str, outer: str) -> bool:
    """Whether a path or URI is that of a folder or of something in it.

    Raises:
        ConfigError: one of them is no path and no URI that is supported.
    """
    here, there = local_path(inner), local_path(outer)
    if here is not None and there is not None:
        return here.resolve().is_relative_to(there.resolve())
    if here is not None or there is not None:
        return False
    a, b = parse_object_uri(inner), parse_object_uri(outer)
    same_bucket = (a.scheme, a.bucket) == (b.scheme, b.bucket)
    return same_bucket and (not b.key or f"{a.key}/".startswith(f"{b.key}/"))
