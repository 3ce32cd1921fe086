"""The rows of a JSON Lines or CSV file, one by one, whatever is wrong with some of them."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from contextlib import suppress
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

    Raises :class:`ConfigurationError` for a file that can't be opened, or whose header line is no UTF-8.
    """
    suffix = Path(path).suffix.lower()
    with _open(path) as file:
        if suffix in (".csv", ".tsv"):
            yield from _csv_rows(path, file, "\t" if suffix == ".tsv" else ",")
        else:
            yield from _json_rows(file)


def count_rows(path: str) -> int:
    """Return how many rows :func:`read_rows` yields for a file, without a look at what is in them."""
    suffix = Path(path).suffix.lower()
    with _open(path) as file:
        if suffix not in (".csv", ".tsv"):
            return sum(1 for line in iter(lambda: file.readline(MAX_LINE), "") if line.strip())
        rows = -1  # the header
        reader = csv.reader(file, delimiter="\t" if suffix == ".tsv" else ",")
        while True:
            try:
                rows += bool(next(reader))
            except StopIteration:
                return max(rows, 0)
            except csv.Error:
                rows += 1


def _open(path: str) -> IO[str]:
    if path == "-":
        return sys.stdin
    try:
        # Bytes that are no UTF-8 are kept apart from real characters, so that their row can be reported.
        return Path(path).open(encoding="utf-8-sig", newline="", errors="surrogateescape")
    except OSError as exc:
        raise ConfigurationError(f"can't read {path}: {exc.strerror}") from exc


def _json_rows(file: IO[str]) -> Iterator[dict[str, Any] | BadRow]:
    while line := file.readline(MAX_LINE):
        if not line.strip():
            continue
        yield row_of_line(line)


def row_of_line(line: str) -> dict[str, Any] | BadRow:
    """Return the row of one line of JSON; bytes that are no UTF-8 stand in it as ``surrogateescape`` makes them."""
    row, problem = _parsed(line)
    return BadRow(_readable(line.rstrip("\r\n")[:2000]), problem) if problem else row


def _parsed(line: str) -> tuple[Any, str]:
    if not _is_text(line):
        return None, "the line is no UTF-8"
    try:
        row = json.loads(line)
    except json.JSONDecodeError as exc:
        return None, f"the line is no JSON: {exc.msg} at column {exc.colno}"
    except (ValueError, RecursionError) as exc:  # a number of thousands of digits, thousands of brackets
        return None, f"the line is no JSON that can be read: {exc}"
    return (
        (row, "") if isinstance(row, dict) else (None, "the line is JSON, but no object with one key per input field")
    )


def _is_text(line: str) -> bool:
    return line.isascii() or not any("\udc80" <= char <= "\udcff" for char in line)


def _readable(line: str) -> str:
    return line.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _csv_rows(path: str, file: IO[str], delimiter: str) -> Iterator[dict[str, Any] | BadRow]:
    reader = csv.DictReader(file, delimiter=delimiter)
    with suppress(csv.Error):  # the same failure comes with the first row
        if not _is_text("".join(reader.fieldnames or ())):
            raise ConfigurationError(f"the first line of {path} is no UTF-8; save the file as UTF-8 (CSV UTF-8)")
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as exc:
            yield BadRow("", f"line {reader.line_num} is no CSV: {exc}")
            continue
        if not _is_text("".join(cell for cell in row.values() if isinstance(cell, str))):
            yield BadRow(_readable(delimiter.join(filter(None, row.values()))), f"line {reader.line_num} is no UTF-8")
        elif None in row:
            yield BadRow(delimiter.join(row[None] or ()), f"line {reader.line_num} has more columns than the header")
        else:
            yield {name: value for name, value in row.items() if value is not None}
