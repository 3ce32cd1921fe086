"""``/metrics`` for Prometheus, ``/stats`` for people and the playground, ``/usage`` for what was spent."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from dspy_live.core.errors import NotFound, Overloaded
from dspy_live.server.transport.http import Request

if TYPE_CHECKING:
    from dspy_live.server.app import App

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
    siblings = request.app.siblings
    body = metrics_text(request.app) if siblings is None else await siblings.metrics()
    await request.reply(200, body, PROMETHEUS)


def metrics_text(app: App) -> bytes:
    """Return the metrics of this process."""
    return exposition(app.runs.statistics()) if app.metrics is None else app.metrics()


async def stats(request: Request) -> None:
    """Reply with the statistics as JSON: of this process, or of all workers of the server."""
    siblings = request.app.siblings
    await request.reply_json(request.app.runs.statistics() if siblings is None else await siblings.statistics())


class LedgerDown(Overloaded):
    """The database of the ledger can't be reached."""

    code = "ledger_down"


async def usage(request: Request) -> None:
    """Reply with the ledger's usage for the query parameters; a key sees its own usage, or with the scope all."""
    hook = request.app.usage
    if hook is None:
        raise NotFound("this server keeps no ledger of usage")
    query = dict(parse_qsl(request.scope["query_string"].decode("latin-1")))
    if request.key and not request.app.keys.sees_all_usage(request.key):
        query["key"] = request.key
    try:
        result = hook(query)
        if inspect.isawaitable(result):
            result = await result
    except OSError as exc:
        raise LedgerDown("the ledger can't be read now; ask again", retry_after=1.0) from exc
    await request.reply_json(result)


def exposition(statistics: dict[str, Any]) -> bytes:
    """Return the counts in Prometheus' text format."""
    lines: list[str] = []
    for key, kind, name, text in _FAMILIES:
        full = f"dspy_live_server_{name}"
        lines += [f"# HELP {full} {text}", f"# TYPE {full} {kind}", f"{full} {statistics[key]}"]
    return ("\n".join(lines) + "\n").encode()
