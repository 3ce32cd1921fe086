"""``/openapi.json``: an OpenAPI 3.1 document made from the routes and the schemas."""

from __future__ import annotations

from dspy_live.core.errors import NotFound
from dspy_live.server.openapi import build
from dspy_live.server.transport.http import Request


async def document(request: Request) -> None:
    """Reply with the document of the programs that the key may run; that of all programs is made once."""
    app = request.app
    shown = {name: one for name, one in app.programs.items() if app.keys.may_run(request.key, name)}
    if not shown:
        raise NotFound("no program is open to this key")
    made = app.openapi if len(shown) == len(app.programs) else None
    if made is None:
        made = build(shown, app.title, app.router.routes, secured=len(app.keys) > 0)
    if len(shown) == len(app.programs):
        app.openapi = made
    prefix = request.scope.get("root_path", "")
    await request.reply_json(made | {"servers": [{"url": prefix or "/"}]})
