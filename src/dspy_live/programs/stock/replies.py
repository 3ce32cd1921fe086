"""The readers of replies, one for each of DSPy's adapters, from a signature's plan; equal to DSPy's own.

Each returns the output fields in their order, or ``None`` where DSPy must decide: a default, an optional field, an
error, a text to be repaired.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

import dspy

from dspy_live.programs.internals import field_header_pattern
from dspy_live.programs.stock.values import Reader

_HEADER = re.compile(field_header_pattern.pattern)
_TEXT = {"type": "string"}


def read_chat(readers: Mapping[str, Reader], text: str) -> dict[str, Any] | None:
    """Read a reply in ``ChatAdapter``'s format."""
    read: dict[str, Any] = {}
    lines = "\n".join(text.splitlines())
    headers = _headers(lines)
    ends = [begin for begin, _ in headers[1:]] + [len(lines)]
    try:
        for (begin, header), end in zip(headers, ends, strict=False):  # one end too many where there is no header
            name = header[1]
            if name in readers and name not in read:
                # DSPy finds a header in the line without its indent, and cuts it from the line with it.
                read[name] = readers[name](_value(lines[header.end() - (header.start() - begin) : end]))
    except Exception:  # DSPy will meet it too, and say what is wrong
        return None
    return _in_order(readers, read)


def read_json(readers: Mapping[str, Reader], text: str) -> dict[str, Any] | None:
    """Read a reply in ``JSONAdapter``'s format, where it is an object of JSON and nothing else."""
    try:
        found = json.loads(text)
        if type(found) is not dict:
            return None
        read = {name: readers[name](value) for name, value in found.items() if name in readers}
    except Exception:
        return None
    return _in_order(readers, read)


def read_xml(readers: Mapping[str, Reader], text: str) -> dict[str, Any] | None:
    """Read a reply in ``XMLAdapter``'s format, where all output fields are text."""
    if any(reader is not str for reader in readers.values()):
        return None
    adapter: Any = dspy.XMLAdapter
    try:
        root = ElementTree.fromstring(f"<dspy_root>{text}</dspy_root>")
        found = adapter._group_children(root)
        read = {name: str(adapter._elements_to_value(found[name], _TEXT, {})) for name in readers if name in found}
    except Exception:
        return None
    return _in_order(readers, read)


def _in_order(readers: Mapping[str, Reader], read: dict[str, Any]) -> dict[str, Any] | None:
    if len(read) < len(readers):
        return None
    return read if list(read) == list(readers) else {name: read[name] for name in readers}


def _value(section: str) -> str:
    """Return what follows a header, as DSPy puts its lines together."""
    first, _, more = section.partition("\n")
    first = first.strip()
    return f"{first}\n{more}".strip() if first else more.strip()


def _headers(lines: str) -> list[tuple[int, re.Match[str]]]:
    """Return the headers that begin a line, but for its indent, each with where the line begins.

    A pattern for the beginnings of lines is tried at each sign of the text, one for the header itself at few.
    """
    found = []
    end_of_line = -1
    for header in _HEADER.finditer(lines):
        start = header.start()
        if start < end_of_line:
            continue  # another header comes before it in its line
        begin = lines.rfind("\n", end_of_line + 1, start) + 1 or end_of_line + 1
        end_of_line = lines.find("\n", start)
        if end_of_line < 0:
            end_of_line = len(lines)
        if begin == start or lines[begin:start].isspace():
            found.append((begin, header))
    return found
