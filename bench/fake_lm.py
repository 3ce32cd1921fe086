"""An LM server for benchmarks: no thought, exact pace, and it notes when its clients leave.

    python bench/fake_lm.py --port 9200 [--delay 0.5] [--chunks 100] [--interval 0.02] [--at-once 1]

It answers any chat completion in ChatAdapter's format. ``GET /stats`` tells what it sent and who left when, on the
clock that all processes of a machine share.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import time

import uvloop

_TICK = 0.002


def _event(delta: dict[str, object], finish: str | None = None) -> bytes:
    body = {
        "id": "chatcmpl-bench",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "bench",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }
    return b"data: " + json.dumps(body).encode() + b"\n\n"


class Replies:
    """The bytes of every reply, made once."""

    def __init__(self, chunks: int) -> None:
        words = [f" word{n}" for n in range(chunks)]
        usage = {"prompt_tokens": 100, "completion_tokens": chunks, "total_tokens": 100 + chunks}
        text = "[[ ## answer ## ]]\n" + "".join(words) + "\n\n[[ ## completed ## ]]"
        message = {"role": "assistant", "content": text}
        whole = json.dumps(
            {
                "id": "chatcmpl-bench",
                "object": "chat.completion",
                "created": 1,
                "model": "bench",
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                "usage": usage,
            }
        ).encode()
        self.whole = (
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(whole) + whole
        )
        self.head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        first = [_event({"role": "assistant", "content": ""}), _event({"content": "[[ ## answer ## ]]\n"})]
        last = [_event({"content": "\n\n[[ ## completed ## ]]"}), _event({}, "stop")]
        final = json.dumps({"id": "chatcmpl-bench", "object": "chat.completion.chunk", "choices": [], "usage": usage})
        self.first = b"".join(map(_framed, first))
        self.words = [_framed(_event({"content": word})) for word in words]
        self.last = b"".join(map(_framed, [*last, f"data: {final}\n\n".encode(), b"data: [DONE]\n\n"])) + b"0\r\n\r\n"
        self.burst = self.head + self.first + b"".join(self.words) + self.last


def _framed(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Pacer:
    """One timer for all streams: every tick it writes to those that are due."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.slots: list[set[Connection]] = [set() for _ in range(max(1, round(server.interval / _TICK)))]
        self.now = 0
        self.late = 0.0

    def add(self, connection: Connection) -> None:
        connection.slot = self.now % len(self.slots)
        self.slots[connection.slot].add(connection)

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        while True:
            due = started + self.now * _TICK
            await asyncio.sleep(max(0.0, due - loop.time()))
            self.late = max(self.late, loop.time() - due)
            for connection in list(self.slots[self.now % len(self.slots)]):
                connection.tick()
            self.now += 1


class Server:
    """What all connections share."""

    def __init__(self, delay: float, chunks: int, interval: float, at_once: int = 1) -> None:
        self.delay = delay
        self.at_once = at_once
        self.interval = interval
        self.replies = Replies(chunks)
        self.pacer = Pacer(self) if interval else None
        self.requests = self.chunks = self.open = 0
        self.left: list[tuple[float, int]] = []

    def stats(self) -> bytes:
        used = resource.getrusage(resource.RUSAGE_SELF)
        late = self.pacer.late if self.pacer else 0.0
        if self.pacer:
            self.pacer.late = 0.0
        found = {
            "requests": self.requests,
            "chunks": self.chunks,
            "open": self.open,
            "left": self.left,
            "late": late,
            "cpu": used.ru_utime + used.ru_stime,
        }
        return json.dumps(found).encode()


class Connection(asyncio.Protocol):
    """One client. One request at a time, as HTTP/1.1 clients do."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.data = b""
        self.place = -1
        self.slot = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.server.open += 1

    def connection_lost(self, exc: Exception | None) -> None:
        server = self.server
        server.open -= 1
        if self.place >= 0 and server.pacer:
            server.left.append((time.monotonic(), self.place))
            server.pacer.slots[self.slot].discard(self)
        self.place = -1

    def data_received(self, data: bytes) -> None:
        self.data += data
        end = self.data.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self.data[:end].lower()
        at = head.find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(self.data) < end + 4 + length:
            return
        body, self.data = self.data[end + 4 : end + 4 + length], self.data[end + 4 + length :]
        if head.startswith(b"get /stats"):
            stats = self.server.stats()
            self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(stats) + stats)
        else:
            self.answer(b'"stream":true' in body or b'"stream": true' in body)

    def answer(self, stream: bool) -> None:
        server = self.server
        server.requests += 1
        if not stream:
            if server.delay:
                asyncio.get_running_loop().call_later(server.delay, self.transport.write, server.replies.whole)
            else:
                self.transport.write(server.replies.whole)
        elif server.pacer is None:
            server.chunks += len(server.replies.words)
            self.transport.write(server.replies.burst)
        else:
            self.place = 0
            self.transport.write(server.replies.head + server.replies.first)
            server.pacer.add(self)

    def tick(self) -> None:
        server = self.server
        words = server.replies.words
        if self.place < len(words):
            now = words[self.place : self.place + server.at_once]
            self.transport.write(b"".join(now) if len(now) > 1 else now[0])
            self.place += len(now)
            server.chunks += len(now)
        else:
            self.place = -1
            assert server.pacer
            server.pacer.slots[self.slot].discard(self)
            self.transport.write(server.replies.last)


async def serve(port: int, server: Server) -> None:
    """Listen until the process is ended."""
    loop = asyncio.get_running_loop()
    await loop.create_server(lambda: Connection(server), "127.0.0.1", port, backlog=4096)
    await (server.pacer.run() if server.pacer else asyncio.Event().wait())


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before a reply that does not stream")
    parser.add_argument("--chunks", type=int, default=100)
    parser.add_argument("--interval", type=float, default=0.0, help="seconds between chunks; 0 sends them in one burst")
    parser.add_argument("--at-once", type=int, default=1, help="chunks that are sent together after each interval")
    args = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(args.port, Server(args.delay, args.chunks, args.interval, args.at_once)))


if __name__ == "__main__":
    main()
