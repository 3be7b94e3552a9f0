"""Files of answers: which format one has, and its bytes, bounded."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable

from pyarrow import fs

from poolscore.engine.errors import ConfigError
from poolscore.engine.storage.filesystem import locate, read_whole, reason, repeated, require_reachable
from poolscore.engine.storage.threads import apart
from poolscore.jobs.label import cvat, folder, labelstudio, table
from poolscore.jobs.label.answers import Given
from poolscore.jobs.tasks.manifest import Tasks

MOST_BYTES = 1 << 30  # of a file of answers, unpacked
ANNOTATIONS = "annotations.xml"  # in a ZIP of CVAT's
READERS: dict[str, Callable[[bytes, str, Tasks], list[Given]]] = {
    ".json": labelstudio.read,
    ".jsonl": table.read_jsonl,
    ".csv": table.read_csv,
    ".xml": cvat.read,
}


def read_answers(uri: str, tasks: Tasks) -> list[Given]:
    """All answers of a file, or of a folder with a folder for each class.

    Raises:
        ConfigError: it is not there, too large, or of none of the formats.
    """
    require_reachable(uri)
    try:
        at = locate(uri)
        about = apart(repeated, lambda: at.filesystem.get_file_info(at.path), uri)
        if about.type == fs.FileType.Directory:
            selector = fs.FileSelector(at.path, recursive=True)
            listed = apart(repeated, lambda: at.filesystem.get_file_info(selector), uri)
            return folder.read([i.path[len(about.path) :].lstrip("/") for i in listed if i.is_file], uri, tasks)
        if about.type == fs.FileType.NotFound:
            raise ConfigError(f"there is no file of answers {uri}")
        if about.size > MOST_BYTES:
            raise ConfigError(f"{uri} has {about.size:,} bytes, more than {MOST_BYTES:,}; import it in parts")
        data = apart(repeated, lambda: read_whole(locate(uri)), uri)
    except OSError as error:
        raise ConfigError(f"{uri} cannot be read: {reason(error)}") from error
    suffix = "." + uri.lower().rpartition(".")[2]
    if suffix == ".zip":
        data, suffix = _unzipped(data, uri), ".xml"
    if suffix not in READERS:
        known = ", ".join([*READERS, ".zip (of CVAT)"])
        raise ConfigError(f"{uri}: answers are read from {known}, or from a folder with one folder for each class")
    return READERS[suffix](data, uri, tasks)


def _unzipped(data: bytes, where: str) -> bytes:
    """CVAT's annotations; no more than that is unpacked, and nothing is written."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive, archive.open(ANNOTATIONS) as file:
            found = file.read(MOST_BYTES + 1)
    except KeyError as error:
        raise ConfigError(f"{where} holds no {ANNOTATIONS}; export as 'CVAT for images 1.1'") from error
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError, EOFError) as error:
        raise ConfigError(f"{where} cannot be unpacked: {error}") from error
    if len(found) > MOST_BYTES:
        raise ConfigError(f"{where}: {ANNOTATIONS} has more than {MOST_BYTES:,} bytes; import it in parts")
    return found
