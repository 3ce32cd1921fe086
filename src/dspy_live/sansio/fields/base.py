"""What every field parser takes and gives: the fields it looks for, and the events it makes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

import msgspec

Kind: TypeAlias = Literal["text", "scalar", "container"]
ReplyFormat: TypeAlias = Literal["chat", "json", "xml", "baml"]


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """One output field to look for.

    Args:
        name: its name in the signature.
        kind: ``"text"`` for a ``str`` field, which streams; ``"scalar"`` for a value that is only
            worth something when it is whole (a number, a boolean, an enum); ``"container"`` for a
            list, a dict or a model, which grows.
        convert: makes a scalar's value of what the reply has: the stripped text in the chat and XML
            formats, the decoded JSON value in JSON. A ``ValueError`` means that nothing is sent.
            By default text that is JSON is decoded and any other text is the value.
    """

    name: str
    kind: Kind = "text"
    convert: Callable[[Any], Any] | None = None


class FieldText(msgspec.Struct, frozen=True, gc=False):
    """A piece of a text field's value. ``last`` marks its end; the text may be empty then."""

    field: str
    text: str
    last: bool = False


class FieldValue(msgspec.Struct, frozen=True):
    """A typed field's value so far, in place of any earlier one; ``final`` when it is complete."""

    field: str
    value: Any
    final: bool = False


FieldEvent: TypeAlias = FieldText | FieldValue


@dataclass(frozen=True, slots=True)
class PlainText:
    """Where a parser stands while further text is an open field's as it is, for whoever takes such text past it.

    Such text has no character of ``stop``, no control character beside the ones that ``escapes`` allows, and no white
    space beyond ASCII's. White space at its end is not passed by but fed to the parser, with or before what follows.

    Args:
        field: the field that is open.
        write: takes the text that has passed.
        stop: ASCII characters that the parser must see.
        lines: it must see a bracket that is the first of its line.
        escapes: it need not see line feeds, tabs, quotes and backslashes.
    """

    field: str
    write: Callable[[str], object]
    stop: bytes = b""
    lines: bool = False
    escapes: bool = False


class Parser(Protocol):
    """Reads one LM reply. It is made for that reply alone, and holds no more than it needs.

    Whatever the chunking, a text field's events join to the same text. A parser never raises over
    what the reply says: where the reply leaves its format, the parser falls silent. A field that was
    open then gets no last event, and what was given of it is at best the beginning of what DSPy's
    own parser reads there; how much it is may depend on the chunking.
    """

    def feed(self, text: str) -> list[FieldEvent]:
        """Take the next part of the reply, of any length; return what is new, in order."""
        ...

    def finish(self) -> list[FieldEvent]:
        """The reply is over: return what had been held back. Feeding after this is a mistake."""
        ...

    def plain(self) -> PlainText | None:
        """Return what further text may pass the parser by; ``None`` where none may for now."""
        ...

    def texts(self) -> dict[str, str]:
        """Return what was given so far of each text field that was found. Costs a copy."""
        ...

    def ended(self) -> frozenset[str]:
        """Return the text fields whose last event was given.

        A field that is in :meth:`texts` and not here was left open: where its value begins with what
        was given, the rest can simply follow.
        """
        ...
