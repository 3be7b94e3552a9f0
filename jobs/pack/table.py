"""A CSV → its columns with inferred types, and a row number as `id` where it has none.

Cells are kept verbatim, also those that start with `=`, `+`, `-` or `@`: a pool is data, not a spreadsheet. Whoever
exports a selection to a spreadsheet escapes them there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv

from poolscore.engine.errors import ConfigError
from poolscore.jobs.pack.contract import MIB, Names, Source, as_it_is, file_fingerprint, printable

BLOCK_BYTES = 4 * MIB
"""Text read at a time; a single record must be shorter."""
_CONVERSION = re.compile(r"In CSV column #(\d+): Row #(\d+): CSV conversion error to [^:]*: (.*)", re.DOTALL)
_ROW = re.compile(r"Row #(\d+): (.*)", re.DOTALL)


@dataclass
class _Csv:
    """One CSV with the column types settled so far."""

    path: Path
    delimiter: str
    types: dict[str, pa.DataType]

    def reader(self) -> csv.CSVStreamingReader:
        return csv.open_csv(
            self.path,
            read_options=csv.ReadOptions(block_size=BLOCK_BYTES, use_threads=False),
            parse_options=csv.ParseOptions(delimiter=self.delimiter, newlines_in_values=True),
            convert_options=csv.ConvertOptions(column_types=self.types),
        )


def csv_source(path: Path, names: Names, *, delimiter: str | None, text_columns: Sequence[str]) -> Source:
    """A CSV with a header, UTF-8, plain or compressed (`.gz`, `.bz2`, … by extension).

    The file is read through once before anything is packed: wrong rows are found, rows are counted, and a column whose
    later cells do not fit the type inferred from the first 4 MiB is widened (int64 → double → string). The id column
    is int64 or string, never a lossy double.

    Args:
        delimiter: one ASCII character; None is a tab for `.tsv`, else a comma.
        text_columns: read as text whatever they hold (keeps leading zeros).

    Raises:
        ConfigError: unreadable, no rows, an inconsistent row, doubled column names, not UTF-8, an unknown column.
    """
    if delimiter is None:
        delimiter = "\t" if path.name.lower().removesuffix(".gz").endswith(".tsv") else ","
    if len(delimiter) != 1 or not delimiter.isascii() or delimiter in '"\r\n':
        raise ConfigError(f"the delimiter must be one ASCII character, got {delimiter!r}")
    table = _Csv(path, delimiter, {})
    try:
        header = _settle_header(table, names, text_columns)
        rows = _settle_types(table, names)
    except (pa.ArrowInvalid, OSError, UnicodeDecodeError) as error:
        raise ConfigError(_message(path, error)) from error
    if not rows:
        raise ConfigError(f"{path} holds a header but no rows to pack")
    schema = pa.schema([pa.field(name, table.types[name]) for name in header])
    if names.id not in header:
        schema = schema.insert(0, pa.field(names.id, pa.int64()))
    pieces = partial(_pieces, table, schema, names.id not in header)
    return Source(schema, rows, file_fingerprint(path), pieces, as_it_is, light=True)


def _settle_header(table: _Csv, names: Names, text_columns: Sequence[str]) -> list[str]:
    """Checks the header and sets a first type for every column."""
    with table.reader() as reader:
        schema = reader.schema
    header = list(schema.names)
    if doubled := sorted({name for name in header if header.count(name) > 1}):
        raise ConfigError(f"{table.path} has the column {doubled[0]!r} more than once: rename one in the header")
    if unknown := sorted(set(text_columns) - set(header)):
        raise ConfigError(f"{table.path} has no column {unknown[0]!r}: it has {', '.join(map(repr, header))}")
    for field in schema:
        kind = field.type
        if pa.types.is_binary(kind):
            raise ConfigError(f"column {field.name!r} of {table.path} is not UTF-8 text: save the file as UTF-8")
        as_text = pa.types.is_null(kind) or field.name in text_columns
        as_text |= field.name == names.id and not pa.types.is_integer(kind)
        table.types[field.name] = pa.string() if as_text else kind
    return header


def _settle_types(table: _Csv, names: Names) -> int:
    """Reads the whole file, widening types until every cell fits; returns the number of rows."""
    header = list(table.types)
    while True:
        rows, last = 0, None
        try:
            with table.reader() as reader:
                for batch in reader:
                    rows += batch.num_rows
                    last = batch.column(batch.num_columns - 1)[-1].as_py() if batch.num_rows else last
            if isinstance(last, str) and "\n" in last and not _ends_with_quote(table.path):
                raise ConfigError(f"{table.path}: a quote in its last row ({rows + 1}) is never closed; mend that row")
            return rows
        except pa.ArrowInvalid as error:
            found = _CONVERSION.search(str(error))
            name = header[int(found[1])] if found else ""
            if not found or table.types[name] == pa.string():
                raise
            number = pa.types.is_integer(table.types[name]) and name != names.id
            table.types[name] = pa.float64() if number else pa.string()


def _ends_with_quote(path: Path) -> bool:
    """Whether the last cell of the (perhaps compressed) text ends with a quote. Arrow takes a quote that is never
    closed for a cell that holds all the rest of the file."""
    end = b""
    with pa.input_stream(str(path), compression="detect") as stream:
        while piece := stream.read(MIB):
            end = (end + piece).rstrip(b"\r\n")[-1:] or end
    return end == b'"'


def _pieces(table: _Csv, schema: pa.Schema, number_rows: bool, start: int) -> Iterator[list[pa.RecordBatch]]:
    done = 0
    try:
        with table.reader() as reader:
            for number, batch in enumerate(reader):
                columns = list(batch.columns)
                if number_rows:
                    columns.insert(0, pa.array(np.arange(done, done + batch.num_rows, dtype=np.int64)))
                if number >= start:
                    yield [pa.RecordBatch.from_arrays(columns, schema=schema)]
                done += batch.num_rows
    except (pa.ArrowInvalid, OSError) as error:
        raise ConfigError(_message(table.path, error)) from error


def _message(path: Path, error: Exception) -> str:
    text = str(error)
    if "straddling" in text:
        return f"{path} has a record longer than {BLOCK_BYTES} bytes, or a quote that is never closed: mend that record"
    if "Empty CSV" in text:
        return f"{path} is empty: a CSV with a header is expected"
    if found := _ROW.search(text):
        what = printable(" ".join(found[2].split())[:200])
        return f"{path}, row {found[1]} (the header is row 1): {what}; mend that row or choose another delimiter"
    return f"{path} cannot be read as CSV: {printable(' '.join(text.split())[:200])}"
