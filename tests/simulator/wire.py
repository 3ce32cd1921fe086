"""A plain HTTP client for the simulator's tests: it sees every byte, and can leave at any time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from tests.support.until import BOUND
from tests.support.until import async_until as until

__all__ = ["QUESTION", "Answer", "Client", "ask", "chat", "connected", "until"]

QUESTION = [{"role": "user", "content": "Why do volcanoes erupt?"}]


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes = b""
    whole: bool = True
    """False when the connection ended before the body did."""

    def json(self) -> Any:
        return json.loads(self.body)

    def events(self) -> list[Any]:
        """The ``data:`` lines, parsed where they are JSON."""
        return [_parsed(line[6:]) for line in self.body.decode().split("\n\n") if line.startswith("data: ")]

    def text(self, index: int = 0) -> str:
        """The streamed text of one choice."""
        deltas = [
            c["delta"]
            for e in self.events()
            if isinstance(e, dict)
            for c in e.get("choices", ())
            if c["index"] == index
        ]
        return "".join(delta.get("content") or "" for delta in deltas)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


@dataclass
class Client:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    host: str
    extra: dict[str, str] = field(default_factory=dict)

    async def send(self, method: str, path: str, body: Any = None, **headers: str) -> None:
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self.host}", f"Content-Length: {len(data)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + data)
        await self.writer.drain()

    async def head(self) -> Answer:
        status = await self.reader.readline()
        if not status:
            raise ConnectionError("the server closed without an answer")
        headers = {}
        while (line := await self.reader.readline()).strip():
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        return Answer(int(status.split()[1]), headers)

    async def receive(self) -> Answer:
        answer = await self.head()
        try:
            if answer.headers.get("transfer-encoding") == "chunked":
                async for part in self.chunks():
                    answer.body += part
            else:
                answer.body = await self.reader.readexactly(int(answer.headers.get("content-length", 0)))
        except asyncio.IncompleteReadError as exc:
            answer.body += exc.partial
            answer.whole = False
        return answer

    async def chunks(self) -> AsyncIterator[bytes]:
        while True:
            line = await self.reader.readline()
            if not line.endswith(b"\r\n"):
                raise asyncio.IncompleteReadError(b"", None)
            size = int(line, 16)
            part = await self.reader.readexactly(size + 2)
            if size == 0:
                return
            yield part[:-2]


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Client]:
    address = urlsplit(url)
    assert address.hostname
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        yield Client(reader, writer, address.netloc)
    finally:
        writer.close()


async def ask(
    url: str, body: Any = None, path: str = "/v1/chat/completions", method: str = "POST", **headers: str
) -> Answer:
    """One request on a connection of its own."""
    async with connected(url) as client:
        await client.send(method, path, body, **headers)
        return await asyncio.wait_for(client.receive(), BOUND)


def chat(stream: bool = False, **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": QUESTION, "stream": stream, **more}
