"""``/metrics`` for Prometheus, ``/stats`` for people and the playground, ``/usage`` for what was spent."""

from __future__ import annotations

import inspect
from typing import Any
from urllib.parse import parse_qsl

from dspy_live.core.errors import NotFound
from dspy_live.server.transport.http import Request

PROMETHEUS = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")

_FAMILIES = (
    ("started", "counter", "runs_started_total", "Runs begun."),
    ("succeeded", "counter", "runs_succeeded_total", "Runs that ended with a prediction."),
    ("failed", "counter", "runs_failed_total", "Runs that ended with an error."),
    ("cancelled", "counter", "runs_cancelled_total", "Runs that were cancelled or left by their client."),
    ("refused", "counter", "runs_refused_total", "Runs that a limit refused."),
    ("tokens", "counter", "tokens_streamed_total", "Token events sent."),
    ("active", "gauge", "runs_active", "Runs under way."),
)


async def metrics(request: Request) -> None:
    """Reply with the text of the metrics hook, or with the server's own counts where there is none."""
    hook = request.app.metrics
    body = exposition(request.app.runs.statistics()) if hook is None else hook()
    await request.reply(200, body, PROMETHEUS)


async def stats(request: Request) -> None:
    """Reply with the statistics of this process as JSON."""
    await request.reply_json(request.app.runs.statistics())


async def usage(request: Request) -> None:
    """Reply with what the usage hook returns for the query parameters; a key sees its own usage only."""
    hook = request.app.usage
    if hook is None:
        raise NotFound("this server keeps no ledger of usage")
    query = dict(parse_qsl(request.scope["query_string"].decode("latin-1")))
    if request.key:
        query["key"] = request.key
    result = hook(query)
    if inspect.isawaitable(result):
        result = await result
    await request.reply_json(result)


def exposition(statistics: dict[str, Any]) -> bytes:
    """Return the counts in Prometheus' text format."""
    lines: list[str] = []
    for key, kind, name, text in _FAMILIES:
        full = f"dspy_live_server_{name}"
        lines += [f"# HELP {full} {text}", f"# TYPE {full} {kind}", f"{full} {statistics[key]}"]
    return ("\n".join(lines) + "\n").encode()
