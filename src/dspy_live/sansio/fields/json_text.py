"""The inside of a JSON string, decoded as it arrives: what is surely said, and what could change."""

from __future__ import annotations

import re
from json.decoder import scanstring  # type: ignore[attr-defined]  # in no stub, in every Python since 2.6

_HEX4 = "[0-9a-fA-F]{4}"
_STRICT = re.compile(rf'(?:[^"\\\x00-\x1f]+|\\(?:["\\/bfnrt]|u{_HEX4}))*+')
_CUT_ESCAPE = re.compile(r"\\(?:u[0-9a-fA-F]{0,3})?")
# What json_repair reads in a string that is not quite JSON. A comma before a word and a colon is the
# beginning of the next member to it, so that such a comma is no text.
_LOOSE = re.compile(
    rf"""(?: [^"\\,]+
      | (?:\\\\)+ (?=[^\\])
      | \\ (?: u{_HEX4} | x[0-9a-fA-F]{{2}}
             | u(?=[0-9a-fA-F]{{0,3}}[^0-9a-fA-F]) | x(?=[0-9a-fA-F]?[^0-9a-fA-F]) | [^\\ux] )
      | , (?= \s* (?: [^\s\w] | \w[\w-]* (?: [^\s\w:-] | \s+ [^\s:] ) ) )
    )*+""",
    re.VERBOSE,
)
_LOOSE_CUT = re.compile(r"\\+ | \\ (?: u[0-9a-fA-F]{0,3} | x[0-9a-fA-F]? ) | ,\s*(?:\w[\w-]*\s*)?", re.VERBOSE)
_LOOSE_ESCAPE = re.compile(rf"(?:\\\\)+(?!\\)|\\(?:u{_HEX4}|x[0-9a-fA-F]{{2}}|[tnrb\"'“”„])")
_ESCAPED = {"t": "\t", "n": "\n", "r": "\r", "b": "\b"}


def strict(data: str, at: int) -> tuple[str, int, str, str]:
    """Decode JSON string content from ``at`` on, as far as it is sure.

    Returns the text, where it stopped, the cut escape that must be read again with what comes next
    (then it stopped at the end of ``data``), and the last character that was read. Otherwise it
    stopped at a quote, the end of the string; at the end of ``data``; or at what no JSON string has.
    """
    match = _STRICT.match(data, at)
    assert match is not None  # it matches the empty string too
    raw, end = match[0], match.end()
    text = scanstring(raw + '"', 0)[0] if "\\" in raw else raw
    cut = ""
    if end < len(data) and data[end] == "\\" and _CUT_ESCAPE.fullmatch(data, end):
        cut = data[end:]
        end = len(data)
    if text and end == len(data) and "\ud800" <= text[-1] <= "\udbff" and raw[-1] < "\x80":
        # Half a character: its other half may follow.
        return text[:-1], end, raw[-6:] + cut, raw[-1]
    return text, end, cut, raw[-1:]


def whole(data: str) -> str | None:
    """Decode JSON string content that can be decoded without what comes next; ``None`` for any other."""
    if data[-1:] == "\\" or _STRICT.fullmatch(data) is None:
        return None
    if "\\" not in data:
        return data
    text: str = scanstring(data + '"', 0)[0]
    return None if "\ud800" <= text[-1] <= "\udbff" else text


def loose(data: str, at: int) -> tuple[str, int, str]:
    """Decode by the rules of json_repair for a string with raw line ends or bad escapes.

    Returns the text, where it stopped and what must be read again, as :func:`strict` does.
    """
    match = _LOOSE.match(data, at)
    assert match is not None
    raw, end = match[0], match.end()
    text = _LOOSE_ESCAPE.sub(_unescape, raw) if "\\" in raw else raw
    if end < len(data) and data[end] != '"' and _LOOSE_CUT.fullmatch(data, end):
        return text, len(data), data[end:]
    return text, end, ""


def cut_short(pending: str) -> str:
    """Return what json_repair makes of a reply that ends within an escape."""
    return _LOOSE_ESCAPE.sub(_unescape, pending)


def _unescape(match: re.Match[str]) -> str:
    found = match[0]
    kind = found[1]
    if kind == "\\":
        return found[: len(found) // 2]
    if kind in "ux":
        return chr(int(found[2:], 16))
    return _ESCAPED.get(kind, kind)
