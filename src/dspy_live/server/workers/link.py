"""Questions from one worker to another, over a Unix socket: frames of MessagePack, each with its length before it.

A question is one frame. Its answer is one frame; for an HTTP request it is ASGI's messages, and the connection's end is
the client's.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

log = logging.getLogger("dspy_live.workers")

_LENGTH = struct.Struct(">I")
_SUFFIX = ".socket"

Answer = Callable[[Any, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def socket_of(folder: Path, worker: int) -> Path:
    """Return the socket at which a worker answers."""
    return folder / f"worker-{worker}{_SUFFIX}"


def others(folder: Path, worker: int) -> list[Path]:
    """Return the sockets of all workers but this one; a dead one's may be among them for a moment."""
    own = socket_of(folder, worker).name
    return [path for path in sorted(folder.glob(f"worker-*{_SUFFIX}")) if path.name != own]


async def read_frame(reader: asyncio.StreamReader) -> Any:
    """Return the next frame. Raises ``EOFError`` where the other side has ended instead."""
    length = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))[0]
    return msgspec.msgpack.decode(await reader.readexactly(length))


def write_frame(writer: asyncio.StreamWriter, value: Any) -> None:
    """Write a frame; ``await writer.drain()`` waits for a slow reader. Raises ``OSError`` where the reader has gone."""
    data = msgspec.msgpack.encode(value)
    try:
        writer.write(_LENGTH.pack(len(data)) + data)
    except RuntimeError as exc:  # which is how uvloop says it
        raise ConnectionResetError("the other worker has gone") from exc


@asynccontextmanager
async def asked(path: Path, question: Any) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Send a question; inside, its answer can be read. Raises ``OSError`` where nobody answers there any more."""
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        write_frame(writer, question)
        yield reader, writer
    finally:
        writer.close()


async def ask(path: Path, question: Any, seconds: float, *, late: Any = None) -> Any:
    """Return the one frame of an answer, ``None`` where the worker has gone, ``late`` where it takes too long."""
    try:
        async with asyncio.timeout(seconds), asked(path, question) as (reader, _):
            return await read_frame(reader)
    except TimeoutError:
        return late
    except (OSError, EOFError):
        return None


class LinkServer:
    """Answers the other workers at a socket, which only this user can open: the folder is private.

    Args:
        path: the socket; it is made, and removed at the end.
        answer: called with each question.
    """

    def __init__(self, path: Path, answer: Answer) -> None:
        self.path = path
        self._answer = answer
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> LinkServer:
        self._server = await asyncio.start_unix_server(self._serve, self.path)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._answer(await read_frame(reader), reader, writer)
            await writer.drain()
        except (OSError, EOFError):
            pass  # who asked has gone
        except Exception:
            log.exception("a question of another worker failed")
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
