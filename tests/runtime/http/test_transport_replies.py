"""Replies of every framing, over real sockets, in pieces of any size."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from typing import Any

import pytest
from tests.runtime.http.peer import CHUNKED, END, Peer, chunk, reply

from dspy_live.runtime.http.transport import (
    BodyTooLarge,
    ConnectionBroken,
    HttpPool,
    ProtocolError,
    Redirected,
    TransportError,
)


async def fetch(pool: HttpPool, url: str, **kw: Any) -> tuple[int, bytes]:
    async with pool.exchange("POST", url, {}, b"{}", **kw) as ex:
        return (await _status(ex)), await ex.read()


async def _status(ex: Any) -> int:
    await ex.headers_received()
    return int(ex.status)


def in_pieces(wire: bytes, *, size: int = 1, close: bool = False) -> Any:
    async def script(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await peer.read(reader):
            for at in range(0, len(wire), size):
                writer.write(wire[at : at + size])
                await asyncio.sleep(0)
            if close:
                return

    return script


BODY = "data: é€𝄞\n\n".encode() * 3


@pytest.mark.parametrize("size", [1, 3, 1000])
async def test_chunked(pool: HttpPool, peer: Any, size: int) -> None:
    wire = CHUNKED + chunk(BODY[:7]) + chunk(BODY[7:8]) + b"5;ext=1\r\n" + BODY[8:13] + b"\r\n" + chunk(BODY[13:])
    one = await peer(in_pieces(wire + b"0\r\nx-trailer: 1\r\n\r\n", size=size))
    for _ in range(2):
        assert await fetch(pool, one.url) == (200, BODY)
    assert one.connections == 1


@pytest.mark.parametrize("size", [1, 1000])
async def test_with_a_length(pool: HttpPool, peer: Any, size: int) -> None:
    one = await peer(in_pieces(reply(BODY), size=size))
    assert await fetch(pool, one.url) == (200, BODY)
    assert await fetch(pool, one.url) == (200, BODY)
    assert one.connections == 1


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\n\r\n"])
async def test_until_the_peer_closes(pool: HttpPool, peer: Any, head: bytes) -> None:
    one = await peer(in_pieces(head + BODY, size=5, close=True))
    for _ in range(2):
        assert await fetch(pool, one.url) == (200, BODY)
    assert one.connections == 2


async def test_no_body(pool: HttpPool, peer: Any) -> None:
    one = await peer(b"HTTP/1.1 204 No Content\r\n\r\n")
    assert await fetch(pool, one.url) == (204, b"")
    assert await fetch(pool, one.url) == (204, b"")
    empty = await peer(reply(b"", status="503 Busy"))
    assert await fetch(pool, empty.url) == (503, b"")
    assert one.connections == 1


async def test_interim_replies_are_skipped(pool: HttpPool, peer: Any) -> None:
    one = await peer(
        in_pieces(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nlink: x\r\n\r\n" + reply(BODY), size=4)
    )
    async with pool.exchange("POST", one.url) as ex:
        assert await ex.read() == BODY
        assert ex.status == 200
        assert "link" not in ex.headers


async def test_connection_close_is_obeyed(pool: HttpPool, peer: Any) -> None:
    one = await peer(reply(BODY, connection="close"))
    await fetch(pool, one.url)
    await fetch(pool, one.url)
    assert one.connections == 2
    assert pool.statistics().idle == 0


async def test_headers_have_lower_case_names_and_repeated_ones_are_joined(pool: HttpPool, peer: Any) -> None:
    one = await peer(b"HTTP/1.1 200 OK\r\nX-Request-ID: r\r\nVia: a\r\nvia: b\r\nContent-Length: 0\r\n\r\n")
    async with pool.exchange("POST", one.url) as ex:
        await ex.done()
        assert ex.headers == {"x-request-id": "r", "via": "a, b", "content-length": "0"}


async def test_the_bytes_of_a_request(pool: HttpPool, peer: Any) -> None:
    one = await peer(reply())
    async with pool.exchange("POST", one.url + "?a=é b", {"X-A": "1", "content-length": "9"}, b"{}") as ex:
        await ex.done()
    request = one.requests[0]
    assert request.line == "POST /v1/chat?a=%C3%A9%20b HTTP/1.1"
    assert request.body == b"{}"
    assert request.headers == {
        "host": one.address,
        "x-a": "1",
        "accept-encoding": "identity",
        "user-agent": "dspy-live",
        "content-length": "2",
    }


async def test_a_users_host_and_the_urls_password(pool: HttpPool, peer: Any) -> None:
    one = await peer(reply())
    async with pool.exchange("GET", one.url.replace("//", "//us%40er:pw@"), {"Host": "other"}) as ex:
        await ex.done()
        assert "pw" not in ex.address
    assert one.requests[0].headers["host"] == "other"
    assert one.requests[0].headers["authorization"] == "Basic dXNAZXI6cHc="
    assert "content-length" not in one.requests[0].headers


@pytest.mark.parametrize(
    ("kw", "match"),
    [
        ({"headers": {"a": "x\r\ny: z"}}, "'a' has a line break"),
        ({"headers": {"a b": "x"}}, "'a b' is not a valid header name"),
        ({"headers": {"a": "€"}}, "'a' has characters"),
        ({"url": "ftp://x/"}, "must begin with http"),
        ({"url": "localhost:8000/v1"}, "must begin with http"),
        ({"url": "http://h:99999/"}, "port"),
        ({"method": "HEAD"}, "method must be one of"),
    ],
)
async def test_a_request_that_cannot_be_sent_is_refused_before_it_connects(
    pool: HttpPool, kw: dict[str, Any], match: str
) -> None:
    with pytest.raises(ValueError, match=match):
        pool.exchange(**{"method": "POST", "url": "http://127.0.0.1/", "headers": {}, **kw})


async def test_an_exchange_that_was_not_entered_says_so(pool: HttpPool) -> None:
    ex = pool.exchange("POST", "http://127.0.0.1/")
    for waiting in (ex.headers_received(), ex.done(), ex.read()):
        with pytest.raises(RuntimeError, match="async with"):
            await waiting


async def test_a_large_request_arrives_whole(pool: HttpPool, peer: Any) -> None:
    one = await peer(reply())
    body = bytes(range(256)) * 40_000
    async with pool.exchange("POST", one.url, {}, body) as ex:
        await ex.done()
    assert one.requests[0].body == body


async def test_an_early_answer_to_a_large_request(pool: HttpPool, peer: Any) -> None:
    """The endpoint says 413 before it has read the body; the connection is of no further use."""

    async def script(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply(b"too large", status="413 Too Large"))
        await asyncio.Event().wait()

    one = await peer(script)
    async with pool.exchange("POST", one.url, {}, b"x" * 50_000_000) as ex:
        assert await ex.read() == b"too large"
    assert pool.statistics().idle == 0


PACKED = [
    ("gzip", gzip.compress(BODY)),
    ("x-gzip", gzip.compress(BODY[:20]) + gzip.compress(BODY[20:]) + b"\0\0"),
    ("deflate", zlib.compress(BODY)),
    ("deflate", zlib.compress(BODY)[2:-4]),
    ("identity", BODY),
    ("GZIP", gzip.compress(BODY)),
]


@pytest.mark.parametrize(("coding", "packed"), PACKED, ids=range(len(PACKED)))  # gzip writes the time
@pytest.mark.parametrize("size", [1, 1000])
async def test_compressed_bodies(pool: HttpPool, peer: Any, coding: str, packed: bytes, size: int) -> None:
    one = await peer(in_pieces(reply(packed, content_encoding=coding), size=size))
    assert await fetch(pool, one.url) == (200, BODY)


async def test_an_empty_compressed_body(pool: HttpPool, peer: Any) -> None:
    one = await peer(reply(b"", content_encoding="gzip"))
    assert await fetch(pool, one.url) == (200, b"")


@pytest.mark.parametrize(
    ("coding", "packed", "match"),
    [
        ("gzip", gzip.compress(BODY, mtime=0)[:-9], "compressed reply is cut"),
        ("gzip", b"not gzip at all", "malformed"),
        ("deflate", b"\xff\xff\xff\xff", "malformed"),
        ("deflate", zlib.compress(BODY) + b"more", "malformed"),
        ("br", b"x", "encoded as 'br'"),
        ("gzip, gzip", b"x", "encoded as 'gzip, gzip'"),
    ],
)
async def test_bad_compressed_bodies(pool: HttpPool, peer: Any, coding: str, packed: bytes, match: str) -> None:
    one = await peer(reply(packed, content_encoding=coding))
    with pytest.raises(ProtocolError, match=match):
        await fetch(pool, one.url)


async def test_a_body_that_unpacks_to_much_stops_when_the_reader_pauses(pool: HttpPool, peer: Any) -> None:
    one = await peer(reply(gzip.compress(b"\0" * 50_000_000), content_encoding="gzip"))
    sizes: list[int] = []
    async with pool.exchange("POST", one.url) as ex:

        def take(data: bytes) -> None:
            sizes.append(len(data))
            ex.pause()

        ex.on_body = take
        await ex.headers_received()
        for _ in range(10):
            await asyncio.sleep(0.001)
        assert sum(sizes) <= 256 * 1024
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ex.done(), 0.02)
        while sum(sizes) < 50_000_000:
            ex.resume()
            await asyncio.sleep(0)
        ex.resume()
        await ex.done()
    assert max(sizes) == 256 * 1024


@pytest.mark.parametrize(
    ("wire", "match"),
    [
        (b"not http\r\n\r\n", "not valid HTTP"),
        (b"HTTP/2 200\r\n\r\n", "not valid HTTP"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n", "not valid HTTP"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n", "not valid HTTP"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n", "transfer coding"),
        (b"HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n", "another protocol"),
        (CHUNKED + b"zz\r\n", "not valid HTTP"),
        (CHUNKED + b"3\r\nabcd\r\n", "not valid HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"a: " + b"x" * 70_000, "larger than 64 KB"),
        (b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 20_000, "larger than 64 KB"),
        (CHUNKED + chunk(b"x") + b"0\r\n" + b"a: b\r\n" * 20_000, "larger than 64 KB"),
        (CHUNKED + chunk(b"x") + b"0\r\na: " + b"b" * 200_000, "larger than 64 KB"),
        (CHUNKED + chunk(b"x") + b"1;" + b"e" * 200_000, "larger than 64 KB"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 5_000, "larger than 64 KB"),
    ],
)
@pytest.mark.parametrize("size", [1 << 20, 997])
async def test_bytes_that_are_not_http_are_a_protocol_error(
    pool: HttpPool, peer: Any, wire: bytes, match: str, size: int
) -> None:
    one = await peer(in_pieces(wire, size=size))
    with pytest.raises(ProtocolError, match=match) as caught:
        await fetch(pool, one.url)
    assert one.address in str(caught.value)
    assert pool.statistics().idle == 0


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_an_error_that_names_where_to(pool: HttpPool, peer: Any, status: int) -> None:
    one = await peer(reply(b"moved", status=f"{status} Moved", location="https://other/v2?token=secret"))
    with pytest.raises(Redirected, match="https://other/v2") as caught:
        await fetch(pool, one.url)
    assert (caught.value.status, caught.value.location) == (status, "https://other/v2")
    assert "secret" not in str(caught.value)


async def test_bytes_after_the_end_of_a_reply_spoil_the_connection(pool: HttpPool, peer: Any) -> None:
    one = await peer(reply(BODY) + reply(b"not yours"))
    assert await fetch(pool, one.url) == (200, BODY)
    assert pool.statistics().idle == 0
    assert await fetch(pool, one.url) == (200, BODY)
    assert one.connections == 2


async def test_unasked_bytes_on_an_idle_connection_close_it(pool: HttpPool, peer: Any) -> None:
    idle = asyncio.Event()

    async def script(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await peer.read(reader)
        writer.write(reply(BODY))
        await idle.wait()
        writer.write(reply(b"unasked"))
        await peer.see_close(reader)

    one = await peer(script)
    assert await fetch(pool, one.url) == (200, BODY)
    assert pool.statistics().idle == 1
    idle.set()
    await one.closing()
    await asyncio.sleep(0)
    assert pool.statistics().idle == 0


@pytest.mark.parametrize("stage", ["at once", "head", "length", "chunk", "chunks"])
async def test_a_cut_connection_at_every_stage(pool: HttpPool, peer: Any, stage: str) -> None:
    wire = {
        "at once": b"",
        "head": b"HTTP/1.1 200 OK\r\ncontent-",
        "length": reply(BODY)[:-1],
        "chunk": CHUNKED + b"f\r\nabc",
        "chunks": CHUNKED + chunk(b"abc"),
    }[stage]
    one = await peer(in_pieces(wire, size=1 << 20, close=True))
    got: list[bytes] = []
    with pytest.raises(ConnectionBroken, match=r"closed the connection|connection broke") as caught:
        async with pool.exchange("POST", one.url, on_body=got.append) as ex:
            await ex.done()
    assert caught.value.received == (stage != "at once")
    assert caught.value.address == one.address
    assert b"".join(got) == {"length": BODY[:-1], "chunk": b"abc", "chunks": b"abc"}.get(stage, b"")
    assert one.connections == 1


async def test_every_cut_of_a_whole_reply_is_noticed(pool: HttpPool, peer: Any) -> None:
    wire = CHUNKED + chunk(b"abc") + chunk(b"defg") + END
    at = 0

    async def script(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await peer.read(reader)
        writer.write(wire[:at])
        await writer.drain()
        writer.write_eof()
        await peer.see_close(reader)

    one = await peer(script)
    while at < len(wire):
        with pytest.raises(ConnectionBroken):
            await fetch(pool, one.url)
        at += 1
    assert await fetch(pool, one.url) == (200, b"abcdefg")


async def test_a_body_over_the_limit(pool: HttpPool, peer: Any) -> None:
    one = await peer(reply(b"x" * 1000, status="500 Bad"))
    async with pool.exchange("POST", one.url) as ex:
        with pytest.raises(BodyTooLarge, match="longer than 999 bytes"):
            await ex.read(999)
    async with pool.exchange("POST", one.url) as ex:
        assert await ex.read(10, truncate=True) == b"x" * 10
    async with pool.exchange("POST", one.url) as ex:
        assert await ex.read(1000) == b"x" * 1000


async def test_an_error_body_that_is_cut_is_still_read(pool: HttpPool, peer: Any) -> None:
    one = await peer(in_pieces(reply(b"the reason", status="500 Bad")[:-3], size=1 << 20, close=True))
    async with pool.exchange("POST", one.url) as ex:
        assert await ex.read(100, truncate=True) == b"the rea"


async def test_bytes_that_came_before_the_reader_wait_for_it(pool: HttpPool, peer: Any) -> None:
    one = await peer(reply(BODY))
    async with pool.exchange("POST", one.url) as ex:
        await ex.headers_received()
        await asyncio.sleep(0.01)
        got: list[bytes] = []
        ex.on_body = got.append
        await ex.done()
        assert b"".join(got) == BODY
        assert ex.on_body is not None


async def test_an_exception_of_the_reader_closes_the_socket_and_comes_out_of_done(pool: HttpPool, peer: Any) -> None:
    async def script(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await peer.read(reader)
        writer.write(CHUNKED + chunk(b"abc"))
        await peer.see_close(reader)

    def bad(data: bytes) -> None:
        raise LookupError(data)

    one = await peer(script)
    async with pool.exchange("POST", one.url, on_body=bad) as ex:
        with pytest.raises(LookupError):
            await ex.done()
        await one.closing()
    async with pool.exchange("POST", one.url) as ex:
        await ex.headers_received()
        await asyncio.sleep(0.01)
        ex.on_body = bad
        with pytest.raises(LookupError):
            await ex.done()
        await one.closing(2)


async def test_many_chunks_in_one_segment_are_one_piece(pool: HttpPool, peer: Any) -> None:
    one = await peer(CHUNKED + b"".join(chunk(b"%d," % n) for n in range(100)) + END)
    got: list[bytes] = []
    async with pool.exchange("POST", one.url, on_body=got.append) as ex:
        await ex.done()
    assert got == [b"".join(b"%d," % n for n in range(100))]


async def test_errors_of_the_transport_have_one_base() -> None:
    assert issubclass(Redirected, ProtocolError)
    assert issubclass(ProtocolError, TransportError)
