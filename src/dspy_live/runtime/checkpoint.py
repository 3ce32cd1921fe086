"""The finished items of a batch, on disk: one JSON line per item, so that a rerun does only the others.

A line is written when its item has ended, and handed to the operating system at once: a process that
is killed loses nothing that it had finished, and at most half a line, which the next start cuts off.
"""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from dspy_live.core.errors import ConfigurationError

_VERSION = 1


def fingerprint(value: Any) -> str:
    """Return 16 hexadecimal digits that stand for a JSON value, in any order of its keys."""
    data = orjson.dumps(value, default=str, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)
    return hashlib.sha256(data).hexdigest()[:16]


class Checkpoint:
    """The file of one batch over one program.

    Args:
        path: the file; it is made when it is missing.
        program: the program's :func:`fingerprint`. A file of another program is refused.

    Raises :class:`~dspy_live.core.errors.ConfigurationError` for a file that is no checkpoint, or another program's.
    """

    def __init__(self, path: str | Path, program: str) -> None:
        self.path = Path(path)
        self.program = program
        self._lines: dict[int, tuple[int, str]] = {}
        self._file: BinaryIO = self._open()

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
        with self.path.open("rb") as file:
            file.seek(offset)
            record: dict[str, Any] = orjson.loads(file.readline())
        return record

    def put(self, index: int, inputs: str, record: dict[str, Any]) -> None:
        """Keep the record of a finished item. Raises ``OSError`` when the disk refuses it."""
        line = orjson.dumps({"item": index, "inputs": inputs, **record}, default=str) + b"\n"
        offset = self._file.tell()
        try:
            self._file.write(line)
        except OSError as exc:
            # Half a line would spoil the next one.
            with contextlib.suppress(OSError):
                self._file.truncate(offset)
            raise OSError(exc.errno, exc.strerror, str(self.path)) from exc
        self._lines[index] = (offset, inputs)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _open(self) -> BinaryIO:
        if not self.path.exists() or self.path.stat().st_size == 0:
            made: BinaryIO = self.path.open("wb", buffering=0)
            try:
                made.write(orjson.dumps({"checkpoint": _VERSION, "program": self.program}) + b"\n")
            except OSError as exc:
                made.close()
                raise OSError(exc.errno, exc.strerror, str(self.path)) from exc
            return made
        self._read()
        file: BinaryIO = self.path.open("r+b", buffering=0)
        file.seek(0, 2)
        return file

    def _read(self) -> None:
        with self.path.open("r+b") as file:
            self._check(file.readline())
            whole = file.tell()
            while line := file.readline():
                try:
                    record = orjson.loads(line) if line.endswith(b"\n") else None
                except orjson.JSONDecodeError:
                    record = None
                if record is None:
                    break  # half a line: the process was killed while it wrote
                self._lines[record["item"]] = (whole, record["inputs"])
                whole = file.tell()
            file.truncate(whole)

    def _check(self, head: bytes) -> None:
        try:
            known = orjson.loads(head)
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
