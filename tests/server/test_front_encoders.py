"""The encoders of the chat front ends: every event has its bytes or none, and every wire stays well-formed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspy_live.core.errors import LMFailed, StreamBroken
from dspy_live.core.events import (
    Custom,
    Event,
    Partial,
    Predicted,
    Reasoning,
    Restart,
    Started,
    Status,
    TextDelta,
    Token,
    Tool,
    Usage,
)
from dspy_live.core.schema import Field, Schema
from dspy_live.server import encoders
from dspy_live.server.encoders.agui import AgentInput, AguiEncoder
from dspy_live.server.encoders.front import FrontEncoder
from dspy_live.server.encoders.mcp import McpEncoder
from dspy_live.server.encoders.responses import ResponseHead, ResponsesEncoder
from dspy_live.server.encoders.ui_stream import UiStreamEncoder
from dspy_live.server.runs.totals import RunTotals

SCHEMA = Schema(
    "S",
    (Field("question"),),
    (Field("reasoning"), Field("answer"), Field("score", type="int")),
    live={"answer": "p", "reasoning": "p"},
)
Stop = Callable[[StreamBroken], object]


def responses(stop: Stop) -> FrontEncoder:
    return ResponsesEncoder(ResponseHead("run", {"model": "m"}, None, hold=False), SCHEMA, RunTotals(), stop)


def ui(stop: Stop) -> FrontEncoder:
    return UiStreamEncoder("run", SCHEMA, RunTotals(), {})


def agui(stop: Stop) -> FrontEncoder:
    return AguiEncoder(AgentInput("t", "r", [], None, []), "run", SCHEMA, RunTotals())


def mcp(stop: Stop) -> FrontEncoder:
    return McpEncoder(1, "run", "token", RunTotals(), {}, modern=True)


MAKE = [responses, ui, agui, mcp]
ONE_OF_EACH: list[Event] = [
    Started("run"),
    Status("at work"),
    Token("a", "answer", "p", 1),
    Partial([1], "score", "p", 1),
    Restart("p", 9, "a retry"),
    Reasoning("hm", "p", 1),
    Tool("t", "call", "1", {"n": 1}),
    Tool("t", "result", "1", result={"n": 2}),
    Tool("t", "error", "2", result="ValueError: sk-secret-1234567890"),
    Usage("m", "p", 1),
    Custom("note", {"a": 1}),
    TextDelta("raw", 1, "p"),
]


def events_of(wire: bytes) -> list[Any]:
    text = wire.decode()
    assert text.endswith("\n\n") or not text
    datas = [line[6:] for line in text.split("\n") if line.startswith("data: ")]
    return [json.loads(data) for data in datas if data != "[DONE]"]


@pytest.mark.parametrize("make", MAKE)
def test_every_event_has_an_encoding(make: Callable[[Stop], FrontEncoder]) -> None:
    assert {type(event) for event in ONE_OF_EACH} == set(get_args(Event))
    encoder = make(lambda exc: None)
    wire = b"".join(encoder.encode(event) for event in ONE_OF_EACH)
    assert events_of(wire)
    assert b"sk-secret" not in wire


def test_every_encoder_of_events_is_exhaustive() -> None:
    """mypy then says where a new event is missing."""
    for path in Path(encoders.__path__[0]).glob("*.py"):
        source = path.read_text("utf-8")
        if "match event:" in source:
            assert "assert_never(event)" in source, path


@pytest.mark.parametrize("make", MAKE)
@pytest.mark.parametrize("at", range(len(ONE_OF_EACH) + 1))
def test_a_failure_at_any_point_closes_what_is_open(make: Callable[[Stop], FrontEncoder], at: int) -> None:
    encoder = make(lambda exc: None)
    wire = b"".join(encoder.encode(event) for event in ONE_OF_EACH[:at])
    events = events_of(wire + encoder.fail(LMFailed("it failed")))
    check_closed(make, events)
    assert "it failed" in json.dumps(events[-1])


def check_closed(make: Any, events: list[Any]) -> None:
    """What begins ends once, and nothing happens to what is not open."""
    starts = {
        ui: {"text-start": "text-end", "reasoning-start": "reasoning-end"},
        agui: {
            "TEXT_MESSAGE_START": "TEXT_MESSAGE_END",
            "REASONING_START": "REASONING_END",
            "REASONING_MESSAGE_START": "REASONING_MESSAGE_END",
            "TOOL_CALL_START": "TOOL_CALL_END",
        },
        responses: {"response.output_item.added": "response.output_item.done"},
        mcp: {},
    }[make]
    open_now: set[tuple[str, Any]] = set()
    for event in events:
        kind = event.get("type", "")
        where = event.get("id") or event.get("messageId") or event.get("toolCallId") or event.get("output_index")
        if kind == "reset-step":
            open_now.clear()
        elif kind in starts:
            assert (kind, where) not in open_now
            open_now.add((kind, where))
        elif kind in starts.values():
            (opened,) = [begin for begin, end in starts.items() if end == kind]
            open_now.remove((opened, where))
        elif kind in ("text-delta", "reasoning-delta"):
            assert (kind.replace("delta", "start"), where) in open_now
        elif kind in ("TEXT_MESSAGE_CONTENT", "REASONING_MESSAGE_CONTENT"):
            assert (kind.replace("CONTENT", "START"), where) in open_now
            assert event["delta"]
    assert not open_now


said = st.text(max_size=6)
calls = st.integers(1, 3)
things = st.one_of(
    st.builds(Token, said, st.sampled_from(["answer", "reasoning", "other"]), st.sampled_from(["p", "q"]), calls),
    st.builds(Reasoning, said, st.just("p"), calls),
    st.builds(Restart, st.just("p"), calls, said, st.sampled_from([(), ("answer",), ("reasoning",)])),
    st.builds(Partial, st.integers(), st.just("score"), st.just("p"), calls),
    st.builds(Tool, st.just("t"), st.sampled_from(["call", "result", "error"]), st.sampled_from("ab"), st.just({})),
    st.builds(Custom, st.just("note"), st.integers()),
    st.builds(Status, said),
)


def legal(events: list[Event]) -> list[Event]:
    """Tools are called once, and end once, as a program's do; the others may come in any order."""
    state: dict[str, str] = {}
    kept: list[Event] = []
    for number, event in enumerate(events):
        if isinstance(event, Tool):
            now = state.get(event.id, "none")
            if (event.stage == "call") != (now == "none") or now == "ended":
                continue
            state[event.id] = "called" if event.stage == "call" else "ended"
            event = msgspec.structs.replace(event, result=f"result {number}")
        kept.append(event)
    return kept


@pytest.mark.hypothesis
@given(st.lists(things, max_size=30), st.text(max_size=8), st.booleans())
def test_a_client_ends_with_the_programs_own_text(events: list[Event], answer: str, as_said: bool) -> None:
    """Whatever was said before it; a protocol that can't take words back may end the run instead."""
    events = legal(events)
    spoken = [e.text for e in events if isinstance(e, Token) and e.field == "answer" and e.predictor == "p"]
    answer = "".join(spoken) if as_said else answer
    result = Predicted({"reasoning": "why", "answer": answer, "score": 5})
    for make in (responses, ui, agui):
        stopped: list[StreamBroken] = []
        encoder = make(stopped.append)
        wire = encoder.opening() if isinstance(encoder, (ResponsesEncoder, UiStreamEncoder)) else b""
        wire += b"".join(encoder.encode(event) for event in events)
        if stopped:
            check_closed(make, events_of(wire + encoder.fail(stopped[0])))
            continue
        try:
            wire += encoder.finish(result)
        except StreamBroken as broken:
            assert make is responses
            check_closed(make, events_of(wire + encoder.fail(broken)))
            continue
        found = events_of(wire)
        check_closed(make, found)
        assert read(make, found) == (answer, 5 if make is not responses else None)


def read(make: Any, events: list[Any]) -> tuple[str, Any]:
    """The text and the score, as a client of the protocol puts them together."""
    if make is responses:
        deltas = "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
        message = next(item for item in events[-1]["response"]["output"] if item["type"] == "message")
        assert message["content"][0]["text"] == deltas
        return deltas, None
    text, score = "", None
    for event in events:
        match event["type"]:
            case "reset-step":
                text, score = "", None
            case "MESSAGES_SNAPSHOT":
                said = [m["content"] for m in event["messages"] if m["role"] == "assistant" and "content" in m]
                text = "".join(said)
            case "text-delta" | "TEXT_MESSAGE_CONTENT":
                text += event["delta"]
            case "data-score":
                score = event["data"]
            case "STATE_DELTA":
                score = event["delta"][0]["value"]
    return text, score
