"""The simulated LM's server speaks OpenAI's protocol: seen over a socket."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import AsyncIterator

import pytest
from tests.simulator.wire import QUESTION, ask, chat, connected
from tests.support.until import BOUND

from dspy_live.simulator import Simulator

USAGE = {"stream_options": {"include_usage": True}}


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator(seed=1) as simulator:
        yield simulator


async def test_a_plain_reply(sim: Simulator) -> None:
    answer = await ask(sim.url, chat())
    reply = answer.json()
    assert answer.status == 200
    assert reply["object"] == "chat.completion"
    assert "volcanoes" in reply["choices"][0]["message"]["content"]
    assert reply["choices"][0]["finish_reason"] == "stop"
    usage = reply["usage"]
    assert usage["prompt_tokens"] + usage["completion_tokens"] == usage["total_tokens"]


async def test_a_stream_says_the_same_and_counts_the_same(sim: Simulator) -> None:
    plain = (await ask(sim.url, chat())).json()
    answer = await ask(sim.url, chat(True, **USAGE))
    events = answer.events()
    assert answer.text() == plain["choices"][0]["message"]["content"]
    assert events[-1] == "[DONE]"
    assert events[-2]["choices"] == []
    assert events[-2]["usage"] == plain["usage"]
    assert events[-3]["choices"][0]["finish_reason"] == "stop"
    assert events[0]["choices"][0]["delta"]["role"] == "assistant"
    content = [e for e in events[:-1] if e["choices"] and e["choices"][0]["delta"].get("content")]
    assert len(content) == plain["usage"]["completion_tokens"]


async def test_a_stream_without_usage_reports_none(sim: Simulator) -> None:
    assert all("usage" not in event for event in (await ask(sim.url, chat(True))).events()[:-1])


async def test_the_seed_decides(sim: Simulator) -> None:
    async with Simulator(seed=1) as same, Simulator(seed=2) as other:
        texts = [(await ask(url, chat(True))).text() for url in (sim.url, same.url, other.url)]
    assert texts[0] == texts[1] != texts[2]


async def test_a_sampled_request_is_answered_differently_each_time(sim: Simulator) -> None:
    async def texts(url: str, **more: object) -> list[str]:
        return [(await ask(url, chat(True, **more))).text() for _ in range(3)]

    sampled = await texts(sim.url, temperature=1.0)
    assert len(set(sampled)) == 3
    async with Simulator(seed=1) as again:
        assert await texts(again.url, temperature=1.0) == sampled
    assert len(set(await texts(sim.url, temperature=1.0, seed=5))) == 1
    assert len(set(await texts(sim.url, temperature=0.0))) == 1


async def test_several_choices_take_turns(sim: Simulator) -> None:
    answer = await ask(sim.url, chat(True, n=3))
    plain = (await ask(sim.url, chat(n=3))).json()
    texts = [answer.text(index) for index in range(3)]
    assert texts == [choice["message"]["content"] for choice in plain["choices"]]
    assert len(set(texts)) == 3
    firsts = [e["choices"][0]["index"] for e in answer.events()[:-1] if e["choices"][0]["delta"].get("content")][:6]
    assert firsts == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
async def test_the_limit_cuts(sim: Simulator, name: str) -> None:
    plain = (await ask(sim.url, chat(**{name: 7}))).json()
    assert plain["choices"][0]["finish_reason"] == "length"
    assert plain["usage"]["completion_tokens"] == 7
    answer = await ask(sim.url, chat(True, **{name: 7}))
    assert answer.text() == plain["choices"][0]["message"]["content"]
    assert answer.events()[-2]["choices"][0]["finish_reason"] == "length"


async def test_logprobs(sim: Simulator) -> None:
    plain = (await ask(sim.url, chat(logprobs=True))).json()
    tokens = plain["choices"][0]["logprobs"]["content"]
    assert "".join(token["token"] for token in tokens) == plain["choices"][0]["message"]["content"]
    events = (await ask(sim.url, chat(True, logprobs=True))).events()
    assert "".join(e["choices"][0]["logprobs"]["content"][0]["token"] for e in events[1:-2]) == "".join(
        token["token"] for token in tokens
    )


TOOL = {
    "type": "function",
    "function": {
        "name": "lookup",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


async def test_tool_calls(sim: Simulator) -> None:
    plain = (await ask(sim.url, chat(tools=[TOOL]))).json()["choices"][0]
    call = plain["message"]["tool_calls"][0]
    assert plain["finish_reason"] == "tool_calls"
    assert plain["message"]["content"] is None
    assert call["function"]["name"] == "lookup"
    assert isinstance(json.loads(call["function"]["arguments"])["city"], str)

    answer = await ask(sim.url, chat(True, tools=[TOOL], **USAGE))
    deltas = [e["choices"][0]["delta"] for e in answer.events()[:-1] if e["choices"]]
    calls = [delta["tool_calls"][0] for delta in deltas if "tool_calls" in delta]
    assert calls[0]["id"] == call["id"]
    assert "".join(c["function"]["arguments"] for c in calls) == call["function"]["arguments"]

    after = [*QUESTION, {"role": "tool", "tool_call_id": call["id"], "content": "sun"}]
    assert (await ask(sim.url, {"messages": after, "tools": [TOOL]})).json()["choices"][0]["finish_reason"] == "stop"
    assert (
        not (await ask(sim.url, chat(tools=[TOOL], tool_choice="none")))
        .json()["choices"][0]["message"]
        .get("tool_calls")
    )


async def test_reasoning_comes_first_on_its_own_channel(sim: Simulator) -> None:
    plain = (await ask(sim.url, chat(sim={"reasoning": 12}))).json()
    answer = await ask(sim.url, chat(True, sim={"reasoning": 12}, **USAGE))
    deltas = [e["choices"][0]["delta"] for e in answer.events()[:-2]]
    keys = [next(iter(delta)) for delta in deltas[1:-1]]
    assert keys[:12] == ["reasoning_content"] * 12
    assert set(keys[12:]) == {"content"}
    assert (
        "".join(d.get("reasoning_content", "") for d in deltas) == plain["choices"][0]["message"]["reasoning_content"]
    )
    assert plain["usage"]["completion_tokens_details"]["reasoning_tokens"] == 12


async def test_options_by_marker_header_and_body(sim: Simulator) -> None:
    marked = [{"role": "user", "content": "Why? [sim length=9]"}]
    assert (await ask(sim.url, {"messages": marked})).json()["usage"]["completion_tokens"] == 9
    assert (await ask(sim.url, {"messages": marked}, X_Sim="length=10")).json()["usage"]["completion_tokens"] == 10
    both = {"messages": marked, "sim": {"length": 11}}
    assert (await ask(sim.url, both, X_Sim="length=10")).json()["usage"]["completion_tokens"] == 11
    answer = await ask(sim.url, {"messages": marked}, X_Sim="color=red")
    assert answer.status == 400
    assert "'color'" in answer.json()["error"]["message"]


async def test_the_next_requests_options(sim: Simulator) -> None:
    sim.next(text="[[ ## answer ## ]]\nExactly this\n\n[[ ## completed ## ]]")
    sim.next(fault="500")
    assert (await ask(sim.url, chat(True))).text().startswith("[[ ## answer ## ]]\nExactly this\n")
    assert (await ask(sim.url, chat())).status == 500
    assert (await ask(sim.url, chat())).status == 200
    assert (await ask(sim.url, {"length": 3}, "/next")).status == 200
    assert (await ask(sim.url, chat())).json()["usage"]["completion_tokens"] == 3


async def test_chunks_of_several_tokens(sim: Simulator) -> None:
    one = await ask(sim.url, chat(True))
    four = await ask(sim.url, chat(True, sim={"chunk": 4}))
    assert one.text() == four.text()
    assert len(four.events()) < len(one.events()) / 2


@pytest.mark.parametrize(
    "body",
    [
        b"{not json",
        b"[]",
        {"messages": []},
        {"messages": "hello"},
        {},
        {"messages": QUESTION, "n": 0},
        {"messages": QUESTION, "max_tokens": "many"},
        {"messages": QUESTION, "sim": {"fault": "earthquake"}},
        {"messages": QUESTION, "sim": {"tps": 0}},
    ],
)
async def test_a_bad_request_is_told(sim: Simulator, body: object) -> None:
    answer = await ask(sim.url, body)
    assert answer.status == 400
    assert answer.json()["error"]["message"]
    assert sim.stats.active == 0


async def test_other_routes(sim: Simulator) -> None:
    assert (await ask(sim.url, None, "/v1/models", "GET")).json()["data"][0]["id"] == "simulated"
    assert (await ask(sim.url, None, "/v1/chat/completions", "GET")).status == 405
    assert (await ask(sim.url, {}, "/v1/embeddings")).status == 404


async def test_a_key_is_wanted() -> None:
    async with Simulator(api_key="right") as sim:
        assert (await ask(sim.url, chat())).status == 401
        assert (await ask(sim.url, chat(), Authorization="Bearer wrong")).status == 401
        assert (await ask(sim.url, chat(), Authorization="Bearer right")).status == 200


async def test_a_connection_is_kept_and_requests_wait_their_turn(sim: Simulator) -> None:
    async with connected(sim.url) as client:
        for _ in range(3):
            await client.send("POST", "/v1/chat/completions", chat(True))
        await client.send("GET", "/v1/models")
        texts = [(await client.receive()).text() for _ in range(3)]
        assert (await client.receive()).json()["object"] == "list"
    assert len(set(texts)) == 1
    assert sim.stats.connections == 1


async def test_statistics_count_what_usage_said(sim: Simulator) -> None:
    first = (await ask(sim.url, chat())).json()["usage"]
    second = (await ask(sim.url, chat(True, **USAGE))).events()[-2]["usage"]
    silent = await ask(sim.url, chat(True))
    stats = (await ask(sim.url, None, "/stats", "GET")).json()
    served = stats["models"]["m"]
    assert served["total_tokens"] == first["total_tokens"] + second["total_tokens"]
    assert served["replies"] == 2
    assert served["unreported_replies"] == 1
    assert served["unreported_completion_tokens"] == len(silent.events()) - 3
    assert (stats["requests"], stats["finished"], stats["active"], stats["disconnects"]) == (3, 3, 0, 0)
    await ask(sim.url, None, "/reset")
    assert sim.stats.requests == 0


async def test_pace() -> None:
    async with Simulator(ttft=0.1, tokens_per_second=200, length=20) as sim:
        loop = asyncio.get_running_loop()
        async with connected(sim.url) as client:
            begun = loop.time()
            await client.send("POST", "/v1/chat/completions", chat(True))
            await client.head()
            first = loop.time() - begun
            times = [loop.time() async for _ in client.chunks()]
    # Lower bounds only: a busy machine may be late, the simulator must not be early.
    assert first >= 0.099
    assert times[-1] - begun >= 0.1 + 19 / 200 - 0.002


def test_it_runs_in_a_thread_for_code_without_a_loop() -> None:
    simulator = Simulator()
    with simulator.running() as url:
        request = urllib.request.Request(url + "/chat/completions", json.dumps(chat()).encode())
        with urllib.request.urlopen(request, timeout=BOUND) as reply:
            assert "volcanoes" in json.load(reply)["choices"][0]["message"]["content"]
    with pytest.raises(OSError):
        urllib.request.urlopen(request, timeout=BOUND)


def test_a_taken_port_is_told() -> None:
    with Simulator().running() as url, pytest.raises(OSError), Simulator().running(port=int(url.split(":")[2][:-3])):
        pass
