"""The simulated LM's own tokenizer: how its replies are cut into chunks and how its usage is counted.

A token is a short piece of a word with the space before it, a few digits, one or two signs, or a
run of white space. It cuts DSPy's markers into several pieces, as real tokenizers do.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

_PIECE = re.compile(r" ?[^\W\d_]{1,12}| ?\d{1,3}| ?[^\w\s]{1,2}|_{1,32}|\s{1,32}")
_PER_MESSAGE = 4
"""Tokens that a chat template adds around each message."""
_PER_ATTACHMENT = 85
"""Tokens that one image, sound or file counts, whatever its size."""


BIG = 64
"""No token is longer than this; longer texts only come from replies of many megabytes."""


def cost(token: str) -> int:
    """Return the tokens of one part of a reply: 1 for a token, a quarter of its length for a block of a big reply."""
    return 1 if len(token) <= BIG else len(token) // 4


def pieces(text: str) -> list[str]:
    """Cut ``text`` into tokens; joined they are ``text`` again."""
    return _PIECE.findall(text)


@lru_cache(maxsize=4096)
def _count_short(text: str) -> int:
    return len(_PIECE.findall(text))


def count(text: str) -> int:
    """The number of tokens in ``text``."""
    return _count_short(text) if len(text) < 20_000 else sum(1 for _ in _PIECE.finditer(text))


def count_prompt(messages: Sequence[Mapping[str, Any]], tools: Iterable[Mapping[str, Any]] = ()) -> int:
    """Return the prompt tokens of a request's messages and tool descriptions."""
    total = 2
    for message in messages:
        total += _PER_MESSAGE + _count_content(message.get("content"))
        for call in message.get("tool_calls") or ():
            function = call.get("function") or {}
            total += count(f"{function.get('name')}{function.get('arguments')}")
    return total + sum(count(str(tool)) for tool in tools)


def _count_content(content: Any) -> int:
    if isinstance(content, str):
        return count(content)
    if isinstance(content, list):
        return sum(count(text) if (text := part_text(part)) is not None else _PER_ATTACHMENT for part in content)
    return 0


def part_text(part: Any) -> str | None:
    """The text of one part of a message's content, ``None`` for an image, a sound or a file."""
    if isinstance(part, str):
        return part
    if isinstance(part, Mapping) and isinstance(part.get("text"), str):
        return str(part["text"])
    return None
