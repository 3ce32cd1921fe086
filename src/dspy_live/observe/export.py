"""Tables into files: JSON, JSON Lines or CSV, by the file's suffix."""

from __future__ import annotations

import csv
import io
import os
import secrets
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson

from dspy_live.core.errors import ConfigurationError

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # the wide ones count, too
SUFFIXES = (".json", ".jsonl", ".ndjson", ".csv")


def write_table(path: str | Path, rows: Iterable[Mapping[str, Any]], *, whole: Any = None) -> Path:
    """Write ``rows`` to ``path`` in the format of its suffix and return the path.

    ``.json`` holds ``whole`` where that is given, else the list of rows. All rows of a CSV share the columns of the
    first; one without rows is empty. A reader never sees half a file: it is written beside its place and moved there,
    with the permissions of the file that was there or of any new one. Raises
    :class:`~dspy_live.core.errors.ConfigurationError` for another suffix, a folder that isn't there, or one that can't
    be written to.
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
    try:
        # A link stays one: its target is replaced.
        _replace(path.resolve(), content)
    except OSError as exc:
        raise ConfigurationError(f"{str(path)!r} can't be written: {exc.strerror or exc}") from None
    return path


def _csv(rows: list[Mapping[str, Any]]) -> bytes:
    out = io.StringIO()
    if rows:
        # All text is quoted: a lone carriage return would not be, and end the row for most readers.
        writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
        writer.writeheader()
        writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    return out.getvalue().encode()


def _cell(value: Any) -> Any:
    # A text that begins like this would be run as a formula by the program that opens the table.
    if isinstance(value, str) and value[:1] in _FORMULA:
        return "'" + value
    return value


def _replace(path: Path, content: bytes) -> None:
    beside = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    # Not mkstemp, whose files are for their owner alone.
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        if path.exists():
            beside.chmod(stat.S_IMODE(path.stat().st_mode))
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
