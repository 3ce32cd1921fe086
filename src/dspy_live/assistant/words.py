"""Words to terms: lower case, no filler, stems, and one term for words that mean the same here."""

from __future__ import annotations

import re

_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|\d+")

FILLER = frozenset(
    """
    example examples get gets getting a an and any are as at be been but by can could do does did for from give get had
    has have how i if in into is it its just like make may me mean means my need no not of on one only
    or our please should show so some than that the their them then there they this to too use used
    using want was we what when where which who why will with would you your about am here know let s t
    dspy live program module work works happen happens problem good now own way over through ten second
    tell user thing things person people after always another around because before behind between both
    down during each else ever every few further having he her him his itself last least less lot maybe
    might mine more much must myself never next nobody nothing off often once other others out per
    possible rather really seem since somebody someone something soon still such sure themselves these
    those though thus together under until up upon us various very well were whatever whether while
    whole whose within without yes yet yourself
    """.split()
)
"""Words that say nothing about the subject, here."""

_ENDINGS: tuple[tuple[str, str], ...] = (
    *(("ational", "ate"), ("izations", ""), ("ization", ""), ("nesses", ""), ("ingly", ""), ("edly", "")),
    *(("ations", ""), ("ation", ""), ("ments", ""), ("ment", ""), ("ities", ""), ("ity", ""), ("ings", "")),
    *(("ing", ""), ("ions", ""), ("ion", ""), ("ies", "y"), ("ers", ""), ("er", ""), ("ed", ""), ("es", "")),
    *(("ly", ""), ("al", ""), ("s", ""), ("e", "")),
)
"""Endings and what stands in their place; the first that fits is taken, where at least three letters stay."""

_JOINED = {
    "time out": "timeout",
    "timed out": "timeout",
    "times out": "timeout",
    "fall back": "fallback",
    "falls back": "fallback",
    "web socket": "websocket",
    "back pressure": "backpressure",
    "roll out": "rollout",
    "fast api": "fastapi",
    "back up": "backup",
    "user name": "username",
    "check point": "checkpoint",
    "non blocking": "blocking",
    "single flight": "single_flight",
}
"""Words that are written apart and together."""

_APART = re.compile(r"\b(" + "|".join(name.replace(" ", "[ -]") for name in _JOINED) + r")\b", re.IGNORECASE)

_SAME = (
    "async asynchronous asynchronously await awaitable coroutine asyncify acall aforward asyncio",
    "parallel concurrent concurrently concurrency simultaneously gather",
    "stream streaming streamify chunk incrementally",
    "timeout deadline",
    "cancel cancellation abort stop interrupt",
    "cost money price dollar expensive spend spending spent cheap bill pay",
    "clear delete forget empty purge wipe",
    "cache cached caching",
    "retry retries repeat repeated again backoff",
    "limit cap bound quota most",
    "server serve serving deploy deployment",
    "log logs logging logger",
    "secret sensitive redact redaction private",
    "rotate rotation",
    "test tests testing pytest unittest",
    "simulate simulated simulator simulation fake mock inject",
    "fault failure fail error crash dead",
    "slow slowly lag behind",
    "buffer channel",
    "memory ram",
    "disconnect leave leaves left gone disconnected",
    "thread threads worker workers",
    "metric metrics monitor monitoring prometheus",
    "trace tracing span spans opentelemetry otel",
    "rust tokio axum crate cargo",
    "websocket websockets ws socket",
    "sse eventsource",
    "http rest",
    "fallback backup",
    "shutdown sigterm drain draining graceful",
    "auth authentication authorization protect",
    "partial typed pydantic number numbers",
    "budget spending_limit",
    "status progress",
    "adaptive grow grows shrink",
    "fresh bypass rollout_id rollout",
    "redis valkey",
    "batch bulk rows thousands",
    "layer layers compose order",
    "notebook jupyter",
    "sync synchronous synchronously",
    "restart void",
)
"""Words that mean the same in this field; the first of each line stands for the others."""


def stem(word: str) -> str:
    """Return a word's stem: ``"streaming"``, ``"streams"`` and ``"streamed"`` have one."""
    for ending, instead in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) + len(instead) >= 3:
            root = word[: len(word) - len(ending)] + instead
            if len(root) > 3 and root[-1] == root[-2] and root[-1] not in "lsz":
                root = root[:-1]
            return root
    return word


_TERM: dict[str, str] = {name: name for name in ("listener", "breaker", "worker", "jitter", "buffer")}
"""Terms by word. These are things, and no forms of listen, break, work."""
for _line in _SAME:
    _words = _line.split()
    for _word in _words:
        _TERM.setdefault(_word, stem(_words[0]))
        _TERM.setdefault(stem(_word), stem(_words[0]))


def terms(text: str) -> list[str]:
    """Return the terms of a text, in order, filler left out. A name such as ``drop_oldest`` gives its parts too."""
    found: list[str] = []
    text = _APART.sub(lambda match: _JOINED[match[0].lower().replace("-", " ")], text)
    for match in _WORD.finditer(text):
        word = match[0].lower()
        parts = [word, *(part for part in word.split("_") if part)] if "_" in word.strip("_") else [word.strip("_")]
        known = (part for part in parts if part and part not in FILLER)
        found.extend(_TERM.get(part) or _TERM.get(stem(part)) or stem(part) for part in known)
    return found
