"""Paths and URIs as users write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from poolscore.engine.errors import ConfigError
from poolscore.engine.storage.uri import ObjectUri, join, lies_in, local_path, parse_object_uri


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("pool/a.parquet", "pool/a.parquet"),
        ("/data/a b/100%", "/data/a b/100%"),
        ("file:///data/a%20b", "/data/a b"),
        ("FILE://localhost/data", "/data"),
        ("s3:/no/uri", "s3:/no/uri"),
    ],
)
def test_local_paths(uri: str, path: str) -> None:
    assert local_path(uri) == Path(path)


def test_other_uris_are_not_local() -> None:
    assert local_path("s3://bucket/a") is None
    assert local_path("hdfs://host/a") is None
    for uri in ("file://server/share", "file://user@/share"):
        with pytest.raises(ConfigError, match="with three slashes"):
            local_path(uri)


@pytest.mark.parametrize(
    ("uri", "place", "path"),
    [
        ("s3://bucket", ObjectUri("s3", "bucket", "", False), "bucket"),
        ("S3://bucket/", ObjectUri("s3", "bucket", "", False), "bucket"),
        ("s3://bucket/a/b c%20/#1?x=@/", ObjectUri("s3", "bucket", "a/b c%20/#1?x=@", False), None),
        ("gs://anonymous@bucket/a", ObjectUri("gs", "bucket", "a", True), "bucket/a"),
    ],
)
def test_places_in_object_storage(uri: str, place: ObjectUri, path: str | None) -> None:
    assert parse_object_uri(uri) == place
    assert place.path == (path or f"{place.bucket}/{place.key}")


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        (
            "hdfs://host/pool",
            "hdfs://host/pool: there is no storage of this kind; give a local path, file://, s3:// or",
        ),
        ("s3:///pool", "names no bucket"),
        ("s3://", "names no bucket"),
        ("s3://AKIA:SECRET@bucket/pool", r"^s3://…@bucket: credentials do not belong into a URI"),
        ("s3://AKIA:SEC/RET+1@bucket/pool", r"^s3://…@…: credentials do not belong into a URI"),
        ("gs://AKIA:SEC@RET@bucket/pool", r"^gs://…@bucket: credentials do not belong into a URI"),
    ],
)
def test_what_is_refused(uri: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        parse_object_uri(uri)
    assert "SEC" not in str(caught.value)


def test_names_are_joined_to_any_root() -> None:
    assert join("s3://bucket", "a/b") == "s3://bucket/a/b"
    assert join("s3://anonymous@bucket/run/", "a") == "s3://anonymous@bucket/run/a"
    assert join("/", "a") == "/a"
    assert join("run", "a") == "run/a"


@pytest.mark.parametrize(
    ("inner", "outer", "lies"),
    [
        ("/pool/run", "/pool", True),
        ("/pool/../run", "/pool", False),
        ("/pool", "/pool/", True),
        ("file:///pool/run", "/pool", True),
        ("/poolside", "/pool", False),
        ("s3://b/pool/run", "s3://b/pool", True),
        ("s3://b/pool", "s3://anonymous@b/pool/", True),
        ("s3://b/poolside", "s3://b/pool", False),
        ("s3://b/run", "s3://b", True),
        ("s3://b/run", "s3://c", False),
        ("gs://b/run", "s3://b", False),
        ("s3://b/run", "/b", False),
    ],
)
def test_whether_one_lies_in_the_other(inner: str, outer: str, lies: bool) -> None:
    assert lies_in(inner, outer) == lies
