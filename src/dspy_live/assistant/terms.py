"""Search terms of a text: its words in lower case, those left out that distinguish no page from another."""

from __future__ import annotations

import re

_WORD = re.compile(r"\w+")

FILLER = frozenset(
    """
    example examples get gets getting a an and any are as at be been but by can could do does did for from give get had
    has have how i if in into is it its just like make may me mean means my need no not of on one only
    or our please should show so some than that the their them then there they this to too use used
    using want was we what when where which who why will with would you your about am here know let s t
    dspy live program module work works happen happens problem good now own way over through ten second
    tell thing things person people after always another around because before behind between both
    down during each else ever every few further having he her him his itself last least less lot maybe
    might mine more much must myself never next nobody nothing off often once other others out per
    possible rather really seem since somebody someone something soon still such sure themselves these
    those though thus together under until up upon us various very well were whatever whether while
    whole whose within without yes yet yourself see number issue bug feature request question support add adding
    allow improve improved specify doesn don didn isn won cannot wrong
    """.split()
)
"""Words that don't distinguish one page from another."""


def terms(text: str) -> list[str]:
    """Return the words of a text in the order of their first use, each once.

    Filler is left out, and so are numbers but for short ones such as 429.
    """
    words = dict.fromkeys(word.lower() for word in _WORD.findall(text))
    return [word for word in words if word not in FILLER and not (word.isdigit() and len(word) > 3)]
