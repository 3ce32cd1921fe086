"""The result of a conversion, and the errors of one that can't be made."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from dspy_live.core.errors import ConfigurationError

Level = Literal["changed", "left", "advice"]


@dataclass(frozen=True, slots=True)
class Note:
    """One remark about a conversion.

    Args:
        level: ``"changed"`` for what was done, ``"left"`` for what was not touched and why,
            ``"advice"`` for what the user may want to do by hand.
        text: one sentence for a person.
        line: the line of the user's file, from 1, or 0 when it is about the whole file.
    """

    level: Level
    text: str
    line: int = 0


@dataclass(frozen=True, slots=True)
class Conversion:
    """The result of a conversion: a value, nothing was written.

    Args:
        kind: ``"async"``, ``"streaming"``, …
        old: the user's source.
        new: the converted source; of a kind that makes a new file, the source of that file.
        notes: what was done, what was left, and why.
        new_file: the name of the new file, or empty when the user's file itself is changed.
        old_file: how the user's file is called in the diff.
        program: the program that the user named, or empty.
    """

    kind: str
    old: str
    new: str
    notes: Sequence[Note] = ()
    new_file: str = ""
    old_file: str = "program.py"
    program: str = ""

    @property
    def changed(self) -> bool:
        """False when the file already is what was asked for, or nothing could be done."""
        return bool(self.new_file) or self.new != self.old

    @property
    def diff(self) -> str:
        """A unified diff from the old source to the new one; of a new file, the whole file."""
        old = "" if self.new_file else self.old
        before, after = (
            ("/dev/null", f"b/{self.new_file}") if self.new_file else (f"a/{self.old_file}", f"b/{self.old_file}")
        )
        lines = difflib.unified_diff(old.splitlines(keepends=True), self.new.splitlines(keepends=True), before, after)
        return "".join(line if line.endswith("\n") else line + "\n\\ No newline at end of file\n" for line in lines)


@dataclass(slots=True)
class Notes:
    """Collects notes, each only once."""

    items: list[Note] = field(default_factory=list)

    def add(self, level: Level, text: str, line: int = 0) -> None:
        note = Note(level, text, line)
        if note not in self.items:
            self.items.append(note)

    def sorted(self) -> tuple[Note, ...]:
        """Changes first, then what was left, then advice; each in the file's order."""
        order = {"changed": 0, "left": 1, "advice": 2}
        return tuple(sorted(self.items, key=lambda note: (order[note.level], note.line)))


class ConvertError(ConfigurationError):
    """The file can't be converted; the message says why and what to do."""

    code: ClassVar[str] = "convert"


class DoesNotParse(ConvertError):
    """The file is no valid Python; ``details`` has ``line`` and ``column``, from 1."""

    code = "does_not_parse"


class NoProgram(ConvertError):
    """There is no DSPy program in the file."""

    code = "no_program"


class SeveralPrograms(ConvertError):
    """There are several programs and the conversion is about one; ``candidates`` are their names."""

    code = "several_programs"

    def __init__(self, message: str, candidates: Sequence[str]) -> None:
        super().__init__(message, candidates=list(candidates))
        self.candidates = list(candidates)
