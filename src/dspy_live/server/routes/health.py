"""``/health/live`` (the process runs) and ``/health/ready`` (it takes new runs)."""

from __future__ import annotations

from dspy_live.server.transport.http import Request


async def live(request: Request) -> None:
    """Reply 200 as long as the event loop turns."""
    await request.reply_json({"status": "alive"})


async def ready(request: Request) -> None:
    """Reply 200 while the server may be sent new runs, 503 from the beginning of its shutdown and while it is full."""
    app = request.app
    runs = app.runs
    full = runs.limit is not None and len(runs) >= runs.limit
    status = "draining" if runs.leaving else "full" if full else "ready"
    body = {
        "status": status,
        "programs": list(app.programs),
        "active": len(runs),
        "max_active": runs.limit,
        "simulated": app.simulated,
    }
    await request.reply_json(body, 200 if status == "ready" else 503)
