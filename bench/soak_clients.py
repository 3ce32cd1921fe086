"""The clients of ``bench/soak.py``: every door of the server, each with its way of leaving."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from typing import Any

from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from dspy_live.runtime.http.transport import Exchange, HttpPool, Timeouts, TransportError

PROGRAMS = ("native", "thread", "inline", "agent", "parallel")
BEHAVIOURS = {
    "predict": 20,
    "stream": 25,
    "leave the stream": 15,
    "leave before the answer": 8,
    "read slowly": 6,
    "chat": 4,
    "chat stream": 4,
    "websocket": 6,
    "websocket leaves": 4,
    "run in two halves": 5,
    "run cancelled": 3,
}
"""What a client does, and how often in a hundred times."""
TIMEOUTS = Timeouts(connect=120, first_byte=120, idle=120)


class Clients:
    """So many clients, each asking again when it has its answer."""

    def __init__(self, url: str, seed: int) -> None:
        self.url = url
        self.random = random.Random(seed)
        self.outcomes: Counter[str] = Counter()
        self.pool = HttpPool(asyncio.get_running_loop())
        self.number = 0

    async def client(self, until: float) -> None:
        while time.monotonic() < until:
            behaviour = self.random.choices(list(BEHAVIOURS), list(BEHAVIOURS.values()))[0]
            try:
                outcome = await self.ask(behaviour, self.random.choice(PROGRAMS))
            except (TransportError, OSError, WebSocketException) as exc:
                outcome = f"BROKEN {type(exc).__name__}"
            self.outcomes[f"{behaviour}: {outcome}"] += 1

    async def ask(self, behaviour: str, program: str) -> str:
        self.number += 1
        question = f"What is number {self.number}?"
        if behaviour.startswith("websocket"):
            return await self.websocket(program, question, leaves="leaves" in behaviour)
        if behaviour.startswith("run"):
            return await self.run(program, question, behaviour)
        if behaviour.startswith("chat"):
            body = {
                "model": program,
                "messages": [{"role": "user", "content": question}],
                "stream": "stream" in behaviour,
            }
            async with self.post("/v1/chat/completions", body) as exchange:
                await exchange.headers_received()
                return _chat(exchange.status, await exchange.read())
        stream = behaviour not in ("predict", "leave before the answer")
        path = f"/programs/{program}/predict{'/stream' if stream else ''}"
        async with self.post(path, {"question": question}) as exchange:
            if behaviour == "leave before the answer":
                await asyncio.sleep(self.random.random() * 0.3)
                return "left"
            await exchange.headers_received()
            if not stream or exchange.status != 200:
                return _reply(exchange.status, await exchange.read())
            return await self.read(exchange, behaviour)

    def post(self, path: str, value: Any) -> Exchange:
        body = json.dumps(value).encode()
        return self.pool.exchange("POST", self.url + path, {"Content-Type": "application/json"}, body, TIMEOUTS)

    async def websocket(self, program: str, question: str, leaves: bool) -> str:
        """One run over the typed protocol; one that leaves closes its socket in the middle."""
        address = self.url.replace("http", "ws", 1) + f"/programs/{program}/ws"
        async with connect(address, open_timeout=60) as socket:
            await socket.send(json.dumps({"type": "start", "id": "1", "inputs": {"question": question}}))
            events = 0
            async for message in socket:
                kind = json.loads(message)["event"]
                events += 1
                if leaves and events > self.random.randint(0, 8):
                    return "left"
                if kind in ("prediction", "error"):
                    return "a result" if kind == "prediction" else "an error"
        return "NO END"

    async def run(self, program: str, question: str, behaviour: str) -> str:
        """A run of ``/runs``: read in two halves with ``Last-Event-ID``, or cancelled."""
        async with self.post(f"/programs/{program}/runs", {"question": question}) as exchange:
            await exchange.headers_received()
            body = await exchange.read()
            if exchange.status >= 300:
                return _reply(exchange.status, body)
        events = self.url + json.loads(body)["events"]
        first = await self.events(events, {}, cut=self.random.randint(1, 6))
        if "cancelled" in behaviour:
            url = events.removesuffix("/events")
            async with self.pool.exchange("DELETE", url, {}, b"", TIMEOUTS) as exchange:
                await exchange.headers_received()
                await exchange.read()
                return "cancelled" if exchange.status in (200, 202, 204, 404) else f"STATUS {exchange.status}"
        if first.endswith(b"data: [DONE]\n\n"):
            return _ended(first)
        ids = [line[4:] for line in first.split(b"\n") if line.startswith(b"id: ")]
        rest = await self.events(events, {"Last-Event-ID": ids[-1].decode()} if ids else {}, cut=None)
        again = [line[4:] for line in rest.split(b"\n") if line.startswith(b"id: ")]
        return "AN EVENT TWICE" if set(ids) & set(again) else _ended(first + rest)

    async def events(self, url: str, headers: dict[str, str], cut: int | None) -> bytes:
        """Read a run's events: to the end, or whole ones until ``cut`` have come."""
        parts: list[bytes] = []
        async with self.pool.exchange("GET", url, headers, b"", TIMEOUTS) as exchange:
            await exchange.headers_received()
            enough = asyncio.Event()

            def received(data: bytes) -> None:
                parts.append(data)
                if cut is not None and b"".join(parts).count(b"\n\n") >= cut:
                    enough.set()

            exchange.on_body = received
            waits = [asyncio.ensure_future(exchange.done()), asyncio.ensure_future(enough.wait())]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                if waits[0].done():
                    await waits[0]
            finally:
                for wait in waits:
                    wait.cancel()
                await asyncio.gather(*waits, return_exceptions=True)
        body = b"".join(parts)
        return body if body.endswith(b"data: [DONE]\n\n") else body[: body.rfind(b"\n\n") + 2]

    async def read(self, exchange: Any, behaviour: str) -> str:
        leave_after = self.random.randint(1, 12) if behaviour == "leave the stream" else None
        parts: list[bytes] = []
        enough = asyncio.Event()

        def received(data: bytes) -> None:
            parts.append(data)
            if leave_after is not None and sum(p.count(b"\n\n") for p in parts) >= leave_after:
                enough.set()
            if behaviour == "read slowly":
                exchange.pause()
                asyncio.get_running_loop().call_later(0.2, exchange.resume)

        exchange.on_body = received
        done = asyncio.ensure_future(exchange.done())
        waits = [done, asyncio.ensure_future(enough.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if not done.done():
                return "left"
            await done
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
        return _ended(b"".join(parts))


def _reply(status: int, body: bytes) -> str:
    reply = json.loads(body)
    if status == 200:
        return "a result" if reply.get("summary") or reply.get("answer") else "AN EMPTY RESULT"
    return f"error {reply['error']['type']}"


def _ended(body: bytes) -> str:
    """Every stream ends with one prediction or one error, and then says that it is done."""
    predictions, errors = body.count(b"event: prediction\n"), body.count(b"event: error\n")
    if not body.endswith(b"data: [DONE]\n\n"):
        return "NO END"
    if (predictions, errors) == (1, 0):
        return "a result"
    if (predictions, errors) == (0, 1):
        data = body.rpartition(b"event: error\n")[2].partition(b"data: ")[2].partition(b"\n")[0]
        found = json.loads(data)
        return f"error {found.get('error', found).get('type')}"
    return f"{predictions} RESULTS, {errors} ERRORS"


def _chat(status: int, body: bytes) -> str:
    """A chat completion: one object, or a stream that ends with a reason or an error and says that it is done."""
    if status != 200:
        return f"error {json.loads(body)['error']['code']}"
    if not body.startswith(b"data: "):
        return "a result" if json.loads(body)["choices"][0]["message"]["content"] else "AN EMPTY RESULT"
    if not body.endswith(b"data: [DONE]\n\n"):
        return "NO END" if b'"error"' not in body else "an error"
    return "a result" if b'"finish_reason":"stop"' in body else "an error"
