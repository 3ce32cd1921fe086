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

_HEADERS = re.compile(rf"^([^\S\n]*){field_header_pattern.pattern}", re.MULTILINE)
"""The headers at the beginning of lines that only ``\\n`` ends, with their indents."""
_TEXT = {"type": "string"}


def read_chat(readers: Mapping[str, Reader], text: str) -> dict[str, Any] | None:
    """Read a reply in ``ChatAdapter``'s format."""
    read: dict[str, Any] = {}
    try:
        for name, value in _sections(text):
            if name in readers and name not in read:
                read[name] = readers[name](value)
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


def _sections(text: str) -> list[tuple[str, str]]:
    """Return each header with the text that follows it."""
    lines = "\n".join(text.splitlines())
    headers = [*_HEADERS.finditer(lines)]
    ends = [header.start() for header in headers[1:]] + [len(lines)]
    found = []
    for header, end in zip(headers, ends, strict=False):  # one end too many where there is no header
        # DSPy finds a header in the line without its indent, and cuts it from the line with it.
        first, _, more = lines[header.end() - len(header[1]) : end].partition("\n")
        first = first.strip()
        found.append((header[2], f"{first}\n{more}".strip() if first else more.strip()))
    return found
