"""The finished items of a batch, on disk: one JSON line per item, so that a rerun does only the others.

A line is written when its item has ended, and handed to the operating system at once: a process that
is killed loses nothing that it had finished, and at most half a line, which the next start cuts off.
A line in the middle that can't be read, as an editor or a disk may leave one, costs its own item only.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from dspy_live.core.errors import ConfigurationError
from dspy_live.runtime.line_file import append_line, lock, unlock

logger = logging.getLogger("dspy_live.checkpoint")

_VERSION = 1
_NAMED = 10
"""So many damaged lines are named in the warning."""


def fingerprint(value: Any) -> str:
    """Return 16 hexadecimal digits that stand for a value, in any order of its keys."""
    try:
        data = orjson.dumps(value, default=str, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)
    except TypeError:  # an integer over 64 bits, a key that is a tuple, half a character of UTF-16
        data = _words_of(value).encode("utf-8", "surrogatepass")
    return hashlib.sha256(data).hexdigest()[:16]


def _words_of(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{{{','.join(sorted(f'{_words_of(key)}:{_words_of(item)}' for key, item in value.items()))}}}"
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(_words_of, value))}]"
    return repr(value) if isinstance(value, (str, int, float)) else str(value)


class CheckpointInUse(ConfigurationError):
    """Another batch, of this process or of another one, writes to the checkpoint."""


class Checkpoint:
    """The file of one batch over one program, locked until it is closed.

    Args:
        path: the file; it is made when it is missing.
        program: the program's :func:`fingerprint`. A file of another program is refused.

    Raises :class:`CheckpointInUse` while another batch has the file, and
    :class:`~dspy_live.core.errors.ConfigurationError` for a file that can't be opened, is no checkpoint, or is another
    program's. A file that is refused is left as it is.
    """

    def __init__(self, path: str | Path, program: str) -> None:
        self.path = Path(path)
        self.program = program
        self._lines: dict[int, tuple[int, str]] = {}
        try:
            self._file: BinaryIO = self.path.open("a+b", buffering=0)
        except OSError as exc:
            raise ConfigurationError(f"can't open the checkpoint {self.path}: {exc.strerror or exc}") from exc
        self._reader: BinaryIO | None = None
        try:
            self._begin()
        except BaseException:
            self.close()
            raise

    def get(self, index: int, inputs: str) -> dict[str, Any] | None:
        """Return the record of item ``index``, or ``None`` when it is not done.

        ``inputs`` is the fingerprint of the item's inputs: where the file has other ones for this
        item, it belongs to other inputs, and :class:`ConfigurationError` says so.
        """
        found = self._lines.get(index)
        if found is None:
            return None
        offset, known = found
        if known != inputs:
            raise ConfigurationError(
                f"the checkpoint {self.path} belongs to other inputs: its item {index} is not the one given now; "
                "give the inputs that it was made with, or another file"
            )
        if self._reader is None:
            self._reader = self.path.open("rb")
        self._reader.seek(offset)
        record: dict[str, Any] = json.loads(self._reader.readline())  # orjson makes large integers inexact
        return record

    def done(self, *, retry_failed: bool = False) -> Iterator[int]:
        """Yield the items that are done; with ``retry_failed`` without those that have failed."""
        for index, (_, inputs) in self._lines.items():
            record = self.get(index, inputs) if retry_failed else None
            if record is None or "error" not in record:
                yield index

    def put(self, index: int, inputs: str, record: dict[str, Any]) -> None:
        """Keep the record of a finished item, in place of one that it had.

        The record has ``outputs`` and ``prediction``, or ``error`` and ``message``. Raises ``OSError`` when the disk
        refuses it.
        """
        offset = self._file.seek(0, os.SEEK_END)
        self._write({"item": index, "inputs": inputs, **record})
        self._lines[index] = (offset, inputs)

    def close(self) -> None:
        """Close the file and give its lock back. A second time it does nothing."""
        if self._reader is not None:
            self._reader.close()
        if not self._file.closed:
            unlock(self._file)
            self._file.close()

    def _begin(self) -> None:
        if not lock(self._file, f"the checkpoint {self.path}"):
            raise CheckpointInUse(
                f"the checkpoint {self.path} is in use by another batch; wait for its end, or give another file"
            )
        head = {"checkpoint": _VERSION, "program": self.program}
        size = os.fstat(self._file.fileno()).st_size
        if not size:
            self._write(head)
            return
        with self.path.open("rb") as reader:
            if size <= len(orjson.dumps(head)) and orjson.dumps(head).startswith(reader.read(size)):
                # The process was killed, or the disk was full, while the first line was written.
                self._file.truncate(0)
                self._write(head)
                return
            reader.seek(0)
            self._read(reader)

    def _read(self, reader: BinaryIO) -> None:
        number, offset, line = 0, 0, b"\n"
        while line and not line.strip():
            offset += len(line) if number else 0
            line = reader.readline()
            number += 1
        self._check(line)
        damaged: list[int] = []
        offset += len(line)
        for line in reader:
            number += 1
            item = _item_of(line)
            if item is not None:
                self._lines[item[0]] = (offset, item[1])
            elif line.endswith(b"\n"):
                damaged.append(number)
            else:
                self._file.truncate(offset)  # half a line: the process was killed while it wrote
                line = b"\n"
                break
            offset += len(line)
        if not line.endswith(b"\n"):
            append_line(self._file, b"\n")  # an editor has left out the last line's end
        if damaged:
            self._warn(damaged)

    def _check(self, head: bytes) -> None:
        try:
            known = orjson.loads(head.removeprefix(b"\xef\xbb\xbf"))
            version, program = known["checkpoint"], known["program"]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            raise ConfigurationError(f"{self.path} is no checkpoint of a batch") from None
        if version != _VERSION:
            raise ConfigurationError(f"the checkpoint {self.path} was written by another version of dspy-live")
        if program != self.program:
            raise ConfigurationError(
                f"the checkpoint {self.path} belongs to another program, or this one has changed since; "
                "give another file, or remove it to begin anew"
            )

    def _warn(self, damaged: list[int]) -> None:
        numbers = ", ".join(map(str, damaged[:_NAMED])) + (", …" if len(damaged) > _NAMED else "")
        lines = f"line {numbers} is" if len(damaged) == 1 else f"{len(damaged)} lines ({numbers}) are"
        logger.warning(
            "the checkpoint %s: %s blank or damaged and left out; an item that has no other line is asked again",
            self.path,
            lines,
        )

    def _write(self, record: dict[str, Any]) -> None:
        try:
            append_line(self._file, _line_of(record) + b"\n")
        except OSError as exc:
            raise OSError(exc.errno, exc.strerror, str(self.path)) from exc


def _line_of(record: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(record, default=str)
    except TypeError:  # an integer over 64 bits, or half a character of UTF-16: Python's own form keeps both
        return json.dumps(record, default=str, skipkeys=True).encode()


def _item_of(line: bytes) -> tuple[int, str] | None:
    """Return a line's item and the fingerprint of its inputs, ``None`` where the line is no record."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict):
        return None
    item, inputs = record.get("item"), record.get("inputs")
    if type(item) is not int or item < 0 or not isinstance(inputs, str):
        return None
    if isinstance(record.get("error"), str):
        return (item, inputs) if isinstance(record.get("message"), str) else None
    whole = isinstance(record.get("outputs"), dict) and isinstance(record.get("prediction"), bool)
    return (item, inputs) if whole else None
