"""``/health/live`` (the process runs) and ``/health/ready`` (it takes new runs)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dspy_live.server.transport.http import Request

if TYPE_CHECKING:
    from dspy_live.server.app import App


async def live(request: Request) -> None:
    """Reply 200 as long as the event loop turns."""
    await request.reply_json({"status": "alive"})


async def ready(request: Request) -> None:
    """Reply 200 while the server may be sent new runs, 503 from the beginning of its shutdown and while it is full.

    With ``ready_lm`` it is 503 too while the LM does not answer. What is known of the LM is in the reply in any case.
    """
    siblings = request.app.siblings
    body = await readiness(request.app) if siblings is None else await siblings.readiness()
    await request.reply_json(body, 200 if body["status"] == "ready" else 503)


async def readiness(app: App) -> dict[str, Any]:
    """Return how ready this process is: ``status`` is ``"ready"``, or why it is not."""
    runs = app.runs
    await runs.lm.look()
    full = runs.limit is not None and len(runs) >= runs.limit
    status = "draining" if runs.leaving else "full" if full else "ready" if runs.lm.ready else "lm_does_not_answer"
    return {
        "status": status,
        "programs": list(app.programs),
        "active": len(runs),
        "max_active": runs.limit,
        "simulated": app.simulated,
        "lm": runs.lm.report(),
    }
