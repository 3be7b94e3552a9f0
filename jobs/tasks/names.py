"""Names that can do no harm: of files and folders, and cells of a spreadsheet."""

from __future__ import annotations

import re

from poolscore.engine.errors import ConfigError

_FORMULA = "=+-@\t\r\n＝＋－＠'"  # what spreadsheets take for the start of one (OWASP, CSV injection); and our mark
_MAGIC = (
    (b"\xff\xd8\xff", ".jpg"),
    (b"\x89PNG\r\n\x1a\n", ".png"),
    (b"GIF8", ".gif"),
    (b"BM", ".bmp"),
    (b"II*\0", ".tif"),
    (b"MM\0*", ".tif"),
)
# What XML 1.0 cannot hold, in whatever form.
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def task_name(key: int) -> str:
    """The name of a row's task, and of its files: 16 hexadecimal digits of the key of its id, so that nothing of the id
    itself gets into a path."""
    return f"{key:016x}"


def extension(data: bytes) -> str:
    """Of a file with these bytes: pictures by their first bytes, else '.bin'."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return ".webp"
    return next((suffix for magic, suffix in _MAGIC if data.startswith(magic)), ".bin")


def folder_name(number: int, label: str) -> str:
    """A folder for a class: its number, so that no two are equal, and what is harmless of its name."""
    return f"{number:03d}-{re.sub(r'[^A-Za-z0-9_]+', '-', label).strip('-')[:60]}".rstrip("-")


def guarded(text: str) -> str:
    """A cell that a spreadsheet does not run: an apostrophe before what may be a formula."""
    return f"'{text}" if text[:1] and text[0] in _FORMULA else text


def unguarded(text: str) -> str:
    """The inverse of `guarded`."""
    return text[1:] if text[:1] == "'" else text


def require_xml(text: str, where: str) -> str:
    """Text that XML can hold; as it is.

    Raises:
        ConfigError: it holds control characters.
    """
    if found := _NO_XML.search(text):
        raise ConfigError(f"{where}: {text!r} holds the character {found[0]!r}, which XML cannot; rename it")
    return text
