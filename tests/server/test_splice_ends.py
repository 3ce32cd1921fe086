"""Every way in which a spliced stream may end, or be silent, but for its own end."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Any, ClassVar

import dspy
import pytest
from tests.server.splice_lm import Answerer, ScriptedLM, compiled, leap, plain_loops, served, served_by, splicer
from tests.server.test_access_log import Lines
from tests.server.test_splice import pieces, read, stream
from tests.server.test_splice_clients import STEPS, TEXT, Holding, ask, body, held, received
from tests.support.until import BOUND, until

from dspy_live.observe.logs import reset_logging, setup_logging
from dspy_live.programs.run.run import Run
from dspy_live.server.transport.connection import _shared
from dspy_live.server.transport.exchange import Exchange

END = b"\r\n0\r\n\r\n"
"""What ends a chunked reply."""


@contextmanager
def silent(on: bool, **options: Any) -> Iterator[str]:
    """What a client reads of a stream whose LM falls silent while it is spliced, if ``on``."""
    with held(on, **options) as (lm, live, client):
        leap(live, 30)
        yield body(received(client, END))
        until(lambda: lm.open == 0)
        if (ours := splicer(live)) is not None:
            assert ours.passed > 20
            assert len(ours) == 0


def both_silent(**options: Any) -> str:
    """The same, spliced and not, whose events are equal."""
    with plain_loops(), silent(True, **options) as one, silent(False, **options) as other:
        assert read(one)[1:] == read(other)[1:]
        return one


@pytest.mark.parametrize("option", ["timeout", "idle_timeout"])
def test_an_lm_that_is_silent_for_too_long_is_an_error_event(option: str) -> None:
    text = both_silent(**{option: 20.0})
    assert "event: error" in text


@pytest.mark.parametrize("option", ["timeout", "idle_timeout"])
def test_a_stream_is_not_silent_while_its_words_pass_by_python(option: str) -> None:
    """Between the first and the last word passes more time than any silence may last."""
    steps = Holding().script
    slow = [
        part for step in steps if isinstance(step, bytes) for part in (step, lambda: asyncio.run(asyncio.sleep(0.01)))
    ]
    with compiled(True), ScriptedLM(slow) as lm, served(lm, dspy.ChatAdapter(), **{option: 1.0}) as live:
        until(lambda: "event: prediction" in stream(live))  # this process may stand still for longer than that
        ours = splicer(live)
        assert ours is not None
        assert ours.passed > 60


@pytest.mark.parametrize("on", [True, False])
def test_a_silent_stream_has_heartbeats_and_goes_on(on: bool) -> None:
    with held(on) as (lm, live, client):

        async def beat() -> None:
            (stream,) = live.app.pulse._streams
            stream.beat()
            stream.beat()

        asyncio.run_coroutine_threadsafe(beat(), live.loop).result(BOUND)
        lm.go.set()
        text = body(received(client, END))
    assert text.count(": keep-alive") == 1
    assert read(text)[1]["answer", 1] == ("word " * 80).strip()
    numbers = read(text)[0]
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize("on", [True, False])
def test_a_run_whose_time_is_up_says_so_and_its_lm_sees_it(on: bool) -> None:
    with plain_loops(), held(on, {"timeout": 20.0}) as (lm, live, client):
        leap(live, 30)
        text = body(received(client, END))
        until(lambda: lm.open == 0)
    assert "event: error" in text
    numbers = read(text)[0]
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize("on", [True, False])
def test_a_server_that_stops_lets_a_stream_end(on: bool) -> None:
    with held(on) as (lm, live, client):
        live.loop.call_soon_threadsafe(lambda: [c.shutdown() for state in _shared for c in list(state.connections)])
        lm.go.set()
        data = received(client, b"never")
    assert read(body(data))[1]["answer", 1] == ("word " * 80).strip()


class LentConnection:
    """A client's connection that is lent, and closed while it is."""

    scope: ClassVar[dict[str, Any]] = {"method": "POST", "http_version": "1.1", "headers": []}
    writing_paused = False

    def __init__(self) -> None:
        self.written = b""
        self.is_closing = False

    def write(self, data: bytes) -> None:
        self.written += data

    def common_lines(self) -> bytes:
        return b""

    def lend(self) -> int:
        return 5

    def resume_reading(self) -> None:
        assert not self.is_closing


class Borrowing:
    """Takes a reply's socket, and gives it back with three bytes that were not sent."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        assert exchange.lend(self) == 5

    def take_back(self) -> None:
        self._exchange.returned(3, b"1\r\nx\r\n")

    def sent(self) -> int:
        return 3


def test_a_reply_whose_connection_is_closed_while_it_is_lent_takes_what_is_written() -> None:
    connection: Any = LentConnection()
    exchange = Exchange(connection, connection.scope, True)
    exchange.begin(200, [])
    Borrowing(exchange)
    assert exchange.sent_so_far() == 3
    connection.is_closing = True
    exchange.write(b"more")
    exchange.write(b"and more")
    assert exchange.sent_so_far() == 15


def test_what_was_not_sent_goes_out_before_what_is_written_next() -> None:
    connection: Any = LentConnection()
    exchange = Exchange(connection, connection.scope, True)
    exchange.begin(200, [])
    Borrowing(exchange)
    exchange.write(b"y")
    assert connection.written.endswith(b"\r\n\r\n1\r\nx\r\n1\r\ny\r\n")


@pytest.mark.parametrize("on", [True, False])
def test_the_access_log_has_all_bytes_and_the_usage(on: bool) -> None:
    lines = Lines()
    setup_logging("WARNING", json=True, stream=lines.stream)
    try:
        with compiled(on), ScriptedLM(STEPS) as lm:
            program = Answerer(dspy.ChatAdapter())
            with served_by(program, lm, {"access_log": 1.0}) as live:
                for number in range(3):
                    text = stream(live)
                    until(lambda: len(lines.of("dspy_live.access")) == number + 1)  # noqa: B023
                    line = lines.of("dspy_live.access")[number]
                    assert line["bytes"] == len(text.encode())
                    assert line["tokens"] == 12  # of the usage that the LM has told
    finally:
        reset_logging()


def said_in(data: bytes) -> str:
    """The answer in the beginning of a reply, which may end within a chunk."""
    if not data.endswith(b"\n\n\r\n"):
        return ""
    return read(body(data + b"0\r\n\r\n"))[1].get(("answer", 1), "")


def test_what_a_left_stream_was_sent_is_in_the_access_log() -> None:
    sent = "".join(pieces(Random(4), TEXT)[:59])
    so_far = sent.partition("[[ ## answer ## ]]\n")[2].rstrip()
    assert so_far
    lines = Lines()
    setup_logging("WARNING", json=True, stream=lines.stream)
    try:
        with compiled(True), Holding() as lm, served_by(Answerer(dspy.ChatAdapter()), lm, {"access_log": 1.0}) as live:
            with live.connect() as client:
                client.sendall(ask(live))
                until(lambda: lm.steps == 61)
                found = splicer(live)
                assert found is not None
                ours = found
                until(lambda: len(ours) == 1)
                got = b""
                while said_in(got) != so_far:
                    got += client.recv(1 << 16)
            line = lines.one()
            lm.go.set()
    finally:
        reset_logging()
    assert line["bytes"] == len(body(got + b"0\r\n\r\n").encode())


@pytest.mark.parametrize("on", [True, False])
def test_a_run_whose_client_has_left_is_freed_without_the_garbage_collector(on: bool) -> None:
    """Its error kept its frames, and these the run: a thousand clients that left took 20 MB until a collection."""
    gc.collect()
    gc.disable()
    try:
        others = {id(found) for found in gc.get_objects() if type(found) is Run}  # of other tests
        with held(on) as (lm, _, client):
            runs = [weakref.ref(one) for one in gc.get_objects() if type(one) is Run and id(one) not in others]
            assert len(runs) == 1
            client.close()
            until(lambda: lm.open == 0)
            until(lambda: runs[0]() is None)
            lm.go.set()
    finally:
        gc.enable()
