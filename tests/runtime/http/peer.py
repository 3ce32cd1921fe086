"""A small HTTP server whose every byte a test decides."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable

from tests.support.until import async_until as until

Script = Callable[["Peer", asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def reply(body: bytes = b"", *, status: str = "200 OK", **headers: str) -> bytes:
    """A whole reply with a length; ``content_type`` becomes ``content-type``."""
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status}\r\n{lines}content-length: {len(body)}\r\n\r\n".encode() + body


CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-type: text/event-stream\r\n\r\n"
END = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Request:
    def __init__(self, line: str, headers: dict[str, str], body: bytes) -> None:
        self.line = line
        self.headers = headers
        self.body = body


async def read_request(reader: asyncio.StreamReader) -> Request | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        line, *rest = head.decode("latin-1").rstrip().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (text.partition(":") for text in rest)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    return Request(line, headers, body)


class Peer:
    """Runs ``script`` once per connection, or, given bytes, answers every request with them.

    Attributes:
        requests: all that were read by :meth:`read`.
        connections: how many were accepted.
        closed: how many connections were seen to be closed by the client, by :meth:`see_close`.
    """

    def __init__(self, script: Script | bytes, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> None:
        self._script = script
        self._tls = tls
        self._host = host
        self._tasks: set[asyncio.Task[None]] = set()
        self.requests: list[Request] = []
        self.connections = 0
        self.closed = 0
        self.port = 0

    @property
    def url(self) -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{'https' if self._tls else 'http'}://{host}:{self.port}/v1/chat"

    @property
    def address(self) -> str:
        return f"{self._host}:{self.port}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, self._host, 0, ssl=self._tls, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def read(self, reader: asyncio.StreamReader) -> Request | None:
        request = await read_request(reader)
        if request is not None:
            self.requests.append(request)
        return request

    async def see_close(self, reader: asyncio.StreamReader) -> None:
        """Wait until the client has closed, and count it."""
        with contextlib.suppress(ConnectionError):
            while await reader.read(65536):
                pass
        self.closed += 1

    async def sees_close_at_once(self, count: int = 1) -> bool:
        """Say whether the ``count``-th close shows within 20 turns of the loop, each of a millisecond.

        Turns and not seconds, so that a machine that has other things to do does not fail a test.
        """
        for _ in range(20):
            if self.closed >= count:
                return True
            await asyncio.sleep(0.001)
        return False

    async def closing(self, count: int = 1) -> None:
        """Wait for the ``count``-th close."""
        await until(lambda: self.closed >= count)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            if isinstance(self._script, bytes):
                while await self.read(reader):
                    writer.write(self._script)
            else:
                await self._script(self, reader, writer)
        except asyncio.CancelledError:
            pass
        except ConnectionError:
            pass
        finally:
            self._tasks.discard(task)
            if not writer.transport.is_closing():
                writer.transport.abort()
