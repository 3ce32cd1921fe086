"""The rows of a JSON Lines or CSV file, one by one, whatever is wrong with some of them."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from dspy_live.core.errors import ConfigurationError

MAX_LINE = 64 << 20
"""Characters of one line; a file without line ends is no list of rows."""


class BadRow:
    """A line that is no row: its text, and what is wrong with it."""

    def __init__(self, text: str, message: str) -> None:
        self.text = text
        self.message = message


def read_rows(path: str) -> Iterator[dict[str, Any] | BadRow]:
    """Yield the rows of a file; ``-`` is JSON Lines on stdin, ``.csv`` and ``.tsv`` have a header line.

    Raises :class:`ConfigurationError` for a file that can't be opened.
    """
    suffix = Path(path).suffix.lower()
    with _opened(path) as file:
        if suffix in (".csv", ".tsv"):
            yield from _csv_rows(file, "\t" if suffix == ".tsv" else ",")
        else:
            yield from _json_rows(file)


def _opened(path: str) -> IO[str]:
    if path == "-":
        return sys.stdin
    try:
        return Path(path).open(encoding="utf-8-sig", newline="", errors="replace")
    except OSError as exc:
        raise ConfigurationError(f"can't read {path}: {exc.strerror}") from exc


def _json_rows(file: IO[str]) -> Iterator[dict[str, Any] | BadRow]:
    while line := file.readline(MAX_LINE):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as exc:
            yield BadRow(line.rstrip("\n")[:2000], f"the line is no JSON: {exc.msg} at column {exc.colno}")
            continue
        if isinstance(row, dict):
            yield row
        else:
            yield BadRow(line.rstrip("\n")[:2000], "the line is JSON, but no object with one key per input field")


def _csv_rows(file: IO[str], delimiter: str) -> Iterator[dict[str, Any] | BadRow]:
    reader = csv.DictReader(file, delimiter=delimiter)
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as exc:
            yield BadRow("", f"line {reader.line_num} is no CSV: {exc}")
            continue
        if None in row:
            yield BadRow(delimiter.join(row[None] or ()), f"line {reader.line_num} has more columns than the header")
        else:
            yield {name: value for name, value in row.items() if value is not None}
