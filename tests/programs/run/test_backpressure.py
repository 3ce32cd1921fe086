"""A reader that stops: the LM's socket is not read, memory stays where it is, and later nothing is missing."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from pathlib import Path
from typing import Any

import dspy
import pytest
from tests.programs.conftest import Sim
from tests.server.support import serving
from tests.support.until import async_until

from dspy_live import Buffer, create_app, streamify

QA = "question -> answer"
HUGE = 100_000_000
BIG = 32_000_000
# What two sockets on this machine hold between them, and what is in hand: some megabytes.
IN_FLIGHT = 16_000_000


def resident() -> int:
    """Bytes of memory that this process has now."""
    if Path("/proc/self/statm").exists():
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


async def settled(sim: Sim) -> int:
    """The bytes that the LM's sockets have taken, once they take no more."""
    last, still = -1, 0
    for _ in range(1500):
        now = sim.server.bytes_taken
        still = still + 1 if now == last else 0
        if still == 10 and now > 0:
            return now
        last = now
        await asyncio.sleep(0.02)
    raise AssertionError("it is still being read")


def small(overflow: Any = "block", **more: Any) -> Buffer:
    return Buffer(size=8, overflow=overflow, **more)


KINDS = {
    "block": small(),
    "coalesce": small("coalesce", max_bytes=1 << 20),
    "adaptive": small(max_size=64),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", ["native", "thread", "inline"])
async def test_a_reader_that_stops_stops_the_lms_socket(sim: Sim, kind: str, way: Any) -> None:
    sim.server.set_options(size=HUGE)
    with dspy.context(lm=sim.lm(num_retries=0)):
        stream = streamify(dspy.Predict(QA), buffer=KINDS[kind], execution=way)(question="?")
        await anext(stream)
        before = resident()
        await async_until(lambda: stream.statistics().full)
        await settled(sim)
        await asyncio.sleep(0.1)
        assert sim.server.bytes_taken < IN_FLIGHT
        assert resident() - before < 30_000_000
        assert stream.statistics().full
        await stream.aclose()
        await async_until(lambda: sim.server.stats.disconnects == 1)
    assert sim.server.stats.finished == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_when_it_reads_again_nothing_is_missing(sim: Sim, kind: str) -> None:
    sim.server.set_options(size=BIG)
    text, stops = [], 0
    with dspy.context(lm=sim.lm(num_retries=0)):
        stream = streamify(dspy.Predict(QA), buffer=KINDS[kind])(question="?")
        async for item in stream:
            if not isinstance(item, str):
                break
            text.append(str(item))
            if len(text) in (1, 8):
                await async_until(lambda: stream.statistics().full)
                assert await settled(sim) < BIG
                stops += 1
        prediction = item
    assert stops == 2
    assert "".join(text) == prediction.answer
    assert len(prediction.answer) == BIG
    counted = stream.statistics()
    assert counted.times_full >= 2
    assert counted.dropped == 0
    if kind == "adaptive":
        assert 8 <= counted.bound <= 64


async def test_memory_stays_flat_while_a_slow_reader_reads(sim: Sim) -> None:
    """What grows is the reply itself, which DSPy gets whole at the end; what waits for the reader does not."""
    sim.server.set_options(size=HUGE)
    with dspy.context(lm=sim.lm(num_retries=0), disable_history=True):
        stream = streamify(dspy.Predict(QA), buffer=KINDS["block"])(question="?")
        await anext(stream)
        before, read, most = resident(), 0, 0
        async for item in stream:
            assert isinstance(item, str)
            read += len(item)
            most = max(most, resident() - before - read)
            if read > HUGE // 2:
                break
        await stream.aclose()
    assert most < 40_000_000


async def test_drop_oldest_drops_and_counts_and_the_result_is_whole(sim: Sim) -> None:
    sim.server.set_options(size=BIG // 4)
    with dspy.context(lm=sim.lm(num_retries=0)):
        stream = streamify(dspy.Predict(QA), buffer=small("drop_oldest"))(question="?")
        text = str(await anext(stream))
        await async_until(lambda: sim.server.stats.finished)
        await asyncio.sleep(0.1)
        items = [item async for item in stream]
    assert sim.server.stats.finished == 1  # nobody had to wait
    text += "".join(str(i) for i in items if isinstance(i, str))
    counted = stream.statistics()
    assert counted.dropped > 0
    assert len(text) < len(items[-1].answer) == BIG // 4


async def test_statistics_through_layers(sim: Sim) -> None:
    from dspy_live import Runtime
    from dspy_live.layers import Limit, Retry

    runtime = Runtime(layers=[Retry(), Limit(5)])
    with dspy.context(lm=sim.lm()):
        stream = streamify(dspy.Predict(QA), runtime=runtime)(question="?")
        items = [item async for item in stream]
    # What was received here: all items, and the start and usage that this stream does not show.
    assert stream.statistics().received >= len(items)


def test_through_the_servers_event_stream(sim: Sim) -> None:
    program = dspy.Predict(QA)
    program.set_lm(sim.lm(num_retries=0))
    sim.server.set_options(size=BIG)
    body = json.dumps({"question": "?"}).encode()
    with serving(create_app(program)) as live:
        reader = live.connect(rcvbuf=1 << 16)
        reader.sendall(live.request("POST", "/predict/stream", body, Content_Type="application/json"))
        start = reader.recv(4096)
        assert b"200 OK" in start
        taken, since = -1, time.monotonic()
        while time.monotonic() - since < 0.3:
            if (now := sim.server.bytes_taken) != taken:
                taken, since = now, time.monotonic()
            time.sleep(0.01)
        assert taken < BIG
        everything = start + _rest(reader)
        reader.close()
    text, outputs = _parsed(everything)
    assert len(text) == BIG
    assert text == outputs["answer"]


def _rest(reader: socket.socket) -> bytes:
    reader.settimeout(30)
    parts = []
    while part := reader.recv(1 << 20):
        parts.append(part)
        if part.endswith(b"0\r\n\r\n"):
            break
    return b"".join(parts)


def _parsed(reply: bytes) -> tuple[str, Any]:
    """The tokens joined, and the prediction, of a chunked reply of server-sent events."""
    at = reply.index(b"\r\n\r\n") + 4
    parts = []
    while at < len(reply):
        end = reply.index(b"\r\n", at)
        size = int(reply[at:end], 16)
        parts.append(reply[end + 2 : end + 2 + size])
        at = end + size + 4
    text, outputs, name = [], None, b""
    for line in b"".join(parts).splitlines():
        if line.startswith(b"event: "):
            name = line[7:]
        elif line.startswith(b"data: ") and name == b"token":
            text.append(json.loads(line[6:])["text"])
        elif line.startswith(b"data: ") and name == b"prediction":
            outputs = json.loads(line[6:])["outputs"]
            name = b""
    return "".join(text), outputs
