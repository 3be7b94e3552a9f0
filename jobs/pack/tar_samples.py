"""The samples of a tar file in webdataset's layout: neighbouring members whose names agree up to the first dot of the
base name are the fields of one sample.

Nothing is extracted and no name is ever used as a path: names become ids. Of a plain tar only headers are read here,
the fields are places in it; a compressed one is read as a stream, the fields are bytes.
https://github.com/webdataset/webdataset, "The WebDataset Format".
"""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from lzma import LZMAError
from pathlib import Path
from typing import Self

from poolscore.jobs.pack.contract import MAX_ROW_BYTES, UNREADABLE
from poolscore.jobs.pack.folder import EXTENSIONS

KEPT = ("cls", "json", "txt")
"""Fields that are kept beside the picture."""
MAX_FIELD = 1 << 20
"""Bytes of such a field."""
MAX_NAME = 4096
"""Characters of a member's name."""
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ")
_BROKEN = (tarfile.TarError, OSError, EOFError, zlib.error, LZMAError, ValueError)

MAX_HEADER = 1 << 20
"""Bytes of a header that tells something of the next one: a long name, for example."""
_ABOUT_NEXT = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)

FieldData = tuple[int, int] | bytes
"""Offset and length in the tar file, or the bytes."""


@dataclass
class Sample:
    """One sample, or an entry of the tar that is none.

    Attributes:
        name: the tar's name, a slash and the key: the row's id. Of an entry that is left out: the member's name.
        tar: the file that it lies in.
        picture: the encoded picture; None where there is none.
        fields: the others that are kept, by extension.
        reason: why an entry is left out; '' for a sample.
    """

    name: str
    tar: str
    picture: FieldData | None = None
    fields: dict[str, FieldData] = field(default_factory=dict)
    reason: str = ""

    @property
    def bytes(self) -> int:
        """Bytes of its fields."""
        parts = [part for part in (self.picture, *self.fields.values()) if part is not None]
        return sum(len(part) if isinstance(part, bytes) else part[1] for part in parts)


def samples(path: Path, name: str) -> Iterator[Sample]:
    """The samples of a tar file and, where they are met, the entries that are left out. A tar that is damaged gives
    what lies before the damage, and an entry that says so. Memory: the sample and the keys of this tar.

    Args:
        name: what ids begin with.
    """
    reader = _Reader(path, name)
    try:
        yield from reader.read()
    except _BROKEN as error:
        yield from reader.flush()
        reason = " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__
        yield Sample(name, str(path), reason=f"{UNREADABLE}: {reason}")


def split_name(name: str) -> tuple[str, str] | None:
    """Key and extension: the name up to the first dot of its base name, and the rest in lower case; None where the
    base name has no dot or begins with one."""
    folder, slash, base = name.removeprefix("./").rpartition("/")
    stem, dot, extension = base.partition(".")
    return (folder + slash + stem, extension.lower()) if stem and dot and extension else None


class _Header(tarfile.TarInfo):
    """Python takes a damaged header for the end of the file, and reads names of any length: here both are errors."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        header = super().frombuf(buf, encoding, errors)
        if header.size < 0 or (header.type in _ABOUT_NEXT and header.size > MAX_HEADER):
            raise tarfile.ReadError(f"a header that states {header.size} bytes")
        return header

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        try:
            header = super().fromtarfile(archive)
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError) as error:  # type: ignore[attr-defined]
            raise tarfile.ReadError(f"a damaged header ({error})") from error
        if header.size < 0:  # as an extended header may state it
            raise tarfile.ReadError(f"a header that states {header.size} bytes")
        return header


class _Reader:
    def __init__(self, path: Path, name: str) -> None:
        self._path, self._name = path, name
        self._keys: set[str] = set()
        self._key = ""
        self._sample: Sample | None = None
        self._picture_extension = ""

    def read(self) -> Iterator[Sample]:
        with self._path.open("rb") as file:
            start = file.read(6)
            file.seek(0)
            self._streamed = start.startswith(_COMPRESSED)
            with tarfile.open(
                fileobj=file,
                mode="r|*" if self._streamed else "r:",
                tarinfo=_Header,
                encoding="utf-8",
                errors="surrogateescape",
            ) as tar:
                while (member := tar.next()) is not None:
                    tar.members = []  # type: ignore[attr-defined]  # it would keep them all
                    if not member.isdir():
                        yield from self._take(tar, member)
        yield from self.flush()

    def flush(self) -> Iterator[Sample]:
        """The sample that was being read."""
        if self._sample is not None:
            sample, self._sample = self._sample, None
            if sample.picture is None:
                sample.reason = "sample without a picture"
            yield sample

    def _take(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> Iterator[Sample]:
        reason = _why_not(member)
        parts = None if reason else split_name(member.name)
        if parts is None:
            yield self._left_out(member, reason or "a name without key or extension")
            return
        key, extension = parts
        if self._sample is None or key != self._key:
            yield from self.flush()
            if key in self._keys:
                yield self._left_out(member, "a key that occurs before in its tar")
                return
            self._keys.add(key)
            self._key, self._sample = key, Sample(f"{self._name}/{key}", str(self._path))
        yield from self._add(tar, member, extension, self._sample)

    def _add(self, tar: tarfile.TarFile, member: tarfile.TarInfo, extension: str, sample: Sample) -> Iterator[Sample]:
        is_picture = "." + extension.rpartition(".")[2] in EXTENSIONS
        if extension in sample.fields or (is_picture and extension == self._picture_extension and sample.picture):
            yield self._left_out(member, "a field that occurs before in its sample")
        elif is_picture and sample.picture is None:
            sample.picture, self._picture_extension = self._data(tar, member), extension
        elif is_picture:
            yield self._left_out(member, "another picture of its sample")
        elif extension in KEPT and member.size > MAX_FIELD:
            yield self._left_out(member, "a field beside the picture of more than 1 MiB")
        elif extension in KEPT:
            sample.fields[extension] = self._data(tar, member)
        else:
            yield self._left_out(member, "another field of its sample")

    def _data(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> FieldData:
        if not self._streamed:
            return member.offset_data, member.size
        stream = tar.extractfile(member)
        assert stream is not None
        return stream.read()

    def _left_out(self, member: tarfile.TarInfo, reason: str) -> Sample:
        return Sample(f"{self._name}/{member.name[:MAX_NAME]}", str(self._path), reason=reason)


def _why_not(member: tarfile.TarInfo) -> str:
    if member.issym() or member.islnk():
        return "links"
    if not member.isreg() or member.issparse():
        return "not a regular file"
    if len(member.name) > MAX_NAME:
        return f"with a name of more than {MAX_NAME} characters"
    if member.name != member.name.encode(errors="replace").decode():
        return "with a name that is not UTF-8"
    return "larger than 1 GiB" if member.size > MAX_ROW_BYTES else ""
