"""The part of a section that answers a question: whole paragraphs, examples and rows, never cut in the middle."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

LONG = 45
"""A section that takes no more lines of a terminal is shown whole."""

SHOWN = 30
"""Of a longer one, about so many lines are shown."""

TABLE = 14
"""The lines of a table's rows that are shown of a longer one."""

WIDTH = 80
"""The characters that a line of a terminal holds, roughly: columns of a table wrap earlier than text."""

_FENCE = re.compile(r"^```")
_POINTS_BACK = re.compile(r"(It|Its|They|Their|This|These|That|Those|Then|So|Also|Both|Such|Here|You use it)\b")
_LOCAL_LINK = re.compile(r"\[([^\]]+)\]\((?!https?:)[^)]*\)")

Relevance = Callable[[Sequence[str]], list[float]]
"""Returns how much each of some texts has to do with a question."""


def excerpt(text: str, relevance: Relevance) -> str:
    """Return the blocks of a section that have most to do with a question, in their order; ``…`` stands for others.

    Args:
        text: the section, in Markdown.
        relevance: tells how much each text has to do with the question.
    """
    text = without_local_links(text)
    if _height(text) <= LONG:
        return text
    blocks = _blocks(text)
    shown = [_rows(block, relevance) for block in blocks]
    worth = relevance(blocks)
    chosen = set() if "```" in blocks[0] else {0}
    for best in sorted(range(len(blocks)), key=lambda at: -worth[at]):
        wanted = set(range(_beginning(blocks, best), best + 1))
        if not chosen or (worth[best] and _lines(shown, chosen | wanted) <= SHOWN):
            chosen |= wanted
    parts: list[str] = []
    for at in sorted(chosen):
        if at - 1 not in chosen and at:
            parts.append("…")
        parts.append(shown[at])
    return "\n\n".join(parts if max(chosen) == len(blocks) - 1 else [*parts, "…"])


def without_local_links(text: str) -> str:
    """Return a text without links to other pages, which lead nowhere in a terminal; their words stay."""
    return _LOCAL_LINK.sub(r"\1", text)


def _blocks(text: str) -> list[str]:
    """Return the paragraphs, tables, lists and examples of a text; what a colon announces is of one block with it."""
    blocks: list[list[str]] = [[]]
    fenced = False
    for line in text.splitlines():
        begins = bool(_FENCE.match(line))
        if begins and not fenced and blocks[-1]:
            blocks.append([])
        if line.strip() or fenced:
            blocks[-1].append(line)
        elif blocks[-1]:
            blocks.append([])
        if begins:
            fenced = not fenced
            if not fenced:
                blocks.append([])
    found: list[str] = []
    for block in ("\n".join(lines) for lines in blocks if lines):
        if found and found[-1].endswith(":"):
            found[-1] += f"\n\n{block}"
        else:
            found.append(block)
    return found


def _beginning(blocks: Sequence[str], at: int) -> int:
    """Return where a thought begins that ends with a block: one that begins with "It" needs the block before it."""
    while at and _POINTS_BACK.match(blocks[at]):
        at -= 1
    return at


def _rows(block: str, relevance: Relevance) -> str:
    """Return a long table with its head and its most relevant rows only."""
    lead, _, table = block.rpartition("\n\n")
    if not table.startswith("|"):
        return block
    head, rows = table.splitlines()[:2], table.splitlines()[2:]
    if sum(map(_height, rows)) <= TABLE:
        return block
    worth = relevance(rows)
    kept: set[int] = set()
    for best in sorted(range(len(rows)), key=lambda at: -worth[at]):
        if not kept or sum(_height(rows[at]) for at in {*kept, best}) <= TABLE:
            kept.add(best)
    shown = [*head, *(rows[at] for at in sorted(kept)), f"| …{' |' * (head[0].count('|') - 1)}"]
    return "\n\n".join(part for part in (lead, "\n".join(shown)) if part)


def _lines(blocks: Sequence[str], chosen: set[int]) -> int:
    return sum(_height(blocks[at]) + 1 for at in chosen)


def _height(text: str) -> int:
    return sum(1 + len(line) // WIDTH for line in text.splitlines())
