"""The output of a batch: rows are written beside the file, which gets them when they are all there."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from dspy_live.core.errors import ConfigurationError, LiveError
from dspy_live.runtime.line_file import append_line, lock


def part_of(name: str) -> Path:
    """Return the file beside an output that its rows are written to."""
    path = Path(name).resolve()
    return path.with_name(f"{path.name}.part")


def open_output(name: str) -> Output:
    """Open the output of that name, ``-`` for stdout. Raises :class:`ConfigurationError` for one that can't be."""
    if name == "-":
        return Output(name, os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0))
    path = Path(name)
    try:
        if path.exists() and not path.is_file():  # a device or a pipe
            return Output(name, path.open("wb", buffering=0))
        return FileOutput(name)
    except OSError as exc:
        raise ConfigurationError(f"can't write {name}: {exc.strerror}") from exc


class Output:
    """Writes rows as they come."""

    left_in: Path | None = None
    """Where the rows of a batch that was ended early are, if not under the output's name."""

    def __init__(self, name: str, file: BinaryIO) -> None:
        self._name = name
        self._file = file

    def __enter__(self) -> Output:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, line: bytes) -> None:
        """Write one row. Raises :class:`LiveError` when it can't be, ``BrokenPipeError`` when nobody reads on."""
        try:
            append_line(self._file, line)
        except BrokenPipeError:
            raise
        except OSError as exc:
            raise LiveError(f"can't write {self._name}: {exc.strerror}; what is written so far is whole") from exc


class FileOutput(Output):
    """Writes rows to ``NAME.part``, which takes the place of ``NAME`` at the end of the batch.

    A batch that ends early leaves a file that was there as it was, and its own rows in ``NAME.part``; where there was
    none, they get the name. One that ends before its first row changes nothing.
    """

    def __init__(self, name: str) -> None:
        self._path = Path(name).resolve()
        self._part = part_of(name)
        if self._path.exists() and not os.access(self._path, os.W_OK):
            raise ConfigurationError(f"can't write {name}: it is write-protected")
        super().__init__(name, self._part.open("ab", buffering=0))
        if not lock(self._file, str(self._part)):
            self._file.close()
            raise ConfigurationError(f"can't write {name}: another batch is writing it, in {self._part}")
        self._rows = 0

    def write(self, line: bytes) -> None:
        if self._rows == 0:
            self._file.truncate(0)  # of a batch that ended early, before this one
        super().write(line)
        self._rows += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._file:
            if self._rows == 0 and kind is None:
                self._file.truncate(0)
            if kind is None or (self._rows and not self._is_there()):
                self._rename()
            elif self._rows:
                self.left_in = self._part
            elif self._file.seek(0, os.SEEK_END) == 0:
                self._part.unlink(missing_ok=True)

    def _is_there(self) -> bool:
        return self._path.exists() and self._path.stat().st_size > 0

    def _rename(self) -> None:
        try:
            if self._path.exists():
                shutil.copymode(self._path, self._part)
            self._part.replace(self._path)
        except OSError as exc:
            self.left_in = self._part
            raise LiveError(f"can't write {self._name}: {exc.strerror}; its rows are in {self._part}") from exc
