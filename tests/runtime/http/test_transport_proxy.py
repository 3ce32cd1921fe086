"""Proxies of the environment: CONNECT for https, whole URLs for http, and whom they are not for."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from tests.runtime.http.certificates import Authority
from tests.runtime.http.peer import CHUNKED, END, Peer, chunk, read_request, reply, until
from tests.support.ports import refusing_port

from dspy_live.runtime.http.proxy import Proxies, parse_proxy
from dspy_live.runtime.http.request import parse_target
from dspy_live.runtime.http.transport import ConnectFailed, ConnectTimeout, HttpPool, Timeouts, TlsOptions


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def trust(authority: Authority) -> TlsOptions:
    return TlsOptions(ca=str(authority.file))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    with contextlib.suppress(OSError, RuntimeError):
        writer.transport.abort()


async def relay(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A proxy: a tunnel after CONNECT, else one request to the URL's host."""
    request = await read_request(reader)
    assert request is not None
    peer.requests.append(request)
    method, target, _ = request.line.split()
    host, _, port = (target if method == "CONNECT" else parse_target(target).address).rpartition(":")
    try:
        up_reader, up_writer = await asyncio.open_connection(host.strip("[]"), int(port))
    except OSError:
        writer.write(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n")
        await writer.drain()
        return
    if method == "CONNECT":
        writer.write(b"HTTP/1.1 200 Connection established\r\nvia: test\r\n\r\n")
    else:
        up_writer.write(f"{method} / HTTP/1.1\r\ncontent-length: {len(request.body)}\r\n\r\n".encode() + request.body)
    try:
        await asyncio.gather(_copy(reader, up_writer), _copy(up_reader, writer))
    finally:
        if not up_writer.transport.is_closing():
            up_writer.transport.abort()


async def post(pool: HttpPool, url: str, **kw: Any) -> bytes:
    async with pool.exchange("POST", url, {}, b"{}", **kw) as ex:
        return await ex.read()


@contextlib.asynccontextmanager
async def pool_with(**proxies: str) -> Any:
    pool = HttpPool(proxies=proxies)
    yield pool
    await pool.aclose()
    assert pool.statistics().open == 0


async def test_http_through_a_proxy_names_the_whole_url(peer: Any) -> None:
    one, proxy = await peer(reply(b"x")), await peer(relay)
    async with pool_with(http=f"http://us%20er:p%40ss@{proxy.address}") as pool:
        async with pool.exchange("POST", one.url + "?a=1", {}, b"{}") as ex:
            assert await ex.read() == b"x"
            assert proxy.address in ex.address
            assert "p%40ss" not in ex.address
    assert proxy.requests[0].line == f"POST {one.url}?a=1 HTTP/1.1"
    assert proxy.requests[0].headers["host"] == one.address
    assert proxy.requests[0].headers["proxy-authorization"] == "Basic dXMgZXI6cEBzcw=="
    assert len(one.requests) == 1


async def test_https_through_a_proxy_is_a_tunnel(peer: Any, authority: Authority, trust: TlsOptions) -> None:
    one = await peer(CHUNKED + chunk(b"x") + END, tls=authority.server("127.0.0.1"))
    proxy = await peer(relay)
    async with pool_with(https=f"http://user:pw@{proxy.address}") as pool:
        for _ in range(2):
            assert await post(pool, one.url, tls=trust) == b"x"
    assert [r.line for r in proxy.requests] == [f"CONNECT {one.address} HTTP/1.1"]
    assert proxy.requests[0].headers["proxy-authorization"] == "Basic dXNlcjpwdw=="
    assert "proxy-authorization" not in one.requests[0].headers
    assert one.requests[0].line == "POST /v1/chat HTTP/1.1"


async def test_a_proxy_that_is_spoken_to_with_tls(
    peer: Any, authority: Authority, trust: TlsOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TLS to the proxy, and within it TLS to the endpoint."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    inner, plain = await peer(reply(b"in"), tls=authority.server("127.0.0.1")), await peer(reply(b"plain"))
    proxy = await peer(relay, tls=authority.server("localhost"))
    async with pool_with(all=f"https://localhost:{proxy.port}") as pool:
        assert await post(pool, plain.url) == b"plain"
        assert await post(pool, inner.url) == b"in"
        assert await post(pool, inner.url) == b"in"
    assert inner.connections == 1


async def test_the_endpoints_certificate_is_checked_through_the_tunnel(peer: Any, authority: Authority) -> None:
    one, proxy = await peer(reply(), tls=authority.server("127.0.0.1")), await peer(relay)
    async with pool_with(https=f"http://{proxy.address}") as pool:
        with pytest.raises(ConnectFailed, match=rf"through the proxy {proxy.address}.*certificate was not accepted"):
            await post(pool, one.url)


@pytest.mark.parametrize(
    ("answer", "match"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "refused the connection: 407 Proxy Authentication"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "did not answer in HTTP"),
        (b"HTTP/1.1 200 OK\r\n\r\nsurprise", "bytes of its own"),
        (b"x" * 100_000, "did not answer in HTTP"),
        (b"HTTP/1.1 2", "closed the connection"),
        (b"", "closed the connection"),
    ],
)
async def test_a_proxy_that_does_not_do_its_work(peer: Any, answer: bytes, match: str) -> None:
    async def script(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(answer)
        if match.startswith("closed"):
            writer.write_eof()
        await peer.see_close(reader)

    proxy = await peer(script)
    async with pool_with(https=f"http://user:secret@{proxy.address}") as pool:
        with pytest.raises(ConnectFailed, match=match) as caught:
            await post(pool, "https://127.0.0.1:9/")
        assert "secret" not in str(caught.value)
        assert f"127.0.0.1:9 (through the proxy {proxy.address})" in str(caught.value)
    await proxy.closing()


async def test_an_endpoint_that_the_proxy_cannot_reach(peer: Any) -> None:
    proxy = await peer(relay)
    with refusing_port() as port:
        async with pool_with(https=f"http://{proxy.address}") as pool:
            with pytest.raises(ConnectFailed, match="refused the connection: 502 Bad Gateway"):
                await post(pool, f"https://127.0.0.1:{port}/")


async def test_a_silent_proxy_and_a_cancellation(peer: Any) -> None:
    async def script(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await peer.read(reader)
        await peer.see_close(reader)

    proxy = await peer(script)
    async with pool_with(https=f"http://{proxy.address}") as pool:
        with pytest.raises(ConnectTimeout):
            await post(pool, "https://127.0.0.1:9/", timeouts=Timeouts(connect=0.05))
        await proxy.closing()
        asked = len(proxy.requests)
        task = asyncio.create_task(post(pool, "https://127.0.0.1:9/"))
        await until(lambda: len(proxy.requests) > asked)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await proxy.sees_close_at_once(2)


async def test_a_dead_proxy_is_named() -> None:
    with refusing_port() as port:
        async with pool_with(http=f"http://127.0.0.1:{port}") as pool:
            said = rf"127\.0\.0\.1:9 \(through the proxy 127\.0\.0\.1:{port}\): Connection refused"
            with pytest.raises(ConnectFailed, match=said):
                await post(pool, "http://127.0.0.1:9/")


async def test_the_environments_proxies_are_taken(peer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    one, proxy = await peer(reply(b"x")), await peer(relay)
    monkeypatch.setenv("HTTP_PROXY", f"http://{proxy.address}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    pool = HttpPool()
    assert await post(pool, one.url) == b"x"
    assert len(proxy.requests) == 1
    await pool.aclose()
    monkeypatch.setenv("NO_PROXY", "localhost,127.0.0.1")
    pool = HttpPool()
    assert await post(pool, one.url) == b"x"
    assert len(proxy.requests) == 1
    await pool.aclose()


TARGETS = {
    "http": parse_target("http://api.example.com/v1"),
    "https": parse_target("https://api.example.com:8443/v1"),
    "loop": parse_target("http://127.0.0.1:8000/v1"),
}


@pytest.mark.parametrize(
    ("proxies", "target", "port"),
    [
        ({}, "http", None),
        ({"http": "http://p:1"}, "http", 1),
        ({"http": "http://p:1"}, "https", None),
        ({"all": "http://p:3"}, "https", 3),
        ({"all": "http://p:3", "https": "p:2"}, "https", 2),
        ({"http": "http://p"}, "http", 80),
        ({"http": "https://p"}, "http", 443),
        ({"http": "http://p:1", "no": "example.com"}, "http", None),
        ({"http": "http://p:1", "no": ".example.com"}, "http", None),
        ({"https": "http://p:1", "no": "api.example.com:8443"}, "https", None),
        ({"https": "http://p:1", "no": "api.example.com:443"}, "https", 1),
        ({"http": "http://p:1", "no": "*"}, "http", None),
        ({"http": "http://p:1", "no": "other.com"}, "http", 1),
        ({"http": "http://p:1"}, "loop", 1),
        ({"http": "http://p:1", "no": "127.0.0.1"}, "loop", None),
    ],
)
def test_the_proxy_of_each_address(proxies: dict[str, str], target: str, port: int | None) -> None:
    chosen = Proxies(proxies)
    for _ in range(2):
        found = chosen.proxy_for(TARGETS[target])
        assert (None if found is None else found.port) == port


def test_a_proxy_of_no_use_is_refused_without_showing_its_password() -> None:
    with pytest.raises(ValueError, match="socks5 proxy; only http") as caught:
        parse_proxy("socks5://user:secret@host:1080")
    assert "secret" not in str(caught.value)
    assert "secret" not in repr(parse_proxy("http://user:secret@host:1"))
    assert parse_proxy("http://[::1]:3128").address == "[::1]:3128"
