"""Mistakes that are made often get an error that says what to write in their place."""

from __future__ import annotations

import inspect
from collections.abc import Coroutine
from typing import Any

import dspy
import pytest
from starlette.responses import StreamingResponse
from tests.programs.conftest import Sim

from dspy_live import Runtime, StreamListener, asyncify, streamify
from dspy_live.layers import Deadline, Limit, Retry

PROGRAM = dspy.Predict("question -> answer")


@pytest.mark.parametrize(
    ("listeners", "says"),
    [
        (["answer"], r"stream_listeners\[0\] is the text 'answer'.*write StreamListener\('answer'\)"),
        ([StreamListener("answer"), 7], r"stream_listeners\[1\] is 7, a int"),
        ([StreamListener], r"stream_listeners\[0\] is <class .*write StreamListener\('answer'\)"),
        (StreamListener("answer"), r"got StreamListener\(.* alone: write stream_listeners=\[listener\]"),
        ("answer", r"got the text 'answer' alone: write stream_listeners=\[StreamListener\('answer'\)\]"),
        (7, "list of StreamListener objects; got 7"),
    ],
)
def test_an_object_that_is_no_listener_is_refused_with_the_listener_to_write(listeners: Any, says: str) -> None:
    with pytest.raises(TypeError, match=says):
        streamify(PROGRAM, stream_listeners=listeners)


def test_listeners_may_come_in_any_collection() -> None:
    for listeners in ((StreamListener("answer"),), iter([StreamListener("answer")]), [], (), None):
        streamify(PROGRAM, stream_listeners=listeners)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        (["retry"], r"layers\[0\] is 'retry'; a layer is a function .*dspy_live\.layers\.Retry\("),
        ([Limit(3), "single-flight"], r"layers\[1\] is 'single-flight'.*dspy_live\.layers\.SingleFlight\("),
        ([Retry], r"layers\[0\] is the class Retry; a layer is an object of it: Retry\("),
        ("retry", r"layers= is a list of layers; got 'retry': write layers=\[dspy_live\.layers\.Retry\("),
        (Limit(3), r"layers= is a list of layers; got Limit\(3.*: write layers=\[Limit\(3"),
        (7, "layers= is a list of layers; got 7"),
    ],
)
def test_an_object_that_is_no_layer_is_refused_with_the_layer_to_write(layers: Any, says: str) -> None:
    for make in (
        Runtime,
        lambda layers: asyncify(PROGRAM, layers=layers),
        lambda layers: streamify(PROGRAM, layers=layers),
    ):
        with pytest.raises(TypeError, match=says):
            make(layers=layers)
    with pytest.raises(TypeError, match="lm_" + says.replace("write layers", "write lm_layers")):
        Runtime(lm_layers=layers)


def test_a_class_that_wraps_a_service_is_a_layer() -> None:
    class Logged:
        def __init__(self, service: Any) -> None:
            self.service = service

        async def __call__(self, call: Any, sink: Any) -> Any:
            return await self.service(call, sink)

    assert Runtime(layers=[Logged, Deadline(1)]).layers[0] is Logged


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Runtime(threads=8), r"Runtime\(\) has no option 'threads'; did you mean max_threads=\?"),  # type: ignore[call-arg]
        (lambda: Runtime(zzz=8), r"Runtime\(\) has no option 'zzz'; it has layers, lm_layers, account"),  # type: ignore[call-arg]
        (lambda: asyncify(PROGRAM, timeouts=8), r"asyncify\(\) has no option 'timeouts'; did you mean timeout=\?"),  # type: ignore[call-overload]
        (lambda: streamify(PROGRAM, listeners=[]), r"streamify\(\) .*did you mean stream_listeners=\?"),  # type: ignore[call-overload]
    ],
)
def test_an_unknown_option_is_refused_with_the_nearest_one(make: Any, says: str) -> None:
    with pytest.raises(TypeError, match=says):
        make()


def test_the_signatures_are_still_to_be_seen() -> None:
    assert "stream_listeners" in inspect.signature(streamify).parameters
    assert list(inspect.signature(Runtime).parameters)[:2] == ["layers", "lm_layers"]


async def test_a_plain_for_or_an_await_of_an_asynchronous_stream_says_what_to_write() -> None:
    stream = streamify(PROGRAM)(question="Why?")
    with pytest.raises(TypeError, match=r"read it with 'async for', or make it with .*async_streaming=False"):
        for _ in stream:  # type: ignore[attr-defined]
            pass
    with pytest.raises(TypeError, match=r"a stream is not awaited: .* asyncify"):
        await stream  # type: ignore[misc]


async def test_a_web_framework_takes_both_kinds_of_streams_for_what_they_are(sim: Sim) -> None:
    """Starlette asks whether a body is an ``AsyncIterable``; refusing a plain ``for`` must not change the answer."""
    with dspy.context(lm=sim.lm()):
        for asynchronous in (True, False):
            streamer = streamify(PROGRAM, None, [StreamListener("answer")], False, async_streaming=asynchronous)
            body = [part async for part in StreamingResponse(streamer(question="Why?")).body_iterator]  # type: ignore[arg-type]
            assert "".join(body)  # type: ignore[arg-type]


def test_a_loop_that_is_not_asyncios_is_named_as_the_cause() -> None:
    """Under trio a coroutine is driven without an asyncio loop, as here by hand."""

    def drive(step: Coroutine[Any, Any, Any]) -> None:
        try:
            step.send(None)
        finally:
            step.close()

    with pytest.raises(RuntimeError, match=r"asyncify needs a running asyncio event loop.*trio\.to_thread\.run_sync"):
        drive(asyncify(PROGRAM)(question="Why?"))
    with pytest.raises(RuntimeError, match=r"streamify needs a running asyncio event loop.*async_streaming=False"):
        drive(streamify(PROGRAM)(question="Why?").__anext__())
