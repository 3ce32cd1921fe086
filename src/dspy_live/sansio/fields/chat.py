"""ChatAdapter's format: a line ``[[ ## name ## ]]`` opens a field, the next such line ends it.

As DSPy reads it: lines are those of ``str.splitlines`` and come out joined by a plain newline; a
header may be indented; what follows it on its line is content; a value is stripped; the first field
of a name wins; a header of any other name ends a field; what comes before the first is nobody's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import IntEnum

from dspy_live.sansio.fields.base import FieldEvent, FieldSpec, FieldText, PlainText
from dspy_live.sansio.fields.sinks import Sink, TextSink, ended, sink_for, texts

_OPEN = "[[ ## "
_CLOSE = " ## ]]"
_HEADER = re.compile(r"\[\[ ## (\w+) ## \]\]")
_WORD = re.compile(r"\w*")
# Every line end of str.splitlines that is one character.
_BREAKS = frozenset("\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029")


def _only_line_feeds(text: str) -> bool:
    """True where no other of Python's line ends is in a text without carriage returns."""
    return len(f"{text}.".splitlines()) == text.count("\n") + 1


class _Line(IntEnum):
    """Where in its line the parser stands. The three in the middle are inside a possible header."""

    START = 0
    OPEN = 1
    NAME = 2
    CLOSE = 3
    CONTENT = 4


class ChatParser:
    """The parser of ChatAdapter's format. It holds back white space and a line's possible header."""

    __slots__ = (
        "_after_cr",
        "_fast",
        "_indent",
        "_line",
        "_mark",
        "_matched",
        "_on_header",
        "_quick",
        "_seen",
        "_sink",
        "_specs",
    )

    def __init__(self, fields: Sequence[FieldSpec]) -> None:
        self._specs = {spec.name: spec for spec in fields}
        self._seen: dict[str, Sink] = {}
        self._sink: Sink | None = None
        # The open text field while nothing but white space and a line end needs a second look.
        self._fast: TextSink | None = None
        # The open text field while only a bracket can begin a header.
        self._quick: TextSink | None = None
        self._line = _Line.START
        self._indent = 0
        self._on_header = False
        self._after_cr = False
        # The possible header so far, and how much of the part that is being matched is there.
        self._mark: list[str] = []
        self._matched = 0

    def feed(self, text: str) -> list[FieldEvent]:
        """See :class:`~dspy_live.sansio.fields.base.Parser`."""
        sink = self._fast
        # No line end is printable, and of all white space only the blank is.
        if sink is not None and text.isprintable():
            if text[-1:] > " ":
                if sink.held:
                    text = "".join(sink.held) + text
                    sink.held = []
                sink.write(text)
                return [FieldText(sink.field, text)]
            if body := text.rstrip():
                new = "".join(sink.held) + body
                sink.held = [text[len(body) :]]
                sink.write(new)
                return [FieldText(sink.field, new)]
        sink = self._quick
        if sink is not None and "[" not in text and "\r" not in text and _only_line_feeds(text):
            return self._feed_content(sink, text)
        return self._feed(text)

    def finish(self) -> list[FieldEvent]:
        """See :class:`~dspy_live.sansio.fields.base.Parser`."""
        out: list[FieldEvent] = []
        self._no_header("")
        if self._sink is not None:
            self._sink.close(out)
        self._sink = self._fast = self._quick = None
        return out

    def plain(self) -> PlainText | None:
        """See :class:`~dspy_live.sansio.fields.base.Parser`."""
        sink = self._fast
        if sink is None or sink is not self._quick or sink.held:
            return None
        return PlainText(sink.field, sink.write, lines=True, escapes=True)

    def texts(self) -> dict[str, str]:
        """See :class:`~dspy_live.sansio.fields.base.Parser`."""
        return texts(self._seen.values())

    def ended(self) -> frozenset[str]:
        """See :class:`~dspy_live.sansio.fields.base.Parser`."""
        return ended(self._seen.values())

    def _feed(self, text: str) -> list[FieldEvent]:
        if self._after_cr and text:
            self._after_cr = False
            if text[0] == "\n":
                text = text[1:]
        out: list[FieldEvent] = []
        if not text:
            return out
        for line in text.splitlines(keepends=True):
            if line[-1] not in _BREAKS:
                self._read(line, out)
            elif "[" not in line and line[-1] == "\n" and self._line is _Line.START and not self._on_header:
                self._indent = 0  # a whole line of content
                self._push(line if line[-2:] != "\r\n" else f"{line[:-2]}\n")
            else:
                body = line[:-2] if line[-2:] == "\r\n" else line[:-1]
                if body:
                    self._read(body, out)
                self._end_line()
        self._after_cr = text[-1] == "\r"
        sink = self._sink
        self._fast = self._quick = None
        if sink is not None:
            sink.flush(out)
            if isinstance(sink, TextSink) and sink.started:
                if self._line is _Line.CONTENT:
                    self._fast = sink
                if not (self._mark or self._on_header or self._after_cr):
                    self._quick = sink
        return out

    def _feed_content(self, sink: TextSink, text: str) -> list[FieldEvent]:
        """Take lines of content, with line feeds at their ends and no header among them."""
        last = text[text.rfind("\n") + 1 :]
        if last and not last.isspace():
            self._line, self._fast = _Line.CONTENT, sink
        elif len(last) != len(text):
            self._line, self._fast, self._indent = _Line.START, None, len(last)
        elif self._line is _Line.START:
            self._indent += len(last)
        body = text.rstrip()
        if not body:
            sink.held.append(text)
            return []
        new = "".join(sink.held) + body
        sink.held = [text[len(body) :]]
        sink.write(new)
        return [FieldText(sink.field, new)]

    def _read(self, text: str, out: list[FieldEvent]) -> None:
        """Take a part of a line, without its end."""
        if self._line is _Line.CONTENT:
            self._push(text)
            return
        if self._line is _Line.START:
            body = text.lstrip()
            if len(body) != len(text):
                self._indent += len(text) - len(body)
                self._push(text[: len(text) - len(body)])
            if not body:
                return
            if body[0] != "[":
                self._line = _Line.CONTENT
                self._push(body)
                return
            header = _HEADER.match(body)
            if header is not None:
                self._line = _Line.CONTENT
                self._open(header[1], header[0], body[header.end() :], out)
                return
            self._line = _Line.OPEN
            text = body
        self._match(text, out)

    def _match(self, text: str, out: list[FieldEvent]) -> None:
        """Match what could be a header, from where the part before this one has left off."""
        at = 0
        if self._line is _Line.OPEN:
            at = self._literal(_OPEN, text, at)
        if self._line is _Line.NAME:
            end = _WORD.match(text, at).end()  # type: ignore[union-attr]  # it matches the empty string too
            self._matched += end - at
            at = end
            if at < len(text) and self._matched:
                self._line, self._matched = _Line.CLOSE, 0
        if self._line is _Line.CLOSE:
            at = self._literal(_CLOSE, text, at)
        if self._line is _Line.CONTENT:
            header = "".join(self._mark) + text[:at]
            self._mark, self._matched = [], 0
            self._open(header[len(_OPEN) : -len(_CLOSE)], header, text[at:], out)
        elif at < len(text):
            self._no_header(text)
        else:
            self._mark.append(text)

    def _literal(self, literal: str, text: str, at: int) -> int:
        """Match ``literal`` from where it was left; return how far ``text`` is used up."""
        part = text[at : at + len(literal) - self._matched]
        if not literal.startswith(part, self._matched):
            return at
        self._matched += len(part)
        if self._matched == len(literal):
            self._line = _Line(self._line + 1)
            self._matched = 0
        return at + len(part)

    def _open(self, name: str, header: str, rest: str, out: list[FieldEvent]) -> None:
        if self._sink is not None:
            self._sink.close(out)
        spec = self._specs.get(name)
        self._sink = None
        if spec is not None and name not in self._seen:
            self._sink = self._seen[name] = sink_for(spec)
        self._on_header = True
        if self._indent:
            # DSPy measures the header on the stripped line and cuts it off the unstripped one, so
            # that as many characters of it as the line is indented are content.
            self._push(header[-self._indent :])
        if rest:
            self._push(rest)

    def _no_header(self, text: str) -> None:
        """The line is no header after all: it is content, up to and with ``text``."""
        content = "".join(self._mark) + text
        self._mark, self._matched = [], 0
        self._line = _Line.CONTENT
        if content:
            self._push(content)

    def _end_line(self) -> None:
        if self._mark:
            self._no_header("")
        if self._on_header:
            # What stands on the header's own line is stripped by itself.
            self._on_header = False
            if isinstance(self._sink, TextSink):
                self._sink.held = []
        self._push("\n")
        self._line = _Line.START
        self._indent = 0

    def _push(self, text: str) -> None:
        if self._sink is not None:
            self._sink.push(text)
