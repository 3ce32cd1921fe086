"""Parts of the transport for which a socket would be in the way."""

from __future__ import annotations

import gzip
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.runtime.http.clock import Clock

from dspy_live.runtime.http import decode
from dspy_live.runtime.http.connection import Connection
from dspy_live.runtime.http.decode import PIECE, decoder_for
from dspy_live.runtime.http.pool import Route
from dspy_live.runtime.http.silence import Silence, Timeouts
from dspy_live.runtime.http.tls import TlsOptions

ROUTE = Route("http", "lm.example", 80, None, TlsOptions())


class Wire:
    """A transport that goes nowhere."""

    def write(self, data: bytes) -> None:
        pass

    def abort(self) -> None:
        pass


class Notes:
    """A reader that writes down what it is told."""

    def __init__(self) -> None:
        self.body = b""
        self.ends = 0
        self.faults: list[str] = []

    def begin(self, status: int, headers: dict[str, str]) -> None:
        pass

    def received(self, data: bytes) -> None:
        self.body += data

    def finished(self) -> None:
        self.ends += 1

    def malformed(self, reason: str) -> None:
        self.faults.append(reason)

    def lost(self, reason: str, received: bool) -> None:
        self.faults.append(reason)


def test_framing_in_reads_of_its_own_never_adds_up_to_a_fault() -> None:
    """Some servers write a chunk's size, the chunk and its line end one by one; that is no huge head."""
    wire: Any = Wire()
    connection, notes = Connection(lambda connection: None, ROUTE), Notes()
    connection.connection_made(wire)
    connection.start(notes, b"", b"")
    connection.data_received(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    for _ in range(20_000):
        for piece in (b"1", b"\r\n", b"x", b"\r\n"):
            connection.data_received(piece)
    assert notes.body == b"x" * 20_000
    assert notes.faults == []


REPLIES = [
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\nt: 1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\nabcdefg",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nabcdefg",
]


def told(*pieces: bytes, end: bool = True) -> Notes:
    wire: Any = Wire()
    connection, notes = Connection(lambda connection: None, ROUTE), Notes()
    connection.connection_made(wire)
    connection.start(notes, b"", b"")
    for piece in pieces:
        connection.data_received(piece)
    if end:
        connection.eof_received()
        connection.connection_lost(None)
    return notes


def cut(data: bytes, *at: int) -> list[bytes]:
    return [data[start:end] for start, end in zip((0, *at), (*at, len(data)), strict=True)]


@pytest.mark.parametrize("reply", REPLIES)
def test_a_reply_is_the_same_at_every_two_split_points(reply: bytes) -> None:
    for first in range(len(reply) + 1):
        for second in range(first, len(reply) + 1):
            notes = told(*cut(reply, first, second))
            assert (notes.body, notes.ends, notes.faults) == (b"abcdefg", 1, []), (first, second)


@pytest.mark.parametrize("reply", REPLIES)
def test_a_reply_that_ends_early_is_lost_at_every_byte(reply: bytes) -> None:
    for at in range(len(reply)):
        notes = told(reply[:at])
        assert (notes.ends, len(notes.faults)) == (0, 1), at
        assert b"abcdefg".startswith(notes.body)


@settings(max_examples=500)
@given(
    st.lists(
        st.binary(max_size=20)
        | st.sampled_from([b"HTTP/1.1 200 OK\r\n", b"\r\n", b"transfer-encoding: chunked\r\n", b"content-length: 3\r\n",
                           b"HTTP/1.1 100 C\r\n", b"3\r\nabc\r\n", b"0\r\n\r\n", b"connection: close\r\n", *REPLIES]),
        max_size=8,
    ),
    st.booleans(),
)  # fmt: skip
def test_any_bytes_end_in_one_word_to_the_reader_and_no_exception(pieces: list[bytes], whole: bool) -> None:
    notes = told(*([b"".join(pieces)] if whole else pieces))
    assert notes.ends + len(notes.faults) == 1


def watch(clock: Clock, **limits: float) -> tuple[Silence, list[tuple[bool, float, float]]]:
    fired: list[tuple[bool, float, float]] = []
    silence = Silence(clock, Timeouts(**limits), lambda first, limit: fired.append((first, limit, clock.now)))
    return silence, fired


def test_one_timer_serves_any_number_of_pieces(clock: Clock) -> None:
    silence, fired = watch(clock, idle=5)
    silence.start()
    for _ in range(1000):
        silence.heard()
        clock.pass_time(0.1)
    assert not fired
    assert clock.armed < 25
    clock.pass_time(10)
    assert [(first, limit, round(now, 3)) for first, limit, now in fired] == [(False, 5, 104.9)]


def test_the_first_byte_and_the_idle_limit_follow_each_other(clock: Clock) -> None:
    silence, fired = watch(clock, first_byte=60, idle=5)
    silence.start()
    clock.pass_time(10)
    silence.heard()
    clock.pass_time(4.9)
    assert not fired
    clock.pass_time(1)
    assert fired == [(False, 5, 15)]
    silence, fired = watch(clock, first_byte=60, idle=5)
    silence.start()
    clock.pass_time(100)
    assert [f[:2] for f in fired] == [(True, 60)]


def test_bytes_while_the_timer_is_stopped_start_no_timer(clock: Clock) -> None:
    silence, fired = watch(clock, first_byte=1, idle=1)
    silence.start()
    silence.stop()
    silence.heard()
    clock.pass_time(10)
    assert not fired
    silence.start()
    clock.pass_time(0.5)
    assert not fired
    clock.pass_time(1)
    assert fired == [(False, 1, 11)]


@pytest.mark.parametrize("extra", range(-3, 4))
def test_unpacking_gives_all_at_any_size_and_any_cut(extra: int) -> None:
    plain = b"ab" * (PIECE // 2 * 3) + b"x" * max(0, extra)
    plain = plain[: len(plain) + min(0, extra)]
    packed = gzip.compress(plain)
    for cut in range(1, len(packed), max(1, len(packed) // 50)):
        decoder = decoder_for("gzip")
        assert decoder is not None
        out = b""
        for part in (packed[:cut], packed[cut:]):
            decoder.feed(part)
            while piece := decoder.take():
                assert len(piece) <= PIECE
                out += piece
        assert out == plain
        assert decoder.empty
        assert decoder.whole


def test_bytes_that_zlib_holds_back_are_taken_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A piece may end in the middle of a repetition whose code was the last of the input."""
    monkeypatch.setattr(decode, "PIECE", 64)
    for times in range(1, 300):
        plain = b"ddbbccddb" * times
        packer = zlib.compressobj(wbits=-15)
        decoder = decoder_for("deflate")
        assert decoder is not None
        decoder.feed(packer.compress(plain) + packer.flush())
        assert b"".join(iter(decoder.take, b"")) == plain
        assert decoder.empty
