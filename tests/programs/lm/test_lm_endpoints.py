"""An LM's endpoints are services: what any service keeps, how a full sink pauses them, what they push."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
from collections.abc import Coroutine
from typing import Any

import pytest
from tests.programs.conftest import MODEL, Sim
from tests.support.until import async_until

from dspy_live import LM
from dspy_live.core.call import Call
from dspy_live.core.events import Completion, Event, Reasoning, TextDelta
from dspy_live.core.service import Service, compose
from dspy_live.core.sink import DISCARD
from dspy_live.programs.internals import CallResult, prepare
from dspy_live.programs.lm.dspy_endpoint import DspyEndpoint
from dspy_live.programs.lm.endpoints import endpoint_for
from dspy_live.programs.lm.layers import lm_layers
from dspy_live.programs.lm.openai_endpoint import AT_WORK, OpenAIEndpoint
from dspy_live.programs.lm.seam.lm_call import lm_call_of
from dspy_live.runtime.runtime import Runtime
from dspy_live.testing import Recorder, ServiceConformance, collect


def asked(lm: LM, **options: Any) -> tuple[Service, Call]:
    """An LM's endpoint, and the call that DSPy prepares for it."""
    prepared = prepare(lm, "What is Rust?", None, options)
    return endpoint_for(lm, lm_call_of(lm, prepared)), Call(prepared.legacy, model=lm.model)


class OnTheSimulatedLM(ServiceConformance):
    @pytest.fixture(autouse=True)
    def _simulated(self, sim: Sim) -> None:
        self.lm = self.make_lm(sim)

    def make_lm(self, sim: Sim) -> LM:
        return sim.lm()

    def make_service(self) -> Service:
        return asked(self.lm)[0]

    def make_call(self) -> Call:
        return asked(self.lm)[1]


class TestOpenAIEndpoint(OnTheSimulatedLM):
    def test_it_is_the_fast_path(self) -> None:
        assert isinstance(self.make_service(), OpenAIEndpoint)


# DSPy's engine forgets the connection that it was just making when it is cancelled.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning", "ignore:loop is closed:ResourceWarning")
class TestDspyEndpoint(OnTheSimulatedLM):
    def make_lm(self, sim: Sim) -> LM:
        return sim.lm(engine="lm15")

    def run(self, main: Coroutine[Any, Any, None]) -> None:
        super().run(main)
        gc.collect()  # here, where that warning is expected

    def test_it_is_dspys_engine(self) -> None:
        assert isinstance(self.make_service(), DspyEndpoint)


class TestLMAsAService(OnTheSimulatedLM):
    def make_service(self) -> Service:
        return self.lm.service()


class TestEndpointInsideOfAllLayers(OnTheSimulatedLM):
    def make_lm(self, sim: Sim) -> LM:
        return sim.lm(num_retries=2, first_token_timeout=30.0, idle_timeout=30.0)

    def make_service(self) -> Service:
        return compose(asked(self.lm)[0], lm_layers(self.lm, Runtime(), looked_up=True))


@pytest.mark.parametrize("engine", ["auto", "lm15"])
async def test_the_words_of_the_first_completion_are_pushed_and_the_whole_is_returned(sim: Sim, engine: str) -> None:
    endpoint, call = asked(sim.lm(engine=engine), n=2)
    *events, result = await collect(endpoint, call)
    text = "".join(event.text for event in events if isinstance(event, TextDelta))
    response = result.response
    if isinstance(response, CallResult):
        completions = response.outputs
    else:
        completions = [choice["message"]["content"] for choice in response["choices"]]
    assert len(completions) == 2
    assert text == completions[0]
    assert AT_WORK in events, "the second completion is work without words"


async def test_a_reply_without_a_stream_comes_at_once(sim: Sim) -> None:
    endpoint, call = asked(sim.lm())
    events = await collect(endpoint, call.but(stream=False))
    assert [type(event) for event in events] == [TextDelta, Completion]


TOOL = (
    b'data: {"id":"x","model":"m","choices":[{"index":0,"delta":{"tool_calls":'
    b'[{"index":0,"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}]}}]}\n\n'
)


def words(text: str, kind: str = "content") -> bytes:
    chunk = {"id": "x", "model": "m", "choices": [{"index": 0, "delta": {kind: text}}]}
    return f"data: {json.dumps(chunk)}\n\n".encode()


END = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


@contextlib.asynccontextmanager
async def streaming(*pieces: bytes) -> Any:
    """An LM whose stream is these pieces; its URL, and a queue that gets the transport of each connection."""
    connections: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        connections.put_nowait(writer)
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
        writer.close()

    async with asyncio.timeout(30), await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", connections


async def test_tool_calls_and_thoughts() -> None:
    async with streaming(words("hm", "reasoning_content"), TOOL, words("so"), END) as (url, _):
        endpoint, call = asked(LM(MODEL, api_base=url, api_key="k"))
        *events, _ = await collect(endpoint, call)
    merged: list[Event] = [Reasoning("hm", "", 0), AT_WORK, TextDelta("so")]
    assert events == merged


class Full:
    """A sink that is full until the test opens it, and counts."""

    def __init__(self) -> None:
        self.length = 0
        self.open = asyncio.Event()
        self.waited = asyncio.Event()
        self.waits = 0

    def push(self, event: Event) -> bool:
        self.length += len(event.text)  # type: ignore[union-attr]
        return self.open.is_set()

    async def room(self) -> None:
        self.waits += 1
        self.waited.set()
        await self.open.wait()


async def test_a_full_sink_stops_the_reading_of_the_socket_and_an_empty_one_starts_it() -> None:
    """A socket holds some megabytes at most; with 40 on the way the LM stands still while nobody reads."""
    text = "x" * 100_000
    async with streaming(*[words(text)] * 400, END) as (url, connections):
        endpoint, call = asked(LM(MODEL, api_base=url, api_key="k"))
        sink = Full()
        task = asyncio.create_task(_call(endpoint, call, sink))
        writer = await connections.get()
        await sink.waited.wait()
        before, written = sink.length, -1
        while (now := writer.transport.get_write_buffer_size()) != written or not now:
            written = now
            await asyncio.sleep(0.02)
        assert sink.length == before < 1_000_000
        assert sink.waits == 1
        sink.open.set()
        result = await task
    assert sink.length == 40_000_000
    assert len(result.response["choices"][0]["message"]["content"]) == 40_000_000
    assert sink.waits == 1


async def test_cancelling_a_paused_call_closes_its_socket() -> None:
    async with streaming(*[words("x" * 100_000)] * 400, END) as (url, connections):
        endpoint, call = asked(LM(MODEL, api_base=url, api_key="k"))
        sink = Full()
        task = asyncio.create_task(_call(endpoint, call, sink))
        writer = await connections.get()
        await sink.waited.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def test_no_task_wakes_while_words_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wake-up per token was half of what a token cost."""
    from dspy_live.runtime.http.condition import Condition

    waits = 0
    promise = Condition.promise

    def counted(self: Condition) -> asyncio.Future[None]:
        nonlocal waits
        waits += 1
        return promise(self)

    async def one_by_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        for n in range(20):
            writer.write(words(f"word {n}"))
            await async_until(lambda came=n + 1: len(recorder.events) == came)
        writer.write(END)
        writer.close()

    monkeypatch.setattr(Condition, "promise", counted)
    recorder = Recorder()
    async with await asyncio.start_server(one_by_one, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        endpoint, call = asked(LM(MODEL, api_base=url, api_key="k"))
        await endpoint(call, recorder)
    assert recorder.events == [TextDelta(f"word {n}") for n in range(20)]
    assert 1 <= waits <= 2, "one for the head, one for the end"


async def test_an_endpoint_that_fails_in_its_sink_fails_with_that(sim: Sim) -> None:
    class Breaks:
        def push(self, event: Event) -> bool:
            raise LookupError("a bug of the sink's own")

        async def room(self) -> None: ...

    endpoint, call = asked(sim.lm())
    with pytest.raises(LookupError, match="a bug"):
        await endpoint(call, Breaks())
    assert isinstance(await endpoint(call, DISCARD), Completion), "the next call goes on"


async def _call(service: Service, call: Call, sink: Any) -> Any:
    return await service(call, sink)
