"""Stems of words, by the Porter stemmer of SQLite's FTS5: "retries" and "retrying" are one word."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence

from dspy_live.core.errors import ConfigurationError

_COMPOUND = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[_-][A-Za-z0-9]+)+")
_CAMEL = re.compile(r"[A-Za-z]?[a-z0-9]*(?:[A-Z][a-z0-9]+){2,}")
_CONVERSATION = re.compile(r"\bconversation(s|al)?\b", re.IGNORECASE)
"""Its stem is that of "conversion" too; this one is of another word that means the same."""


def stems(texts: Sequence[str]) -> list[list[str]]:
    """Return the stems of each text's words, in their order.

    Raises :class:`ConfigurationError` where Python's SQLite was built without FTS5.
    """
    db = sqlite3.connect(":memory:")
    try:
        db.execute("CREATE VIRTUAL TABLE texts USING fts5(text, tokenize='porter unicode61')")
    except sqlite3.OperationalError as error:
        raise ConfigurationError(f"the guides can't be searched: Python's SQLite has no FTS5 ({error})") from error
    db.execute("CREATE VIRTUAL TABLE words USING fts5vocab(texts, instance)")
    db.executemany("INSERT INTO texts VALUES (?)", ((_CONVERSATION.sub("dialogue", text),) for text in texts))
    found: list[list[str]] = [[] for _ in texts]
    for term, row in db.execute("SELECT term, doc FROM words ORDER BY doc, offset"):
        found[row - 1].append(term)
    db.close()
    return found


def compounds(text: str) -> str:
    """Return what a text's names are written as otherwise: ``max_tokens`` in one word, ``StreamListener`` in two."""
    joined = [re.sub("[_-]", "", name) for name in _COMPOUND.findall(text)]
    parted = [part for name in _CAMEL.findall(text) for part in re.findall("[A-Z][a-z0-9]+|^[a-z]+", name)]
    return " ".join([*joined, *parted]).lower()
