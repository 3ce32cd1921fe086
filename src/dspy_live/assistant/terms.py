"""Search terms of a text: lower case, no filler words, stems, and one term for words that mean the same here."""

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
"""Words that don't distinguish one page from another."""

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
    "cancel cancellation abort interrupt",
    "cost money price dollar dollars expensive spend spending spent cheap bill billed billing pay paying paid",
    "clear delete forget empty purge wipe invalidate",
    "cache cached caching",
    "retry retries retried retrying backoff attempt attempts failover flaky transient",
    "limit cap bound quota ceiling maximum max allowance",
    "server serve serving deploy deployment host expose",
    "log logs logging logger logged verbose verbosity",
    "secret sensitive redact redaction mask",
    "rotate rotation",
    "test tests testing pytest unittest",
    "simulate simulated simulator simulation fake mock stub dummy inject provoke",
    "fault failure failures fail fails failed failing error errors exception exceptions outage",
    "crash reboot reboots killed",
    "slow slowly lag behind",
    "buffer channel",
    "memory ram",
    "disconnect leave leaves gone disconnected disconnects",
    "thread threads worker workers",
    "metric metrics monitor monitoring prometheus grafana histogram gauge",
    "trace traces tracing span spans opentelemetry otel otlp jaeger tempo traceparent",
    "rust tokio axum crate cargo actix serde pyo3",
    "websocket websockets ws socket",
    "sse eventsource",
    "http rest",
    "fallback backup",
    "shutdown sigterm drain draining graceful",
    "auth authentication authorization authorise unauthorized protect 401",
    "partial pydantic",
    "budget spending_limit",
    "status progress",
    "adaptive adapts",
    "fresh bypass rollout_id rollout",
    "redis valkey",
    "batch abatch bulk dataset corpus dataframe csv jsonl rows row",
    "layer layers compose middleware stack stacking",
    "notebook jupyter",
    "sync synchronous synchronously",
    "hang hangs hung stuck freeze freezes frozen stall stalls stalled",
    "overload overloaded shed shedding",
    "identical deduplicate single_flight singleflight",
    "convert converts conversion converted rewrite rewrites codemod",
    "replica replicas",
    "greenlet greenlets",
    "latency percentile p95 p99",
    "browser javascript",
    "credit credits",
    "embed embedding mount",
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


def literal_stems(text: str) -> list[str]:
    """Return the stems of all words, fillers too: ``how many`` and ``at once`` distinguish pages."""
    return [stem(word) for word in re.findall(r"[a-z0-9_]+", text.lower())]
