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

_SECTION = re.compile(rf"\n([^\S\n]*){field_header_pattern.pattern}")
"""A header that begins a line, but for its indent. Texts are given a line feed at their beginning for it."""
_TEXT = {"type": "string"}


def read_chat(readers: Mapping[str, Reader], text: str) -> dict[str, Any] | None:
    """Read a reply in ``ChatAdapter``'s format."""
    read: dict[str, Any] = {}
    parts = _SECTION.split("\n".join(["", *text.splitlines()]))
    try:
        for indent, name, section in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
            if name in readers and name not in read:
                if indent:  # DSPy finds a header in the line without its indent, and cuts it from the line with it
                    section = f"{indent}[[ ## {name} ## ]]"[-len(indent) :] + section
                read[name] = readers[name](_value(section))
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
