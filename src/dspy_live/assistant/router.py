"""Plain words: is it a request for a conversion, a command, or a question?"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from dspy_live.assistant.terms import terms

_ASKING = re.compile(
    r"^\s*(how|what|when|why|which|where|who|can|could i|does|do i|do you|is|are|should"
    r"|tell|explain|show|describe)\b",
    re.IGNORECASE,
)
_MAKING = re.compile(
    r"\b(create|make|build|add|convert|turn|write|generate|give|rewrite|wrap|transform|enable|put|change|get"
    r"|(want|need|would like|'d like) (my|this|the|our|it)\b.*\bto)\b",
    re.IGNORECASE,
)
_MINE = re.compile(
    r"\b(my|this|the|our)\s+(\w+\s+)?(program|module|file|code|script|app|project|agent|it)\b|\bit\b", re.IGNORECASE
)

_KINDS: tuple[tuple[str, str], ...] = (
    ("fastapi", r"\bfast ?api\b"),
    ("tests", r"\b(unit )?tests?\b|\bpytest\b"),
    ("streaming", r"\bstream(ing|s|ed)?\b|\btoken by token\b"),
    ("async", r"\basync(hronous|hronously|io)?\b|\bawaitable\b|\bnon-?blocking\b"),
    ("usage", r"\b(usage|tokens?|costs?)\b.*\b(track(ing)?|count(ing|s)?|meter(ing)?|report)?|\btrack(ing)?\b"),
    ("caching", r"\bcach(e|es|ed|ing)\b"),
    ("logging", r"\blog(s|ging)?\b"),
    ("serving", r"\b(serve|serving|server|http|endpoint|deploy)\b"),
)


@dataclass(frozen=True, slots=True)
class Intent:
    """The request that a line in plain words makes.

    Args:
        what: ``"convert"``, ``"example"`` or ``"question"``.
        kind: of a conversion, its kind.
        mine: the line speaks of the user's own program.
    """

    what: Literal["convert", "example", "question"]
    kind: str = ""
    mine: bool = False


def route(line: str) -> Intent:
    """Return the request of a line in plain words.

    A request names something to make ("Create an async version of my program"); a question asks
    ("How do I use async?"); "show me … examples" wants a page's example.
    """
    kind = next((name for name, pattern in _KINDS if re.search(pattern, line, re.IGNORECASE)), "")
    mine = bool(_MINE.search(line))
    asking = bool(_ASKING.search(line)) or line.rstrip().endswith("?")
    polite = re.match(r"^\s*(can|could|would) you\b", line, re.IGNORECASE)
    if kind and _MAKING.search(line) and (not asking or (polite and mine)):
        return Intent("convert", kind, mine)
    if re.search(r"\bexamples?\b", line, re.IGNORECASE):
        return Intent("example")
    return Intent("question")


def is_words(line: str) -> bool:
    """True for a line with at least one search term."""
    return bool(terms(line))
