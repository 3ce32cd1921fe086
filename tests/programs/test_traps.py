"""What goes wrong with DSPy 3.4.1's own functions, each told once, beside ours doing it right.

Each test asserts that DSPy's still fails: the day one of these fails there is the day to look whether a
workaround of ours can go.
"""

from __future__ import annotations

import asyncio
import collections
import gc
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import dspy
import httpx
import pydantic
import pytest
from dspy.clients import base_lm, model_metadata
from dspy.streaming import StatusMessage, StreamResponse
from tests.programs.conftest import MODEL, Sim
from tests.programs.programs import InParallel, Returns
from tests.support.held_simulator import HeldSimulator
from tests.support.until import async_until, until

import dspy_live
from dspy_live import LM, Parallel, Runtime, StatusMessageProvider, StreamListener, Tool, asyncify, streamify
from dspy_live.core.events import Restart
from dspy_live.observe.tracker import UsageTracker
from dspy_live.programs.internals import load_model_metadata
from dspy_live.simulator import Faults

QA = "question -> answer"
THEIRS = pytest.mark.filterwarnings("ignore")


def listen(**options: Any) -> Any:
    return dspy.streaming.StreamListener("answer", **options)


def theirs(program: Any, **options: Any) -> Any:
    options.setdefault("stream_listeners", [listen()])
    options.setdefault("is_async_program", True)
    return dspy.streamify(program, **options)


async def read(stream: Any, seconds: float = 30.0) -> list[Any]:
    items = []
    async with asyncio.timeout(seconds):
        async for item in stream:
            items.append(item)
    return items


def words(items: list[Any], field: str = "answer") -> str:
    """The text of a field after its last restart, from our items or DSPy's."""
    text: dict[Any, str] = {}
    for item in items:
        if isinstance(item, Restart):
            text.pop(item.lm_call, None)
        elif isinstance(item, StreamResponse) and item.signature_field_name == field:
            call = getattr(item, "lm_call", 0)
            text[call] = text.get(call, "") + item.chunk
    return "".join(text.values())


# Listeners


async def test_a_listener_works_once(sim: Sim) -> None:
    """#8425: a listener that is built once, as in a server, streams nothing on the second call."""
    stream = theirs(dspy.Predict(QA))
    with dspy.context(lm=sim.plain()):
        assert words(await read(stream(question="one")))
        assert words(await read(stream(question="two"))) == ""
    ours = streamify(dspy.Predict(QA), stream_listeners=[StreamListener("answer")])
    with dspy.context(lm=sim.lm()):
        for question in ("one", "two"):
            items = await read(ours(question=question))
            assert words(items) == items[-1].answer != ""


async def test_concurrent_calls_mix(sim: Sim) -> None:
    """#10307: the listener's state belongs to the program, so two users read each other's words."""
    sim.server.set_options(tps=400)

    async def right(stream: Any, i: int) -> bool:
        items = await read(stream(question=f"What is number {i}?"))
        return words(items) == items[-1].answer

    async def all_of(stream: Any) -> list[bool]:
        return await asyncio.gather(*(right(stream, i) for i in range(5)))

    with dspy.context(lm=sim.plain()):
        stream = theirs(dspy.Predict(QA), stream_listeners=[listen(allow_reuse=True)])
        # Calls that a machine has let come one after the other do not mix.
        tries = [all(await all_of(stream)) for _ in range(3)]
        assert not all(tries)
    with dspy.context(lm=sim.lm()):
        assert all(await all_of(streamify(dspy.Predict(QA), stream_listeners=[StreamListener("answer")])))


async def test_a_whole_field_in_one_chunk(sim: Sim) -> None:
    """#8211: a fast provider sends the whole reply in one chunk, and the listener drops it."""
    reply = {"text": "[[ ## answer ## ]]\nyes\n\n[[ ## completed ## ]]", "chunk": 1000}
    sim.server.next(**reply)
    with dspy.context(lm=sim.plain()):
        assert words(await read(theirs(dspy.Predict(QA))(question="?"))) == ""
    sim.server.next(**reply)
    with dspy.context(lm=sim.lm()):
        assert words(await read(streamify(dspy.Predict(QA))(question="?"))) == "yes"


async def test_one_character_at_a_time(sim: Sim, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen on a real server: with tokens of one character the marker of the next field leaks into this one."""
    monkeypatch.setattr("dspy_live.simulator.completion.pieces", list)
    text = "[[ ## answer ## ]]\nyes it is\n\n[[ ## score ## ]]\n7\n\n[[ ## completed ## ]]"
    program = dspy.Predict("question -> answer, score: int")
    sim.server.next(text=text)
    with dspy.context(lm=sim.plain()):
        assert "[[ ## score" in words(await read(theirs(program)(question="?")))
    sim.server.next(text=text)
    with dspy.context(lm=sim.lm()):
        assert words(await read(streamify(program)(question="?"))) == "yes it is"


@pytest.mark.parametrize(
    ("signature", "text", "they_say", "true"),
    [
        (
            "question -> answer, other",
            '{"answer": "a \\"q\\" \\u00e9", "other": "b"}',
            '\\"q\\" \\u00e9", "other"',
            'a "q" é',
        ),
        ("question -> answer", '{"answer" : "spaced", "x": 1}', None, "spaced"),
        ("question -> meta: dict, answer", '{"meta": {"answer": "inner"}, "answer": "outer"}', "inner", "outer"),
    ],
)
async def test_json_streams_values(sim: Sim, signature: str, text: str, they_say: str | None, true: str) -> None:
    """#8833: raw escapes and the following key come with the text; a key with a space before its colon is not
    found at all, and a nested key of the same name is taken for the field."""
    sim.server.next(text=text)
    with dspy.context(lm=sim.plain(), adapter=dspy.JSONAdapter()):
        said = words(await read(theirs(dspy.Predict(signature))(question="?")))
    assert said == "" if they_say is None else they_say in said
    sim.server.next(text=text)
    with dspy.context(lm=sim.lm(), adapter=dspy.JSONAdapter()):
        items = await read(streamify(dspy.Predict(signature))(question="?"))
    assert words(items) == items[-1].answer == true


async def test_subclasses_of_adapters(sim: Sim) -> None:
    """#8629: a subclass of ChatAdapter, with one message changed, can't be streamed at all."""

    class Polite(dspy.ChatAdapter):  # type: ignore[misc]
        def format_task_description(self, signature: Any) -> str:
            return f"Please. {super().format_task_description(signature)}"

    with dspy.context(lm=sim.plain(), adapter=Polite()), pytest.raises(ValueError, match="Unsupported adapter"):
        await read(theirs(dspy.Predict(QA))(question="?"))
    with dspy.context(lm=sim.lm(), adapter=Polite()):
        items = await read(streamify(dspy.Predict(QA))(question="?"))
    assert words(items) == items[-1].answer


async def test_cached_answers(sim: Sim) -> None:
    """An answer from the cache comes as one silent prediction, and the page stays empty until then."""
    stream = theirs(dspy.Predict(QA), stream_listeners=[listen(allow_reuse=True)])
    with dspy.context(lm=sim.plain(cache=True)):
        await read(stream(question="Is this cached for them?"))
        assert [type(i) for i in await read(stream(question="Is this cached for them?"))] == [dspy.Prediction]
    ours = streamify(dspy.Predict(QA))
    with dspy.context(lm=sim.lm(cache=True)):
        await read(ours(question="Is this cached for us?"))
        requests = sim.server.stats.requests
        items = await read(ours(question="Is this cached for us?"))
    assert sim.server.stats.requests == requests
    assert words(items) == items[-1].answer


# Ends


@THEIRS
async def test_a_program_that_returns_something_else(sim: Sim) -> None:
    """#8831: a program that returns a string, or a dict, never ends its stream."""

    class Async(Returns):
        async def aforward(self, question: str) -> Any:
            await self.ask.acall(question=question)
            return self.value

    with dspy.context(lm=sim.plain()), pytest.raises(TimeoutError):
        await read(theirs(Async("text"))(question="?"), 0.7)
    with dspy.context(lm=sim.lm()):
        assert (await read(streamify(Async("text"))(question="?")))[-1] == "text"


async def test_the_fallback_to_json(sim: Sim) -> None:
    """Without streaming ChatAdapter falls back to JSON when a reply lacks a field; with it the call fails."""
    program = dspy.Predict("question -> answer, score: int")
    sim.server.set_faults(Faults(schedule=("missing_field",)))
    with dspy.context(lm=sim.plain()):
        assert (await program.acall(question="?")).answer
    sim.server.set_faults(Faults(schedule=("missing_field",)))
    with dspy.context(lm=sim.plain()), pytest.raises(Exception, match="score"):
        await read(theirs(program)(question="?"))
    sim.server.set_faults(Faults(schedule=("missing_field",)))
    with dspy.context(lm=sim.lm()):
        items = await read(streamify(program)(question="?"))
    assert words(items) == items[-1].answer


@THEIRS
async def test_leaving_the_for(sim: Sim) -> None:
    """#9010, #10380: leaving the ``async for`` early cancels the caller's own task a moment later, and a cancel
    scope is left in another task than it was entered in."""
    # Long, for the collector below stops the simulated LM too, which then says at once what was due meanwhile.
    sim.server.set_options(tps=100, length=20_000)
    complaints: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(str(context)))

    async def use(stream: Any, seconds: float) -> str:
        async for _ in stream(question="?"):
            break
        gc.collect()
        await asyncio.sleep(seconds)
        return "untouched"

    with dspy.context(lm=sim.plain()):
        task = asyncio.create_task(use(theirs(dspy.Predict(QA)), 60))
        await async_until(lambda: task.cancelled() or "different task" in "".join(complaints))
        task.cancel()
        await asyncio.wait([task])
    gc.collect()
    await async_until(lambda: sim.server.stats.disconnects == 1)
    complaints.clear()
    with dspy.context(lm=sim.lm()):
        task = asyncio.create_task(use(streamify(dspy.Predict(QA)), 0.3))
        assert await task == "untouched"
    assert task.cancelling() == 0
    assert complaints == []
    await async_until(lambda: sim.server.stats.disconnects == 2)
    assert sim.server.stats.active == 0


@THEIRS
def test_leaving_a_synchronous_stream(sim: Sim) -> None:
    """#10406: a synchronous stream that is abandoned runs on, and the tokens are paid for."""
    sim.server.set_options(tps=60, length=20_000)

    def leave(stream: Any) -> None:
        for _ in stream(question="?"):
            break

    with dspy.context(lm=sim.plain()):
        leave(theirs(dspy.Predict(QA), is_async_program=False, async_streaming=False))
    time.sleep(0.3)
    assert (sim.server.stats.active, sim.server.stats.disconnects) == (1, 0)
    with dspy.context(lm=sim.lm()):
        leave(streamify(dspy.Predict(QA), async_streaming=False))
    until(lambda: sim.server.stats.disconnects == 1)
    assert (sim.server.stats.requests, sim.server.stats.active) == (2, 1)


# Status

_DEADLOCK = """
import asyncio, sys
import dspy
from dspy.streaming import StatusMessageProvider

async def step(n: int) -> int:
    return n

class Busy(dspy.Module):
    def __init__(self):
        super().__init__()
        self.tool = dspy.Tool(step)
    async def aforward(self, question):
        for n in range(20):
            await self.tool.acall(n=n)
        return dspy.Prediction(answer=question)

async def main():
    stream = dspy.streamify(Busy(), status_message_provider=StatusMessageProvider(), is_async_program=True)
    print("begun", flush=True)
    async for item in stream(question="q"):
        pass

asyncio.run(main())
"""


def _never_ends(code: str) -> bool:
    """True when the code, in a process of its own, says that it has begun and is not over a second later."""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
        assert child.stdout is not None
        try:
            assert child.stdout.readline() == b"begun\n"
            child.wait(1.0)
        except subprocess.TimeoutExpired:
            return True
        finally:
            child.kill()
    return False


async def test_the_seventeenth_status_message(sim: Sim) -> None:
    """#8934: with async tools, status messages block the loop that would read them; the 17th unread one for ever."""
    assert await asyncio.to_thread(_never_ends, _DEADLOCK)

    async def step(n: int) -> int:
        return n

    class Busy(dspy.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.tool = dspy.Tool(step)

        async def aforward(self, question: str) -> Any:
            for n in range(20):
                await self.tool.acall(n=n)
            return dspy.Prediction(answer=question)

    stream = streamify(Busy(), status_message_provider=StatusMessageProvider(), buffer=1)(question="q")
    await anext(stream)
    await asyncio.sleep(0.1)
    items = await read(stream)
    assert sum(isinstance(i, StatusMessage) for i in items) == 39
    assert items[-1].answer == "q"


@THEIRS
async def test_status_and_tokens_in_parallel(sim: Sim) -> None:
    """#9154: under ``dspy.Parallel`` every status message fails, and with them the LM calls themselves."""

    class Tells(dspy.streaming.StatusMessageProvider):  # type: ignore[misc]
        def lm_start_status_message(self, instance: Any, inputs: Any) -> str:
            return "asking"

    options = {"stream_listeners": [listen(allow_reuse=True)], "status_message_provider": Tells()}
    with dspy.context(lm=sim.plain()), pytest.raises(AttributeError):
        await read(theirs(InParallel(), is_async_program=False, **options)(question="?"))  # the answers are None
    with dspy.context(lm=sim.lm()):
        items = await read(streamify(InParallel(), status_message_provider=Tells())(question="?"))
    assert sum(getattr(i, "message", "") == "asking" for i in items) == 4
    assert len({i.lm_call for i in items if isinstance(i, StreamResponse)}) == 4  # type: ignore[attr-defined]
    assert all(items[-1].answers)


# Execution


async def test_asyncifys_limit() -> None:
    """A cancelled call's thread is abandoned and its slot given back at once: with a limit of 2, six run at once."""
    lock = threading.Lock()
    running = 0

    async def six(call_of: Any, expected: int) -> None:
        release = threading.Event()

        def blocks(question: str) -> str:
            nonlocal running
            with lock:
                running += 1
            release.wait(60)
            with lock:
                running -= 1
            return question

        call = call_of(blocks)
        for i in range(6):
            task = asyncio.create_task(call(question=str(i)))
            if i < expected:
                await async_until(lambda begun=i + 1: running == begun)
            else:
                await asyncio.sleep(0.02)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert running == expected
        release.set()
        await async_until(lambda: running == 0)

    with dspy.context(async_max_workers=2):
        await six(dspy.asyncify, 6)
    await six(lambda blocks: asyncify(blocks, runtime=Runtime(max_threads=2)), 2)


async def test_a_synchronous_tool(sim: Sim) -> None:
    """#10335: a synchronous tool inside an async program blocks the loop, and with it every other request."""

    async def gets_a_turn(tool_of: Any, seconds: float) -> bool:
        """True when the loop gets a turn within so many seconds while the tool blocks."""
        turn = threading.Event()

        def blocks(n: int) -> bool:
            return turn.wait(seconds)

        asyncio.get_running_loop().call_later(0.02, turn.set)
        return bool(await tool_of(blocks).acall(n=1))

    assert not await gets_a_turn(dspy.Tool, 0.15)
    assert await gets_a_turn(Tool, 30)


def test_a_straggler_is_asked_twice() -> None:
    """#9574: ``dspy.Parallel`` asks again what is slow (up to four times with nested calls), and pays for both."""
    asked: list[int] = []
    calls: list[int] = []
    options: dict[str, Any] = {"num_threads": 4, "timeout": 1, "disable_progress_bar": True}

    def until_asked_again(n: int) -> int:
        asked.append(n)
        until(lambda: len(asked) > 2)
        return n

    def slow(n: int) -> int:
        calls.append(n)
        time.sleep(1.3)
        return n

    dspy.Parallel(**options)([(until_asked_again, {"n": n}) for n in (1, 2)])
    assert len(asked) > 2
    Parallel(**options)([(slow, {"n": n}) for n in (1, 2)])
    assert sorted(calls) == [1, 2]


# Usage and history


def test_usage_in_parallel(sim: Sim) -> None:
    """#9201, #9360: each thread counts in a copy of the tracker that nobody reads."""
    pairs = [(dspy.Predict(QA), {"question": "a"}), (dspy.Predict(QA), {"question": "b"})]
    with dspy.context(lm=sim.plain()), dspy.track_usage() as tracker:
        dspy.Parallel(num_threads=2, disable_progress_bar=True)(pairs)
    assert tracker.get_total_tokens() == {}
    with dspy.context(lm=sim.lm()), dspy_live.track_usage() as ours, UsageTracker() as stats:
        dspy.Parallel(num_threads=2, disable_progress_bar=True)(pairs)
    assert ours.get_total_tokens()[MODEL]["total_tokens"] == stats.get_stats()["total_tokens"] > 0
    assert stats.get_stats()["api_calls"] == 2


def test_usage_of_nested_modules(sim: Sim) -> None:
    """#10191: only the outermost module's prediction knows what it has used."""
    seen: list[Any] = []

    class Outer(dspy.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.ask = dspy.Predict(QA)

        def forward(self, question: str) -> Any:
            prediction = self.ask(question=question)
            seen.append(prediction.get_lm_usage())
            return prediction

    with dspy.context(lm=sim.plain(), track_usage=True):
        Outer()(question="?")
    assert seen == [None]
    with dspy.context(lm=sim.lm()), UsageTracker() as stats:
        asyncio.run(asyncify(Outer())(question="?"))
    assert stats.get_stats()["by_predictor"]["ask"]["total_tokens"] > 0


def test_history_grows(sim: Sim) -> None:
    """#8604: the process keeps every prompt and answer in a list, of 10,000 entries by default."""
    from dspy_live.core.call import Call
    from dspy_live.core.sink import DISCARD
    from dspy_live.programs.run.program import ProgramService

    before = len(base_lm.GLOBAL_HISTORY)
    with dspy.context(lm=sim.plain()):
        for _ in range(3):
            dspy.Predict(QA)(question="?")
    assert len(base_lm.GLOBAL_HISTORY) == before + 3
    with dspy.context(lm=sim.lm()):
        service = ProgramService(dspy.Predict(QA), served=True)
        for _ in range(3):
            asyncio.run(service(Call({"question": "?"}), DISCARD))
    assert len(base_lm.GLOBAL_HISTORY) == before + 3


# Responses


class Place(pydantic.BaseModel):
    city: str


@pytest.mark.parametrize(
    ("item", "said"),
    [
        (StatusMessage("working"), '"working"'),
        (StreamResponse("self", "answer", "hi", False), "hi"),
        (dspy.Prediction(place=Place(city="Bern")), '"Bern"'),
    ],
)
async def test_streaming_response_fails_on_dspys_own_items(item: Any, said: str) -> None:
    """#8213: ``streaming_response`` raises on status messages, on tokens, and on typed predictions."""

    async def one() -> Any:
        yield item

    with pytest.raises((ValueError, TypeError)):
        [line async for line in dspy.streaming.streaming_response(one())]
    lines = [line async for line in dspy_live.streaming_response(one())]
    assert said in lines[0]
    assert lines[-1] == "data: [DONE]\n\n"


# Cache, retries, connections


def test_sync_and_async_have_two_keys(sim: Sim) -> None:
    """The same question, asked from synchronous and from asynchronous code, is paid for twice."""

    def asked(lm: Any, question: str) -> int:
        before = sim.server.stats.requests
        lm(question)
        asyncio.run(lm.acall(question))
        return sim.server.stats.requests - before

    assert asked(sim.plain(cache=True), "Is it one for them?") == 2
    assert asked(sim.lm(cache=True), "Is it one for us?") == 1


def test_the_restricted_cache_deletes(tmp_path: Path) -> None:
    """DSPy's restricted cache deletes an entry that it does not know: opening it once so destroys others' work."""
    from dspy.clients.cache import Cache

    from dspy_live.programs.cache.store import ResponseCache

    options: dict[str, Any] = {
        "enable_disk_cache": True,
        "enable_memory_cache": False,
        "disk_cache_dir": str(tmp_path),
        "disk_size_limit_bytes": 1 << 20,
    }
    request, before = {"model": "x"}, dspy.cache
    plain = Cache(**options)
    plain.put(request, collections.OrderedDict(a=1))
    assert plain.get(request) == {"a": 1}
    try:
        dspy.cache = plain
        assert ResponseCache().stats()["entries"] == 1
        assert plain.get(request) == {"a": 1}
    finally:
        dspy.cache = before
    assert Cache(**options, restrict_pickle=True).get(request) is None
    assert plain.get(request) is None
    plain.disk_cache.close()


@THEIRS
def test_retries_multiply(sim: Sim) -> None:
    """An LM that retries once inside of something that tries twice is asked four times; with ours, twice."""
    from dspy_live.layers import Retry
    from dspy_live.sansio.limits.backoff import Backoff

    sim.server.set_options(fault="429", retry_after=0.01)
    with dspy.context(lm=sim.plain(num_retries=1)):
        for _ in range(2):
            with pytest.raises(Exception, match="429"):
                dspy.Predict(QA)(question="?")
    assert sim.server.stats.requests == 4
    runtime = Runtime(lm_layers=[Retry(tries=2, backoff=Backoff(base=0.01, cap=0.01), budget=None)])
    with dspy.context(lm=sim.lm(num_retries=1)), pytest.raises(Exception, match="429"):
        asyncio.run(asyncify(dspy.Predict(QA), runtime=runtime)(question="?"))
    assert sim.server.stats.requests == 6


@THEIRS
async def test_a_hundred_connections() -> None:
    """The default engine has at most 100 connections to an LM; the 101st call waits for another to end."""

    async def wait_at_once(lm_class: Any, expected: int) -> None:
        server = HeldSimulator(seed=1, length=3)
        with server.running() as url, dspy.context(lm=lm_class(MODEL, api_base=url, api_key="x", cache=False)):
            call = dspy.Predict(QA).acall
            calls = asyncio.gather(*(call(question=str(i)) for i in range(130)))
            await async_until(lambda: len(server.held) == expected)
            await asyncio.sleep(0.1)
            assert len(server.held) == expected
            server.release()
            assert len(await calls) == 130

    await wait_at_once(dspy.LM, 100)
    await wait_at_once(LM, 130)


@THEIRS
def test_the_first_price_lookup_asks_the_network(sim: Sim, monkeypatch: pytest.MonkeyPatch) -> None:
    """DSPy's first look at a model's capabilities or price fetches a table from a remote address, for up to 5 s."""
    asked: list[str] = []

    def refuse(request: Any, *_: Any, **__: Any) -> Any:
        asked.append(request.full_url)
        raise OSError("no network here")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.delenv("LITELLM_LOCAL_MODEL_COST_MAP")
    before = model_metadata._data
    monkeypatch.setattr(model_metadata, "_data", None)
    assert sim.plain().supports_function_calling
    assert len(asked) == 1
    monkeypatch.setattr(model_metadata, "_data", None)
    load_model_metadata()
    lm = LM("openai/gpt-4o", api_base=sim.url, api_key="x")
    assert lm.supports_function_calling
    assert asyncio.run(lm.acall("hello"))
    assert len(asked) == 1
    monkeypatch.setattr(model_metadata, "_data", before)


# Servers


def test_nobody_takes_uvicorns_exit_handler() -> None:
    """sse-starlette replaces uvicorn's exit handler when it is imported; our server does not need it."""
    code = (
        "import dspy_live.server, uvicorn, sys; "
        "print(uvicorn.Server.handle_exit.__module__, 'sse_starlette' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["uvicorn.server", "False"]


async def test_a_transport_in_memory_hides_disconnects(sim: Sim) -> None:
    """Over an ASGI transport in memory a client that leaves is never seen to: the whole answer is generated. What
    crosses a socket is tested over a socket."""
    from tests.server.support import serving

    from dspy_live import create_app

    program = dspy.Predict(QA)
    program.set_lm(sim.lm())
    app = create_app(program)
    sim.server.set_options(tps=200, length=20)

    async def leave(client: httpx.AsyncClient, url: str) -> None:
        async with client, client.stream("POST", url + "/predict/stream", json={"question": "?"}) as reply:
            async for piece in reply.aiter_bytes():
                if b"event: token" in piece:  # the first event comes before the LM was asked
                    break

    await leave(httpx.AsyncClient(transport=httpx.ASGITransport(app=app)), "http://127.0.0.1")
    assert (sim.server.stats.finished, sim.server.stats.disconnects) == (1, 0)
    sim.server.set_options(tps=200, length=20_000)  # so long that a busy machine sees the client leave before its end
    with serving(create_app(program)) as live:
        await leave(httpx.AsyncClient(timeout=30), live.url)
        await async_until(lambda: sim.server.stats.disconnects == 1)
    assert sim.server.stats.finished == 1
