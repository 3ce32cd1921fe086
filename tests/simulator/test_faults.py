"""Every fault of the simulated LM, as a client sees it."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import pytest
from tests.simulator.wire import Answer, ask, chat, connected, until

from dspy_live.simulator import Faults, Simulator
from dspy_live.simulator.faults import ALL


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator(seed=1) as simulator:
        yield simulator


async def faulty(sim: Simulator, fault: str, stream: bool = True, **more: Any) -> Answer:
    options = {"fault": fault, **more}
    return await ask(sim.url, chat(stream, stream_options={"include_usage": True}, sim=options))


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ("400", 400, None),
        ("401", 401, "invalid_api_key"),
        ("429", 429, "rate_limit_exceeded"),
        ("500", 500, None),
        ("503", 503, "overloaded"),
        ("context", 400, "context_length_exceeded"),
        ("no_stream_options", 400, "unknown_parameter"),
    ],
)
async def test_a_refusal(sim: Simulator, fault: str, status: int, code: str | None) -> None:
    answer = await faulty(sim, fault, retry_after=0.25)
    assert answer.status == status
    assert answer.json()["error"]["code"] == code
    assert answer.headers.get("retry-after") == ("0.25" if fault in ("429", "503") else None)
    assert sim.stats.faults == {fault: 1}


async def test_stream_options_are_refused_only_where_they_are(sim: Simulator) -> None:
    answer = await ask(sim.url, chat(True, sim={"fault": "no_stream_options"}))
    assert answer.status == 200
    assert answer.text()


async def test_html(sim: Simulator) -> None:
    answer = await faulty(sim, "html")
    assert answer.status == 502
    assert answer.headers["content-type"] == "text/html"
    assert answer.body.startswith(b"<!doctype html>")


@pytest.mark.parametrize("stream", [True, False])
async def test_cut_before_the_head(sim: Simulator, stream: bool) -> None:
    with pytest.raises(ConnectionError):
        await faulty(sim, "cut_start", stream)
    assert sim.stats.disconnects == 0, "it was not the client who left"


@pytest.mark.parametrize("stream", [True, False])
async def test_cut_in_the_middle(sim: Simulator, stream: bool) -> None:
    answer = await faulty(sim, "cut", stream, after=4)
    assert answer.status == 200
    assert not answer.whole
    if stream:
        assert len(answer.events()) == 1 + 4
    assert sim.stats.disconnects == 0
    assert sim.stats.models["m"].unreported_replies == 1


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("fault", ["stall_start", "stall"])
async def test_silence_until_the_client_leaves(sim: Simulator, fault: str, stream: bool) -> None:
    async with connected(sim.url) as client:
        await client.send("POST", "/v1/chat/completions", chat(stream, sim={"fault": fault, "after": 3}))
        seen = await client.reader.read(10) if fault == "stall" else b""
        wanted = 4 if stream and fault == "stall" else 0
        while seen.count(b'"content":"') < wanted:
            seen += await client.reader.read(65536)
        await until(lambda: sim.stats.active == 1)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.1):
                while part := await client.reader.read(65536):
                    seen += part
                raise AssertionError("the stalled reply ended")
        assert sim.stats.active == 1
        assert seen.count(b'"content":"') == wanted or not stream
    await until(lambda: sim.stats.active == 0)
    assert sim.stats.disconnects == 1


@pytest.mark.parametrize("fault", ["stall_start", "stall"])
async def test_silence_for_a_while(sim: Simulator, fault: str) -> None:
    begun = asyncio.get_running_loop().time()
    answer = await faulty(sim, fault, stall=0.05)
    assert asyncio.get_running_loop().time() - begun >= 0.049
    assert answer.events()[-1] == "[DONE]"


async def test_a_malformed_chunk(sim: Simulator) -> None:
    answer = await faulty(sim, "malformed", after=3)
    events = answer.events()
    broken = [number for number, event in enumerate(events[:-1]) if isinstance(event, str)]
    assert broken == [4]
    assert events[-1] == "[DONE]"
    with pytest.raises(ValueError, match="line 1"):
        (await faulty(sim, "malformed", stream=False)).json()


async def test_an_error_in_the_stream(sim: Simulator) -> None:
    events = (await faulty(sim, "error_in_stream", after=3)).events()
    assert events[4]["error"]["type"] == "server_error"
    assert events[5:] == ["[DONE]"]
    answer = await faulty(sim, "error_in_stream", stream=False)
    assert answer.status == 200
    assert answer.json()["error"]["type"] == "server_error"
    assert sim.stats.models["m"].replies == 0


async def test_without_done_and_without_usage(sim: Simulator) -> None:
    answer = await faulty(sim, "no_done")
    assert answer.whole
    assert answer.events()[-1]["usage"]
    events = (await faulty(sim, "no_usage")).events()
    assert events[-1] == "[DONE]"
    assert all("usage" not in event for event in events[:-1])
    assert "usage" not in (await faulty(sim, "no_usage", stream=False)).json()
    assert sim.stats.models["m"].unreported_replies == 2


@pytest.mark.parametrize("stream", [True, False])
async def test_dripping_changes_nothing_but_the_pieces(sim: Simulator, stream: bool) -> None:
    whole = await ask(sim.url, chat(stream, sim={"length": 6}))
    async with connected(sim.url) as client:
        await client.send("POST", "/v1/chat/completions", chat(stream, sim={"length": 6, "fault": "drip"}))
        dripped = await client.receive()
    if stream:
        assert dripped.text() == whole.text()
    else:
        assert dripped.json()["choices"] == whole.json()["choices"]


CHAT_PROMPT = [
    {
        "role": "system",
        "content": "Your output fields are:\n1. `reasoning` (str): \n2. `answer` (str): \n"
        "All interactions will be structured in the following way, with the appropriate values filled in.\n\n"
        "[[ ## reasoning ## ]]\n{reasoning}\n\n[[ ## answer ## ]]\n{answer}\n\n[[ ## completed ## ]]\n",
    },
    {
        "role": "user",
        "content": "[[ ## question ## ]]\nWhy?\n\nRespond with the corresponding output fields, starting with "
        "the field `[[ ## reasoning ## ]]`, then `[[ ## answer ## ]]`, and then ending with the marker for "
        "`[[ ## completed ## ]]`.",
    },
]


async def test_broken_formats(sim: Simulator) -> None:
    async def text(fault: str | None, **more: Any) -> str:
        body = {"messages": CHAT_PROMPT, "sim": {"fault": fault, **more}}
        return str((await ask(sim.url, body)).json()["choices"][0]["message"]["content"])

    assert "[[ ## answer ## ]]" in await text(None)
    assert "[[ ##" not in await text("wrong_format")
    missing = await text("missing_field")
    assert "[[ ## reasoning ## ]]" in missing
    assert "[[ ## answer ## ]]" not in missing
    assert await text("empty") == ""
    assert "[[ ## answer ## ]]" in await text("wrong_format", only="json")
    assert "[[ ##" not in await text("wrong_format", only="chat")


async def test_a_schedule_then_rates_and_a_change_at_run_time(sim: Simulator) -> None:
    sim.set_faults(Faults(schedule=("429", None, "500")))
    assert [(await ask(sim.url, chat())).status for _ in range(4)] == [429, 200, 500, 200]
    assert (await ask(sim.url, {"rates": {"503": 1.0}}, "/faults")).status == 200
    assert (await ask(sim.url, chat())).status == 503
    assert (await ask(sim.url, {"schedule": ["500"], "rates": {}}, "/faults")).status == 200
    assert [(await ask(sim.url, chat())).status for _ in range(2)] == [500, 200]
    assert (await ask(sim.url, {"rates": {"fire": 1.0}}, "/faults")).status == 400


@pytest.mark.parametrize("rates", [{"fire": 0.5}, {"429": -0.1}, {"429": 0.7, "500": 0.7}])
def test_impossible_faults_are_refused(rates: dict[Any, float]) -> None:
    with pytest.raises(ValueError, match="fault"):
        Faults(rates)


def test_rates_are_kept() -> None:
    faults = Faults.every(0.3, but=("drip",))
    drawn = Counter(faults.draw(number, Random(number)) for number in range(4000))
    assert set(drawn) - {None} == set(ALL) - {"drip"}
    assert 0.25 < 1 - drawn[None] / 4000 < 0.35
