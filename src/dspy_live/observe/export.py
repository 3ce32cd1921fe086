"""Tables of figures into files: JSON, JSON Lines or CSV, by the file's suffix."""

from __future__ import annotations

import csv
import io
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson

from dspy_live.core.errors import ConfigurationError

SUFFIXES = (".json", ".jsonl", ".ndjson", ".csv")


def write_table(path: str | Path, rows: Iterable[Mapping[str, Any]], *, whole: Any = None) -> Path:
    """Write ``rows`` to ``path`` in the format of its suffix and return the path.

    ``.json`` holds ``whole`` where that is given, else the list of rows. All rows of a CSV share the columns of the
    first. A reader never sees half a file: it is written beside its place and moved there. Raises
    :class:`~dspy_live.core.errors.ConfigurationError` for another suffix or a folder that isn't there.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ConfigurationError(f"can't tell the format of {path.name!r}: the name must end in {', '.join(SUFFIXES)}")
    if not path.parent.is_dir():
        raise ConfigurationError(f"there is no folder {str(path.parent)!r} to write {path.name!r} to")
    rows = list(rows)
    if suffix == ".json":
        content = orjson.dumps(rows if whole is None else whole, option=orjson.OPT_INDENT_2) + b"\n"
    elif suffix == ".csv":
        content = _csv(rows)
    else:
        content = b"".join(orjson.dumps(row) + b"\n" for row in rows)
    _replace(path, content)
    return path


def _csv(rows: list[Mapping[str, Any]]) -> bytes:
    out = io.StringIO()
    if rows:
        writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    return out.getvalue().encode()


def _cell(value: Any) -> Any:
    # A text that begins like this would be run as a formula by the program that opens the table.
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return "'" + value
    return value


def _replace(path: Path, content: bytes) -> None:
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
