"""The same restart at every door: those with events tell it, those that can't take words back end with an error."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dspy
import httpx
import pytest
from tests.programs.conftest import Sim
from tests.server.support import Live, serving
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from dspy_live import create_app, streamify
from dspy_live.cli.screens.run_screens import JsonLines, Terminal
from dspy_live.core.call import Call
from dspy_live.core.errors import StreamBroken
from dspy_live.core.events import Restart, Token
from dspy_live.programs.run.program import ProgramService
from dspy_live.runtime.scope import Scope


class Two(dspy.Module):  # type: ignore[misc]
    """Its first output is no text that a plain door shows."""

    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.Predict("question -> answer, score: int")

    def forward(self, question: str) -> Any:
        return self.ask(question=question)


def program_of(sim: Sim, **options: Any) -> Any:
    program = Two()
    program.set_lm(sim.lm(num_retries=2, **options))
    return program


@contextmanager
def served(program: Any) -> Iterator[Live]:
    with serving(create_app(program)) as live:
        yield live


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries without their wait."""
    from dspy_live.programs.lm import layers
    from dspy_live.sansio.limits.backoff import Backoff

    monkeypatch.setattr(layers, "_BACKOFF", Backoff(base=0.001, cap=0.001))


def strike(sim: Sim, fault: str) -> None:
    """Let the next reply go wrong; one that is cut, when some words of its first field are out.

    There are too many of them for one read of a socket, in which words and an error could come together.
    """
    long = {"after": 5000, "length": 6000} if fault in ("cut", "error_in_stream") else {}
    sim.server.next(fault=fault, **long)


def sse(live: Live, question: str = "What is Rust?") -> list[tuple[str, Any]]:
    events = []
    with httpx.stream("POST", f"{live.url}/predict/stream", json={"question": question}, timeout=30) as reply:
        name = ""
        for line in reply.iter_lines():
            if line.startswith("event: "):
                name = line[7:]
            elif line.startswith("data: ") and line != "data: [DONE]":
                events.append((name, json.loads(line[6:])))
    return events


def typed(live: Live, question: str = "What is Rust?") -> list[dict[str, Any]]:
    frames: list[dict[str, Any]] = []
    with connect(live.ws + "/ws") as socket:
        socket.send(json.dumps({"type": "start", "id": "a", "inputs": {"question": question}}))
        while not frames or frames[-1].get("event", frames[-1].get("type")) not in ("done", "error"):
            frames.append(json.loads(socket.recv(30)))
    return frames


def plain(live: Live, question: str = "What is Rust?") -> tuple[str, int]:
    """The text that came, and the close code; 0 where it ended well."""
    text = ""
    with connect(live.ws + "/ws") as socket:
        socket.send(question)
        try:
            while (piece := str(socket.recv(30))) != "[DONE]":
                text += piece
        except ConnectionClosed as closed:
            return text, closed.rcvd.code if closed.rcvd is not None else 1006
    return text, 0


def openai(live: Live, question: str = "What is Rust?") -> tuple[str, Any]:
    body = {"model": "Two", "stream": True, "messages": [{"role": "user", "content": question}]}
    text, error = "", None
    with httpx.stream("POST", f"{live.url}/v1/chat/completions", json=body, timeout=30) as reply:
        for line in reply.iter_lines():
            if line.startswith("data: {"):
                data = json.loads(line[6:])
                error = data.get("error", error)
                for choice in data.get("choices", ()):
                    text += choice["delta"].get("content") or ""
        if reply.status_code != 200:
            error = reply.status_code
    return text, error


def heard(events: list[Any]) -> dict[str, str]:
    """The text of each field that stands at the end."""
    texts: dict[tuple[int, str], str] = {}
    for event in events:
        if isinstance(event, Restart):
            void = [k for k in texts if k[0] == event.lm_call and (not event.fields or k[1] in event.fields)]
            for key in void:
                del texts[key]
        elif isinstance(event, Token):
            texts[event.lm_call, event.field] = texts.get((event.lm_call, event.field), "") + event.text
    return {field: text for (_, field), text in texts.items()}


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("fault", ["cut", "error_in_stream", "missing_field"])
def test_doors_with_events_tell_it(sim: Sim, fault: Any) -> None:
    with served(program_of(sim)) as live:
        strike(sim, fault)
        events = sse(live)
        names = [name for name, _ in events]
        assert "restart" in names
        begun = names.index("restart")
        assert "token" in names[:begun]
        restart = events[begun][1]
        assert (restart["predictor"], restart["lm_call"], restart["fields"]) == ("ask", 1, [])
        after = "".join(data["text"] for name, data in events[begun:] if name == "token" and data["field"] == "answer")
        assert after == dict(events)["prediction"]["outputs"]["answer"]
        strike(sim, fault)
        frames = typed(live)
        assert any(frame.get("event", frame.get("type")) == "restart" for frame in frames)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("fault", ["cut", "error_in_stream", "missing_field"])
@pytest.mark.parametrize("way", ["native", "thread", "inline"])
def test_a_door_that_has_given_words_out_ends(sim: Sim, fault: Any, way: Any) -> None:
    program = program_of(sim)

    service = ProgramService(program if way != "native" else program.ask, execution=way)
    printed = io.StringIO()

    async def follow() -> None:
        with Scope() as scope:
            await service(Call({"question": "What is Rust?"}), Terminal(scope, service.schema, printed))

    strike(sim, fault)
    with pytest.raises(StreamBroken, match=r"can't take .* words back") as broken:
        asyncio.run(follow())
    assert broken.value.status == 502
    assert printed.getvalue().strip() not in ("", "answer:")
    assert sim.server.stats.requests == 1  # nothing was asked again


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("fault", ["cut", "error_in_stream", "missing_field"])
def test_plain_websocket_openai_and_terminal_end_after_the_first_token(sim: Sim, fault: Any) -> None:
    program = program_of(sim)
    with served(program) as live:
        for door in (plain, openai):
            requests = sim.server.stats.requests
            strike(sim, fault)
            text, error = door(live)
            assert text
            assert error
            assert sim.server.stats.requests == requests + 1


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("fault", ["500", "cut_start", "wrong_format"])
def test_before_the_first_token_every_door_tries_again(sim: Sim, fault: Any) -> None:
    program = program_of(sim)
    with served(program) as live:
        answers = []
        for door in (plain, openai):
            strike(sim, fault)
            text, error = door(live)
            assert not error
            answers.append(text)
        strike(sim, fault)
        prediction = dict(sse(live))["prediction"]["outputs"]["answer"]
    assert answers == [prediction, prediction]


@pytest.mark.usefixtures("quick")
def test_words_that_a_plain_door_does_not_show_may_be_taken_back(sim: Sim) -> None:
    """It shows the last text; that the reasoning before it was begun again is nothing to it."""
    program = dspy.ChainOfThought("question -> answer")
    program.set_lm(sim.lm("openai/own-model", num_retries=2))
    with served(program) as live:
        whole = plain(live)
        strike(sim, "missing_field")
        text, code = plain(live)
    assert code == 0
    assert text
    assert whole[1] == 0


@pytest.mark.usefixtures("quick")
def test_the_terminal(sim: Sim) -> None:
    """``dspy-live stream``: words on a terminal stay; with ``--json`` the restart is an event."""
    program = program_of(sim)

    service = ProgramService(program)

    async def follow(make: Any) -> None:
        with Scope() as scope:
            screen = make(scope)
            screen.finish(await service(Call({"question": "What is Rust?"}), screen))

    strike(sim, "cut")
    out = io.StringIO()
    with pytest.raises(StreamBroken):
        asyncio.run(follow(lambda scope: Terminal(scope, service.schema, out)))
    assert "answer: " in out.getvalue()
    strike(sim, "cut")
    lines = io.StringIO()
    asyncio.run(follow(lambda scope: JsonLines(scope, lines)))
    names = [json.loads(line)["event"] for line in lines.getvalue().splitlines()]
    assert names.count("restart") == 1
    assert names[-1] == "prediction"


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("way", ["native", "thread", "inline"])
async def test_streamify_tells_it_and_the_end_is_right(sim: Sim, way: Any) -> None:
    """Every fault that can be made good, one after the other: what stands at the end is the prediction."""
    program = program_of(sim).ask
    for fault in ("cut", "error_in_stream", "missing_field", "wrong_format", "500", "cut_start", "no_done", "drip"):
        strike(sim, fault)
        items = [i async for i in streamify(program, execution=way)(question="What is Rust?")]
        texts: dict[tuple[int, str], str] = {}
        for item in items:
            if isinstance(item, Restart):
                texts = {k: v for k, v in texts.items() if k[0] != item.lm_call}
            elif isinstance(item, str):
                key = (item.lm_call, item.signature_field_name)  # type: ignore[attr-defined]
                texts[key] = texts.get(key, "") + item
        assert list(texts.values()) == [items[-1].answer], fault
