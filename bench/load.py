"""A load generator for benchmarks: closed-loop requests, or streams that are read to their end or left early.

    python bench/load.py --url http://127.0.0.1:8000/predict --connections 32 --seconds 5
    python bench/load.py --url http://127.0.0.1:8000/predict/stream --connections 100 --seconds 5 --mark 'event: token'

Prints one line of JSON. Every request asks another question, so that nothing is answered from a cache.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import resource
import time
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import uvloop

_numbers = itertools.count()


@dataclass
class Result:
    """What was seen. Times are seconds."""

    done: int = 0
    failed: int = 0
    marks: int = 0
    latency: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    left: list[float] = field(default_factory=list)
    why: str = ""


@dataclass(frozen=True)
class Plan:
    """What to do: read streams where ``mark`` is given, leave them after ``leave`` marks."""

    host: str
    port: int
    path: str
    mark: bytes
    leave: int
    once: bool
    ends: float
    chat: bool

    def body(self, number: int) -> bytes:
        """A request of its own: a program's input, or a chat completion."""
        if not self.chat:
            return b'{"question": "question %d"}' % number
        stream = b"true" if self.mark else b"false"
        return b'{"stream": %b, "messages": [{"role": "user", "content": "question %d"}]}' % (stream, number)


class Client(asyncio.Protocol):
    """One connection, used for one request after the other."""

    def __init__(self, plan: Plan, result: Result, over: asyncio.Future[None]) -> None:
        self.plan = plan
        self.result = result
        self.over = over
        self.asked = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.ask()

    def ask(self) -> None:
        if self.asked and (self.plan.once or time.monotonic() >= self.plan.ends):
            self.transport.close()
            return
        body = self.plan.body(next(_numbers))
        self.rest = b""
        self.marks = 0
        self.asked = time.monotonic()
        self.transport.write(
            b"POST %b HTTP/1.1\r\nhost: %b:%d\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
            % (self.plan.path.encode(), self.plan.host.encode(), self.plan.port, len(body), body)
        )

    def data_received(self, data: bytes) -> None:
        if self.plan.mark:
            self.stream(data)
            return
        self.rest += data
        end = self.rest.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self.rest[:end].lower()
        length = int(head[head.index(b"content-length:") + 15 :].split(b"\r\n", 1)[0])
        if len(self.rest) >= end + 4 + length:
            self.ended(head.startswith(b"http/1.1 200"), self.rest[:200])

    def stream(self, data: bytes) -> None:
        mark = self.plan.mark
        if not self.rest and not data.startswith(b"HTTP/1.1 200"):
            self.result.failed += 1
            self.result.why = data[:200].decode(errors="replace")
            self.transport.abort()
            return
        seen = (self.rest + data).count(mark) - self.rest.count(mark)
        if seen:
            if not self.marks:
                self.result.first.append(time.monotonic() - self.asked)
            self.marks += seen
            self.result.marks += seen
        self.rest = (self.rest + data)[-len(mark) - 8 :]
        if self.plan.leave and self.marks >= self.plan.leave:
            self.result.left.append(time.monotonic())
            self.result.done += 1
            self.transport.abort()
        elif self.rest.endswith(b"0\r\n\r\n"):
            self.ended(self.marks > 0, data[:200])

    def ended(self, well: bool, said: bytes) -> None:
        self.result.latency.append(time.monotonic() - self.asked)
        if well:
            self.result.done += 1
        else:
            self.result.failed += 1
            self.result.why = said.decode(errors="replace")
        self.ask()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None and not self.plan.leave:
            self.result.failed += 1
            self.result.why = repr(exc)
        if not self.over.done():
            self.over.set_result(None)


async def run(plan: Plan, connections: int, ramp: float) -> Result:
    """Open the connections over ``ramp`` seconds and wait until all have ended."""
    loop = asyncio.get_running_loop()
    result = Result()

    async def client(number: int) -> None:
        await asyncio.sleep(ramp * number / connections)
        over = loop.create_future()
        try:
            await loop.create_connection(lambda: Client(plan, result, over), plan.host, plan.port)
        except OSError as exc:
            result.failed += 1
            result.why = repr(exc)
            return
        await over

    await asyncio.gather(*(client(n) for n in range(connections)))
    return result


def quantile(values: list[float], share: float) -> float | None:
    """Return a quantile in milliseconds."""
    if not values:
        return None
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000, 2)


def main() -> None:
    """Read the command line, load, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--ramp", type=float, default=0.0, help="seconds over which the connections are opened")
    parser.add_argument("--mark", default="", help="text of an event that counts; the reply is then read as a stream")
    parser.add_argument("--leave", type=int, default=0, help="close the connection after so many events")
    parser.add_argument("--chat", action="store_true", help="send chat completions in place of a program's input")
    parser.add_argument("--once", action="store_true", help="one request per connection")
    args = parser.parse_args()
    url = urlsplit(args.url)
    assert url.hostname
    started = time.monotonic()
    plan = Plan(
        url.hostname,
        url.port or 80,
        url.path,
        args.mark.encode(),
        args.leave,
        args.once,
        started + args.seconds,
        args.chat,
    )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        result = runner.run(run(plan, args.connections, args.ramp))
    elapsed = time.monotonic() - started
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(
        json.dumps(
            {
                "done": result.done,
                "failed": result.failed,
                "why": result.why,
                "seconds": round(elapsed, 3),
                "rate": round(result.done / elapsed, 1),
                "marks": result.marks,
                "p50_ms": quantile(result.latency, 0.5),
                "p99_ms": quantile(result.latency, 0.99),
                "first_p50_ms": quantile(result.first, 0.5),
                "first_p99_ms": quantile(result.first, 0.99),
                "left": result.left,
                "cpu": used.ru_utime + used.ru_stime,
            }
        )
    )


if __name__ == "__main__":
    main()
