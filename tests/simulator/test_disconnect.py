"""What the simulator sees when clients leave, read slowly, or are many."""

from __future__ import annotations

import asyncio
import tracemalloc

from tests.simulator.wire import chat, connected, until
from tests.support.held_simulator import HeldSimulator

from dspy_live.simulator import Simulator


async def test_a_client_that_leaves_gets_nothing_more() -> None:
    async with Simulator(tokens_per_second=200, length=20_000) as sim:
        async with connected(sim.url) as client:
            await client.send("POST", "/v1/chat/completions", chat(True))
            await client.head()
            seen = 0
            async for part in client.chunks():
                seen += b'"content":"' in part
                if seen == 10:
                    break
        await until(lambda: sim.stats.active == 0)
        written = sim.stats.bytes
        await asyncio.sleep(0.05)
        assert sim.stats.bytes == written, "no chunk after it was noticed"
        gone = sim.stats.left[-1]
    assert 0 < gone.tokens < 20_000, "the reply was not written to its end"
    assert sim.stats.disconnects == 1
    assert sim.stats.models["m"].unreported_completion_tokens == gone.tokens


async def test_a_reader_that_stops_holds_the_reply_back_and_nothing_is_missing() -> None:
    size = 30_000_000
    async with Simulator() as sim:
        async with connected(sim.url) as client:
            tracemalloc.start()
            await client.send("POST", "/v1/chat/completions", chat(True, sim={"size": size}))
            await client.head()
            await until(lambda: any(connection.full for connection in sim._connections))
            held = sim.bytes_taken
            for _ in range(100):  # turns of the loop that the server runs on
                await asyncio.sleep(0)
            assert sim.bytes_taken - held < 1_000_000
            assert held < size / 2
            text = 0
            async for part in client.chunks():
                text += part.count(b" ") and len(part)
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        assert text > size
        assert peak < 5_000_000, "the reply is never in memory as a whole"
        assert sim.stats.models["m"].unreported_completion_tokens >= size // 4 - 4096


async def test_hundreds_of_paced_streams_at_once() -> None:
    async with HeldSimulator(ttft=0.05, tokens_per_second=100, jitter=0.5, length=20) as sim:

        async def one() -> int:
            async with connected(sim.url) as client:
                await client.send("POST", "/v1/chat/completions", chat(True))
                return len((await client.receive()).events())

        asking = asyncio.gather(*(one() for _ in range(300)))
        await until(lambda: len(sim.held) == 300)
        sim.release()
        assert set(await asking) == {1 + 20 + 1 + 1}
        assert sim.stats.peak_active == 300
        assert sim.stats.active == 0


async def test_stopping_cuts_everybody() -> None:
    sim = Simulator()
    url = await sim.start()
    async with connected(url) as client:
        await client.send("POST", "/v1/chat/completions", chat(True, sim={"fault": "stall_start"}))
        await until(lambda: sim.stats.active == 1)
        await sim.stop()
        assert await client.reader.read() == b""
    assert sim.snapshot()["open_connections"] == 0
