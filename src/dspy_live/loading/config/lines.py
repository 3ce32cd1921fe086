"""The line of each key in a TOML text; ``tomllib`` keeps none."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator

Path = tuple[str | int, ...]
"""The keys from the outermost to the innermost, and the number of an entry in an array."""

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_BASIC = re.compile(r'"(?:[^"\\\n]|\\.)*"')
_LITERAL = re.compile(r"'[^'\n]*'")
_LONG = re.compile(r'"""(?:[^\\]|\\.)*?"{3,5}|\'\'\'.*?\'{3,5}', re.DOTALL)
_PLAIN = re.compile(r"[^,\]}\n#]*")


def lines_of(text: str) -> dict[Path, int]:
    """Return the line, counted from 1, on which each table, key and entry of an array begins.

    The text must be valid TOML, as ``tomllib`` has found before. The tables that a header or a dotted key makes on its
    way are listed too, with the line that names them first.
    """
    return _Scanner(text).run()


class _Scanner:
    """Walks over a valid text once, and notes where keys stand."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[Path, int] = {}
        self._arrays: dict[Path, int] = {}
        self._line = 1
        self._counted = 0

    def run(self) -> dict[Path, int]:
        table: Path = ()
        while self._skip(_BLANK) < len(self.text):
            if self.text.startswith("[[", self.at):
                table = self._header(2)
            elif self.text[self.at] == "[":
                table = self._header(1)
            else:
                self._pair(table)
        return self.lines

    def _header(self, brackets: int) -> Path:
        self.at += brackets
        table: Path = ()
        line, keys = self.line(), list(self._keys())
        for number, key in enumerate(keys):
            table += (key,)
            self.lines.setdefault(table, line)
            if brackets == 2 and number == len(keys) - 1:
                self._arrays[table] = self._arrays.get(table, -1) + 1
            if table in self._arrays:
                table += (self._arrays[table],)
                self.lines.setdefault(table, line)
        self.at += brackets
        return table

    def _pair(self, table: Path) -> None:
        line = self.line()
        for key in self._keys():
            table += (key,)
            self.lines.setdefault(table, line)
        self.at += 1  # the sign =
        self._skip(_SPACE)
        self._value(table)

    def _keys(self) -> Iterator[str]:
        while True:
            self._skip(_SPACE)
            if quoted := _BASIC.match(self.text, self.at) or _LITERAL.match(self.text, self.at):
                self.at = quoted.end()
                yield tomllib.loads(f"key = {quoted[0]}")["key"]
            else:
                start = self.at
                yield self.text[start : self._skip(_BARE)]
            self._skip(_SPACE)
            if not self.text.startswith(".", self.at):
                return
            self.at += 1

    def _value(self, path: Path) -> None:
        first = self.text[self.at : self.at + 1]
        if first == "[":
            self._array(path)
        elif first == "{":
            self._inline_table(path)
        elif self.text.startswith(('"""', "'''"), self.at):
            self._skip(_LONG)
        elif first == '"':
            self._skip(_BASIC)
        elif first == "'":
            self._skip(_LITERAL)
        else:
            self._skip(_PLAIN)

    def _array(self, path: Path) -> None:
        self.at += 1
        number = 0
        while self.text[self._skip(_BLANK)] != "]":
            self.lines.setdefault((*path, number), self.line())
            self._value((*path, number))
            number += 1
            if self.text[self._skip(_BLANK)] == ",":
                self.at += 1
        self.at += 1

    def _inline_table(self, path: Path) -> None:
        self.at += 1
        while self.text[self._skip(_BLANK)] != "}":
            self._pair(path)
            if self.text[self._skip(_BLANK)] == ",":
                self.at += 1
        self.at += 1

    def _skip(self, pattern: re.Pattern[str]) -> int:
        if match := pattern.match(self.text, self.at):
            self.at = match.end()
        return self.at

    def line(self) -> int:
        """Return the line of the place that the walk has come to."""
        self._line += self.text.count("\n", self._counted, self.at)
        self._counted = self.at
        return self._line
