"""Where the rows of a file stand, so that workers read their own: ranges of JSON Lines, slices of Parquet's groups."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from dspy_live.core.errors import ConfigurationError

MAX_LINE = 64 << 20
"""Bytes of one line, as for a batch on one machine; a longer one is cut there."""
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class RowRange:
    """Some rows of a file, one after the other.

    Args:
        path: the file.
        first: the place of the first row in the file's rows.
        rows: how many there are.
        start: the byte at which they begin; in a Parquet file the row of its group.
        group: the row group of a Parquet file, ``None`` for JSON Lines.
    """

    path: str
    first: int
    rows: int
    start: int
    group: int | None = None


def row_ranges(path: str, rows: int) -> Iterator[RowRange]:
    """Yield the ranges of a file, each of at most so many rows.

    JSON Lines is read once for this, a line at a time. Raises :class:`ConfigurationError` for a file of another kind,
    and for one that can't be read.
    """
    suffix = Path(path).suffix.lower()
    if suffix in (".csv", ".tsv") or path == "-":
        raise ConfigurationError(f"--on ray reads JSON Lines and .parquet files, which workers share; got {path}")
    whole = str(Path(path).resolve())
    try:
        if suffix == ".parquet":
            yield from _of_parquet(whole, rows)
        else:
            with Path(whole).open("rb") as file:
                yield from _of_lines(whole, file, rows)
    except OSError as exc:
        raise ConfigurationError(f"can't read {path}: {exc.strerror or exc}") from exc


def read_range(given: RowRange, cached: dict[tuple[str, int], Any]) -> Iterator[bytes]:
    """Yield the rows of a range as lines of JSON. ``cached`` keeps the Parquet group that was read last."""
    if given.group is not None:
        yield from _read_parquet(given, cached)
        return
    with Path(given.path).open("rb") as file:
        file.seek(given.start)
        found = 0
        while found < given.rows and (line := file.readline(MAX_LINE)):
            if line.removeprefix(_BOM).strip():
                found += 1
                yield line.removeprefix(_BOM)


def _of_lines(path: str, file: BinaryIO, rows: int) -> Iterator[RowRange]:
    first = start = offset = found = 0
    while line := file.readline(MAX_LINE):
        offset += len(line)
        found += bool(line.removeprefix(_BOM).strip())
        if found == rows:
            yield RowRange(path, first, found, start)
            first, start, found = first + found, offset, 0
    if found:
        yield RowRange(path, first, found, start)


def _of_parquet(path: str, rows: int) -> Iterator[RowRange]:
    from pyarrow import ArrowInvalid
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path) as file:
            sizes = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
    except ArrowInvalid as exc:
        raise ConfigurationError(f"{path} is no Parquet file: {exc}") from exc
    first = 0
    for group, size in enumerate(sizes):
        for start in range(0, size, rows):
            many = min(rows, size - start)
            yield RowRange(path, first, many, start, group)
            first += many


def _read_parquet(given: RowRange, cached: dict[tuple[str, int], Any]) -> Iterator[bytes]:
    import orjson
    from pyarrow.parquet import ParquetFile

    assert given.group is not None
    place = (given.path, given.group)
    if place not in cached:
        cached.clear()
        with ParquetFile(given.path) as file:
            cached[place] = file.read_row_group(given.group)
    for row in cached[place].slice(given.start, given.rows).to_pylist():
        yield orjson.dumps(row, default=str)
