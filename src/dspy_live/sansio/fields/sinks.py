"""Where a grammar puts a field's text: each sink turns it into that field's events."""

from __future__ import annotations

import json
from collections.abc import Iterable
from io import StringIO
from typing import Any

import jiter

from dspy_live.sansio.fields.base import FieldEvent, FieldSpec, FieldText, FieldValue

_NONE = object()
# How Python code, which models like to write where JSON is asked for, spells JSON's constants.
PYTHON_CONSTANTS: dict[str, Any] = {"True": True, "False": False, "None": None}


class TextSink:
    """A text field. White space at its end is held back: it is only part of it if more follows.

    ``strip`` says that the grammar also drops white space at the beginning.
    """

    __slots__ = ("_all", "_fresh", "closed", "field", "held", "started", "strip", "write")

    def __init__(self, field: str, *, strip: bool = True) -> None:
        self.field = field
        self.closed = False
        self.strip = strip
        self.started = not strip
        # A list, as a long run of white space would cost the square of its length as a string.
        self.held: list[str] = []
        self._fresh: list[str] = []
        # A buffer and not a list of pieces: five characters a token cost 1 byte each, not 11.
        self._all = StringIO()
        self.write = self._all.write

    def push(self, text: str) -> None:
        """Take text that surely belongs to the field, white space at the field's end aside."""
        if not self.started:
            text = text.lstrip()
            if not text:
                return
            self.started = True
        body = text.rstrip()
        if body:
            if self.held:
                self._fresh += self.held
                self.held = []
            self._fresh.append(body)
        if len(body) != len(text):
            self.held.append(text[len(body) :])

    def release(self) -> None:
        """Let go of the white space held back: it is part of the field."""
        self._fresh += self.held
        self.held = []

    def put_first(self, text: str) -> bool:
        """Put ``text`` before all the rest, as it is; false if something was given out before."""
        if text and self._all.tell():
            return False
        self.started = True
        if text:
            self._fresh.insert(0, text)
        return True

    def flush(self, out: list[FieldEvent]) -> None:
        """Append what is new since the last flush."""
        if self._fresh:
            out.append(FieldText(self.field, self._take()))

    def close(self, out: list[FieldEvent]) -> None:
        """Append the field's last event; white space still held back is dropped."""
        self.closed = True
        out.append(FieldText(self.field, self._take(), True))

    def _take(self) -> str:
        text = "".join(self._fresh)
        self._fresh.clear()
        self.write(text)
        return text

    def text(self) -> str:
        """Return all that was given out."""
        return self._all.getvalue()


class ScalarSink:
    """A field whose value is sent once, when its text is complete."""

    __slots__ = ("_pieces", "_spec")

    def __init__(self, spec: FieldSpec) -> None:
        self._spec = spec
        self._pieces: list[str] = []

    def push(self, text: str) -> None:
        """Take a piece of the value's raw text."""
        self._pieces.append(text)

    def flush(self, out: list[FieldEvent]) -> None:
        """Nothing: half a number says nothing."""

    def close(self, out: list[FieldEvent]) -> None:
        """Append the value, unless the text has none."""
        raw = "".join(self._pieces).strip()
        self.send(raw if self._spec.convert else loosely(raw), out)

    def send(self, value: Any, out: list[FieldEvent]) -> None:
        """Append ``value`` as the field's, through the field's own conversion."""
        if self._spec.convert is not None:
            try:
                value = self._spec.convert(value)
            except ValueError:
                return
        out.append(FieldValue(self._spec.name, value, True))


class ContainerSink:
    """A field of JSON text whose value is sent as it grows, and at last when it is complete.

    ``read`` makes a value of the field's text so far; it may raise ``ValueError`` while there is none.
    """

    __slots__ = ("_field", "_next", "_pieces", "_sent", "_size")

    def __init__(self, field: str) -> None:
        self._field = field
        self._pieces: list[str] = []
        self._size = 0
        self._next = 1
        self._sent: Any = _NONE

    def push(self, text: str) -> None:
        """Take a piece of the value's raw text."""
        self._pieces.append(text)
        self._size += len(text)

    def flush(self, out: list[FieldEvent]) -> None:
        """Append the value so far, if its text has grown by a tenth: the sum of all is linear."""
        if self._size < self._next:
            return
        self._next = grown(self._size)
        try:
            value = partial(self._raw())
        except ValueError:
            return
        if value != self._sent:
            self._sent = value
            out.append(FieldValue(self._field, value))

    def close(self, out: list[FieldEvent]) -> None:
        """Append the complete value, unless the text is no JSON."""
        try:
            value = complete(self._raw())
        except ValueError:
            return
        out.append(FieldValue(self._field, value, True))

    def _raw(self) -> str:
        raw = "".join(self._pieces)
        self._pieces = [raw]
        return raw


Sink = TextSink | ScalarSink | ContainerSink


def sink_for(spec: FieldSpec) -> Sink:
    """Return a sink for text that is stripped on both sides, as in the chat format."""
    if spec.kind == "text":
        return TextSink(spec.name)
    if spec.kind == "scalar":
        return ScalarSink(spec)
    return ContainerSink(spec.name)


def grown(size: int) -> int:
    """Return how long text of ``size`` characters must become before it is read again."""
    return size + max(1, size // 10)


def loosely(raw: str) -> Any:
    """Return the value of stripped text: JSON or a Python constant decoded, anything else itself."""
    if raw in PYTHON_CONSTANTS:
        return PYTHON_CONSTANTS[raw]
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return raw


def partial(raw: str) -> Any:
    """Return the value of JSON that may be cut anywhere; its last string may be cut too.

    Text before the first bracket is skipped. Raises ``ValueError`` when nothing is there to read.
    """
    data = raw[_start(raw) :].encode("utf-8", "replace")
    return jiter.from_json(data, partial_mode="trailing-strings")


def complete(raw: str) -> Any:
    """Return the first JSON container in ``raw``, whatever stands around it, or raise ``ValueError``."""
    try:
        return _DECODER.raw_decode(raw, _start(raw))[0]
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _start(raw: str) -> int:
    starts = [at for at in (raw.find("["), raw.find("{")) if at >= 0]
    if not starts:
        raise ValueError("no container yet")
    return min(starts)


_DECODER = json.JSONDecoder()


def texts(sinks: Iterable[Sink]) -> dict[str, str]:
    """Return what each text sink has given out, by field."""
    return {sink.field: sink.text() for sink in sinks if isinstance(sink, TextSink)}


def ended(sinks: Iterable[Sink]) -> frozenset[str]:
    """Return the names of the text sinks that have given their last."""
    return frozenset(sink.field for sink in sinks if isinstance(sink, TextSink) and sink.closed)
