"""Incremental parsers: the text of one LM reply in, at any chunking, the events of its fields out."""

from __future__ import annotations

from collections.abc import Sequence

from dspy_live.sansio.fields.base import FieldEvent, FieldSpec, FieldText, FieldValue, Kind, Parser, ReplyFormat
from dspy_live.sansio.fields.chat import ChatParser
from dspy_live.sansio.fields.json import JsonParser
from dspy_live.sansio.fields.xml import XmlParser

__all__ = ["FieldEvent", "FieldSpec", "FieldText", "FieldValue", "Kind", "Parser", "ReplyFormat", "make_parser"]


def make_parser(grammar: ReplyFormat, fields: Sequence[FieldSpec]) -> Parser:
    """Return a parser for one reply in ``grammar``, the format that the adapter of that name asks for.

    Raises ``ValueError`` for a grammar that does not exist.
    """
    if grammar == "chat":
        return ChatParser(fields)
    if grammar in ("json", "baml"):
        return JsonParser(fields)
    if grammar == "xml":
        return XmlParser(fields)
    raise ValueError(f"no parser for the grammar {grammar!r}; there are chat, json, xml and baml")
