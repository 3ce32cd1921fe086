"""The playground's and the documentation's files, read once and served from memory."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files

from dspy_live.core.errors import NotFound
from dspy_live.server.transport.http import Headers, Request

_TYPES = {
    "html": b"text/html; charset=utf-8",
    "js": b"text/javascript; charset=utf-8",
    "css": b"text/css; charset=utf-8",
    "svg": b"image/svg+xml",
}

_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    b"media-src data:; form-action 'none'; frame-ancestors 'none'; base-uri 'none'; "
    b"require-trusted-types-for 'script'; trusted-types 'none'"
)
_GUARD: Headers = [
    (b"content-security-policy", _POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-cache"),
]


@cache
def load() -> dict[str, tuple[bytes, bytes, bytes]]:
    """Return body, content type and entity tag of each file, by name."""
    found = {}
    for entry in files("dspy_live.server").joinpath("playground").iterdir():
        kind = _TYPES.get(entry.name.rpartition(".")[2])
        if kind is not None:
            body = entry.read_bytes()
            tag = b'"' + hashlib.blake2b(body, digest_size=12).hexdigest().encode() + b'"'
            found[entry.name] = (body, kind, tag)
    return found


async def send(request: Request, name: str) -> None:
    """Reply with a file, or 304 when the browser has it."""
    try:
        body, kind, tag = load()[name]
    except KeyError:
        raise NotFound(f"no file {name!r}") from None
    headers = [(b"etag", tag), *_GUARD]
    if request.header(b"if-none-match") == tag.decode():
        await request.start(304, headers)
        await request.write(b"", False)
        return
    await request.reply(200, body, (b"content-type", kind), *headers)


async def playground(request: Request) -> None:
    """The page at ``/``; its links are relative, so below a mount point it must end in a slash."""
    if not request.scope["path"].endswith("/"):
        await request.reply(307, b"", (b"location", (request.scope["path"] + "/").encode()))
        return
    await send(request, "index.html")


async def docs(request: Request) -> None:
    """The page at ``/docs``."""
    await send(request, "docs.html")


async def asset(request: Request) -> None:
    """A script, a style sheet or a picture of those pages."""
    await send(request, request.params["file"])
