"""JSONAdapter's and BAMLAdapter's format: one JSON object whose members are the fields.

DSPy reads it with json_repair: JSON is read as JSON, last member of a name first, anything else is
guessed at with the whole reply in view. So this parser reads JSON, tolerates what json_repair
tolerates without guessing (text around the object, raw line ends and bad escapes in strings,
Python's constants), and falls silent at anything else; then the reply's own parse has the last word.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import ClassVar

from dspy_live.sansio.fields.base import FieldEvent, FieldSpec, FieldText, PlainText
from dspy_live.sansio.fields.json_raw import RawValue
from dspy_live.sansio.fields.json_text import cut_short, loose, strict, whole
from dspy_live.sansio.fields.sinks import PYTHON_CONSTANTS, ContainerSink, ScalarSink, TextSink, ended, texts

_SPACE = re.compile(r"[ \t\n\r]*")
_KEY = re.compile(r'(?:[^"\\\x00-\x1f]+|\\.)*+')
_QUOTES = "\"'“”"
# Held back in a string that is not quite JSON: a run of backslashes, or a comma and a word. Longer
# than any of an honest text, and short enough to be looked at again with every token.
_MOST_HELD = 256


class _At(IntEnum):
    """What the parser expects next; the numbers index the table of steps."""

    PROSE = 0
    FIRST_KEY = 1
    KEY = 2
    IN_KEY = 3
    COLON = 4
    VALUE = 5
    TEXT = 6
    AFTER_TEXT = 7
    RAW = 8
    AFTER_VALUE = 9
    OVER = 10
    SILENT = 11


class JsonParser:
    """The parser of one JSON object. It holds back an escape that is cut, and white space at a string's end."""

    __slots__ = (
        *("_at", "_blank", "_box", "_escape", "_fast", "_key", "_loose", "_pending"),
        *("_raw", "_seen", "_sink", "_spec", "_specs", "_texts", "_value"),
    )

    def __init__(self, fields: Sequence[FieldSpec]) -> None:
        self._specs = {spec.name: spec for spec in fields}
        self._seen: set[str] = set()
        self._texts: list[TextSink] = []
        self._at = _At.PROSE
        self._blank = True
        # True once the reply needs json_repair: it then reads all strings by its own rules.
        self._loose = False
        # The member being read: its name, and whose it is, if it is somebody's.
        self._key: list[str] = []
        self._spec: FieldSpec | None = None
        self._sink: TextSink | None = None
        self._fast: TextSink | None = None
        self._pending = ""
        # The last character was a backslash: one that escapes the next in a name, an escaped one in a text.
        self._escape = False
        # A value that is no text's string: where it ends, and where it is collected.
        self._value = RawValue("")
        self._raw: list[str] = []
        self._box: ContainerSink | None = None

    def feed(self, text: str) -> list[FieldEvent]:
        """See :class:`~dspy_live.sansio.fields.base.Parser`."""
        sink = self._fast
        # What is printable has no control character, and no white space but the blank.
        if sink is not None and text.isprintable() and text[-1:] > " " and '"' not in text and "\\" not in text:
            if sink.held:
                text = "".join(sink.held) + text
                sink.held = []
            sink.write(text)
            return [FieldText(sink.field, text)]
        out: list[FieldEvent] = []
        if sink is not None and (said := whole(text)) is not None:
            sink.push(said)
            sink.flush(out)
            return out
        at, end = 0, len(text)
        while at < end:
            at = self._STEPS[self._at](self, text, at, out)
        self._fast = None
        if self._sink is not None:
            self._sink.flush(out)
            if self._at is _At.TEXT and not (self._pending or self._loose or self._escape):
                self._fast = self._sink
        elif self._box is not None:
            self._box.flush(out)
        return out

    def finish(self) -> list[FieldEvent]:
        """See :class:`~dspy_live.sansio.fields.base.Parser`."""
        out: list[FieldEvent] = []
        if self._at is _At.RAW:
            if self._value.bare:
                self._end_raw(out)
        elif self._sink is not None and self._at is not _At.SILENT:
            if self._at is _At.AFTER_TEXT:
                self._release()
            elif self._pending:
                self._sink.push(cut_short(self._pending))
            self._sink.close(out)
        self._at, self._sink, self._fast, self._box = _At.OVER, None, None, None
        return out

    def plain(self) -> PlainText | None:
        """See :class:`~dspy_live.sansio.fields.base.Parser`."""
        sink = self._fast
        return None if sink is None or sink.held else PlainText(sink.field, sink.write)

    def texts(self) -> dict[str, str]:
        """See :class:`~dspy_live.sansio.fields.base.Parser`."""
        return texts(self._texts)

    def ended(self) -> frozenset[str]:
        """See :class:`~dspy_live.sansio.fields.base.Parser`."""
        return ended(self._texts)

    # One step each: read from ``at`` on, return how far; what can't be read ends it all.

    def _prose(self, text: str, at: int, out: list[FieldEvent]) -> int:
        if self._blank:
            rest = text[at:].lstrip()
            if rest and rest[0] in _QUOTES:
                return self._give_up(text)  # json_repair may put a brace before it
            self._blank = not rest
        start = text.find("{", at)
        if start < 0:
            return len(text)
        self._at = _At.FIRST_KEY
        return start + 1

    def _first_key(self, text: str, at: int, out: list[FieldEvent]) -> int:
        return self._expect('"}', (_At.IN_KEY, _At.OVER), text, at)

    def _next_key(self, text: str, at: int, out: list[FieldEvent]) -> int:
        return self._expect('"', (_At.IN_KEY,), text, at)

    def _in_key(self, text: str, at: int, out: list[FieldEvent]) -> int:
        match = _KEY.match(text, at + self._escape)
        assert match is not None
        end = match.end()
        self._escape = end < len(text) and text[end] == "\\"
        if end == len(text) or self._escape:
            self._key.append(text[at:])
            return len(text)
        if text[end] != '"':
            return self._give_up(text)
        self._key.append(text[at:end])
        self._at = _At.COLON
        return end + 1

    def _colon(self, text: str, at: int, out: list[FieldEvent]) -> int:
        return self._expect(":", (_At.VALUE,), text, at)

    def _begin_value(self, text: str, at: int, out: list[FieldEvent]) -> int:
        at = _skip(text, at)
        if at == len(text):
            return at
        raw = "".join(self._key)
        self._key = []
        try:
            name = json.loads(f'"{raw}"') if "\\" in raw else raw
        except ValueError:
            return self._give_up(text)
        self._spec = self._specs.get(name) if name not in self._seen else None
        self._seen.add(name)
        first = text[at]
        if self._spec is not None and self._spec.kind == "text":
            self._sink = TextSink(name, strip=False)
            self._texts.append(self._sink)
            if first == '"':
                self._at = _At.TEXT
                return at + 1
        elif self._spec is not None and self._spec.kind == "container" and first in "[{":
            self._box = ContainerSink(name)
        self._at, self._value = _At.RAW, RawValue(first)
        return at

    def _text(self, text: str, at: int, out: list[FieldEvent]) -> int:
        assert self._sink is not None
        data, start = (self._pending + text[at:], 0) if self._pending else (text, at)
        self._pending = ""
        if not self._loose:
            said, start, self._pending, last = strict(data, start)
            if said:
                self._sink.push(said)
            self._loose = start < len(data) and data[start] != '"'
            if last:
                self._escape = last == "\\"
            if self._loose and self._escape and data[start] == "\\":
                return self._give_up(text)  # json_repair has its own idea of three backslashes
        if self._loose:
            said, start, self._pending = loose(data, start)
            if said:
                self._sink.push(said)
            if len(self._pending) > _MOST_HELD:
                return self._give_up(text)
        if start < len(data):
            if data[start] != '"':
                return self._give_up(text)
            self._at, self._escape = _At.AFTER_TEXT, False
            start += 1
        return len(text) - (len(data) - start)

    def _after_text(self, text: str, at: int, out: list[FieldEvent]) -> int:
        """The string seems to be over; not so if it was a quote that should have been escaped."""
        at = self._expect(",}", (_At.KEY, _At.OVER), text, at)
        if self._at in (_At.KEY, _At.OVER):
            assert self._sink is not None
            self._release()
            self._sink.close(out)
            self._sink = None
        return at

    def _read_raw(self, text: str, at: int, out: list[FieldEvent]) -> int:
        end = self._value.end(text, at)
        piece = text[at:] if end < 0 else text[at:end]
        if self._box is not None:
            self._box.push(piece)
        elif self._spec is not None:
            self._raw.append(piece)
        if end < 0:
            return len(text)
        self._at = _At.AFTER_VALUE
        self._end_raw(out)  # which may fall silent
        return end

    def _end_raw(self, out: list[FieldEvent]) -> None:
        """The value that was collected is whole: send it, if it is somebody's and is JSON."""
        box, self._box = self._box, None
        spec, raw = self._spec, "".join(self._raw)
        self._raw = []
        before = len(out)
        if box is not None:
            box.close(out)
            if len(out) == before:
                self._at = _At.SILENT
            return
        if spec is None:
            return
        try:
            self._loose |= raw in PYTHON_CONSTANTS
            value = PYTHON_CONSTANTS[raw] if raw in PYTHON_CONSTANTS else json.loads(raw)
            said = str(value) if self._sink is not None else ""
        except (ValueError, RecursionError):
            self._at = _At.SILENT
            return
        if self._sink is None:
            ScalarSink(spec).send(value, out)
        else:
            self._sink.push(said)
            self._sink.release()
            self._sink.close(out)
            self._sink = None

    def _after_value(self, text: str, at: int, out: list[FieldEvent]) -> int:
        return self._expect(",}", (_At.KEY, _At.OVER), text, at)

    def _over(self, text: str, at: int, out: list[FieldEvent]) -> int:
        return len(text)

    def _expect(self, chars: str, then: tuple[_At, ...], text: str, at: int) -> int:
        """Skip white space and go on to the step that the next character, one of ``chars``, stands for."""
        at = _skip(text, at)
        if at == len(text):
            return at
        which = chars.find(text[at])
        if which < 0:
            return self._give_up(text)
        self._at = then[which]
        return at + 1

    def _give_up(self, text: str) -> int:
        self._at = _At.SILENT
        return len(text)

    def _release(self) -> None:
        """The open string has ended at a quote: its last white space is part of it."""
        assert self._sink is not None
        if self._loose and self._sink.held and self._sink.held[-1].endswith("\n"):
            self._sink.held = []  # json_repair's rule
        self._sink.release()

    _STEPS: ClassVar[tuple[Callable[[JsonParser, str, int, list[FieldEvent]], int], ...]] = (
        _prose,
        _first_key,
        _next_key,
        _in_key,
        _colon,
        _begin_value,
        _text,
        _after_text,
        _read_raw,
        _after_value,
        _over,
        _over,
    )


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    assert match is not None
    return match.end()
