"""Where files lie: local paths and URIs, each with the Arrow file system that reads it."""

from __future__ import annotations

from dataclasses import dataclass

from pyarrow import fs

from poolscore.engine.config_text import one_line
from poolscore.engine.errors import ConfigError


@dataclass(frozen=True)
class Location:
    """A file or folder, inside its file system. Does not travel between processes: its URI does."""

    filesystem: fs.FileSystem
    path: str


def locate(uri: str) -> Location:
    """The file system behind a local path or a URI (`file://`, `s3://`, `gs://`). Nothing is read.

    Raises:
        ConfigError: a kind of storage that is not supported.
    """
    if "://" not in uri:
        return Location(fs.LocalFileSystem(), uri)
    try:
        filesystem, path = fs.FileSystem.from_uri(uri)
    except (OSError, ValueError) as error:  # what Arrow raises for an unknown scheme
        raise ConfigError(f"{uri}: {one_line(error)}") from error
    return Location(filesystem, path)
