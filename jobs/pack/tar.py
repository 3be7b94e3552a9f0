"""Tar files in webdataset's layout → `id` (tar/key), `image`, [`label` of .cls], [`json`], [`txt`], sizes."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from poolscore.engine.errors import ConfigError
from poolscore.jobs.pack.contract import PIECE_BYTES, PIECE_ROWS, UNREADABLE, Names, Packed, Source, file_fingerprint
from poolscore.jobs.pack.folder import walk
from poolscore.jobs.pack.pictures import Change, NotPacked, Pictures, picture_schema
from poolscore.jobs.pack.tar_samples import KEPT, FieldData, Sample, samples

SUFFIXES = (".tar", ".tar.gz", ".tgz")
LOOKED_AT = 256
"""Samples that are looked at to tell which columns there are."""

Tar = tuple[str, Path]
"""What ids begin with, and the file."""


def is_tar(name: str) -> bool:
    """Whether a name is that of a tar file."""
    return name.lower().endswith(SUFFIXES)


def find_tars(source: Path) -> list[Tar]:
    """The tar files that a file, a folder (searched in depth) or a glob names, sorted by name."""
    if source.is_dir():
        return [(name, source / name) for name, _ in walk(source) if is_tar(name) and (source / name).is_file()]
    if source.is_file() or not glob.has_magic(str(source)):
        return [(source.name, source)]
    fixed = next(number for number, part in enumerate(source.parts) if glob.has_magic(part))
    root = Path(*source.parts[:fixed])
    found = (Path(name) for name in glob.glob(str(source), recursive=True))  # noqa: PTH207
    return sorted((path.relative_to(root).as_posix(), path) for path in found if is_tar(path.name) and path.is_file())


def tar_source(source: Path, names: Names, resize: Change | None = None) -> Source:
    """Samples of one or many tar files, tar after tar, in the order of their members.

    A sample gives a row if it has a picture: its first field with a picture's extension. Of the others `.cls` becomes
    the label column (int64; string where the first ones are no integers), `.json` and `.txt` string columns, verbatim.
    A column exists where one of the first 256 samples has the field. The tars' sizes and times are the fingerprint.

    Raises:
        ConfigError: no picture in any of the first samples, or two columns of one name.
    """
    tars = find_tars(source)
    first = list(islice((sample for sample in _listed(tars) if not sample.reason), LOOKED_AT))
    if not first:
        raise ConfigError(
            f"{source} holds no sample to pack: members of a tar are named KEY.jpg (or .png, .webp, …), KEY.cls, "
            "KEY.json"
        )
    kept = [kind for kind in KEPT if any(kind in sample.fields for sample in first)]
    plain = picture_schema(names, with_label=False)
    columns = {"cls": names.label, "json": "json", "txt": "txt"}
    fields = [pa.field(columns[kind], _type(kind, first)) for kind in kept]
    schema = pa.schema([*list(plain)[:2], *fields, *list(plain)[2:]])
    if len(set(schema.names)) < len(schema):
        raise ConfigError(f"two columns would have one name ({', '.join(schema.names)}): choose other column names")
    prints = file_fingerprint(*(path for _, path in tars))
    return Source(schema, None, prints, partial(_pieces, tars), _Read(schema, tuple(kept), resize))


def _listed(tars: Sequence[Tar]) -> Iterator[Sample]:
    return chain.from_iterable(samples(path, name) for name, path in tars)


def _type(kind: str, first: Sequence[Sample]) -> pa.DataType:
    if kind != "cls":
        return pa.string()
    with _Tars() as tars:
        texts = [tars.read(sample, sample.fields["cls"]) for sample in first if "cls" in sample.fields]
    try:
        for text in texts:
            int(text)
    except ValueError:
        return pa.string()
    return pa.int64()


def _pieces(tars: Sequence[Tar], start: int) -> Iterator[list[Sample]]:
    piece: list[Sample] = []
    size = 0
    for sample in islice(_listed(tars), start, None):
        piece.append(sample)
        size += sample.bytes
        if size >= PIECE_BYTES or len(piece) >= PIECE_ROWS:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece


class _Tars:
    """Reads fields; keeps the tar file of the last one open. Use as a context."""

    def __init__(self) -> None:
        self._open: tuple[str, IO[bytes]] | None = None

    def __enter__(self) -> _Tars:
        return self

    def __exit__(self, *_: object) -> None:
        if self._open is not None:
            self._open[1].close()

    def read(self, sample: Sample, data: FieldData) -> bytes:
        """The bytes of a field of the sample.

        Raises:
            OSError: the tar cannot be read.
            NotPacked: it ends within the field.
        """
        if isinstance(data, bytes):
            return data
        if self._open is None or self._open[0] != sample.tar:
            self.__exit__()
            self._open = None
            self._open = sample.tar, Path(sample.tar).open("rb")  # noqa: SIM115
        offset, length = data
        self._open[1].seek(offset)
        found = self._open[1].read(length)
        if len(found) < length:
            raise NotPacked(f"{UNREADABLE}: its tar ends within it")
        return found


@dataclass(frozen=True)
class _Read:
    """The work: reads the fields of a piece's samples."""

    schema: pa.Schema
    kept: tuple[str, ...]
    resize: Change | None

    def __call__(self, piece: Sequence[Sample]) -> Packed:
        pictures = Pictures(self.schema, self.resize)
        with _Tars() as tars:
            for sample in piece:
                if sample.reason:
                    pictures.set_aside(sample.name, sample.reason)
                    continue
                assert sample.picture is not None
                try:
                    data = tars.read(sample, sample.picture)
                    others = [self._value(pictures, tars, sample, kind) for kind in self.kept]
                    pictures.add(sample.name, data, *others)
                except OSError as error:
                    pictures.set_aside(sample.name, f"{UNREADABLE}: {error.strerror}")
                except NotPacked as error:
                    pictures.set_aside(sample.name, str(error))
        return pictures.packed()

    def _value(self, pictures: Pictures, tars: _Tars, sample: Sample, kind: str) -> Any:
        """A field as the value of its column; null where it cannot be."""
        if kind not in sample.fields:
            return None
        at = 2 + self.kept.index(kind)
        try:
            text = tars.read(sample, sample.fields[kind]).decode()
            if kind != "cls":
                return text
            return (
                pa.scalar(int(text), pa.int64()).as_py() if self.schema.field(at).type == pa.int64() else text.strip()
            )
        except (ValueError, OverflowError, pa.ArrowException):
            pictures.note(sample.name, f"{kind} that cannot be read")
            return None
