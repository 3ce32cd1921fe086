"""TLS: whom we trust, and that all else works as without it."""

from __future__ import annotations

import asyncio
import shutil
import ssl
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.http.certificates import Authority
from tests.runtime.http.peer import CHUNKED, END, Peer, chunk, reply, until

from dspy_live.runtime.http.tls import make_context
from dspy_live.runtime.http.transport import (
    ConnectFailed,
    ConnectionBroken,
    ConnectTimeout,
    HttpPool,
    Timeouts,
    TlsOptions,
)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def trust(authority: Authority) -> TlsOptions:
    return TlsOptions(ca=str(authority.file))


async def post(pool: HttpPool, url: str, **kw: Any) -> bytes:
    async with pool.exchange("POST", url, {}, b"{}", **kw) as ex:
        return await ex.read()


async def test_a_trusted_server(pool: HttpPool, peer: Any, authority: Authority, trust: TlsOptions) -> None:
    one = await peer(CHUNKED + chunk(b"hello") + END, tls=authority.server("127.0.0.1"))
    for _ in range(3):
        assert await post(pool, one.url, tls=trust) == b"hello"
    assert one.connections == 1


async def test_a_large_body_both_ways(pool: HttpPool, peer: Any, authority: Authority, trust: TlsOptions) -> None:
    body = bytes(range(256)) * 20_000
    one = await peer(reply(body), tls=authority.server("127.0.0.1"))
    async with pool.exchange("POST", one.url, {}, body, tls=trust) as ex:
        assert await ex.read() == body
    assert one.requests[0].body == body


async def test_certificates_that_are_not_trusted(
    pool: HttpPool, peer: Any, authority: Authority, trust: TlsOptions
) -> None:
    stranger = await peer(reply(), tls=authority.server("127.0.0.1"))
    with pytest.raises(ConnectFailed, match="certificate was not accepted: unable to get local issuer"):
        await post(pool, stranger.url)
    other = await peer(reply(), tls=authority.server("other.example"))
    with pytest.raises(ConnectFailed, match="certificate was not accepted: IP address mismatch"):
        await post(pool, other.url, tls=trust)
    with pytest.raises(ConnectFailed, match="Hostname mismatch"):
        await post(pool, other.url.replace("127.0.0.1", "localhost"), tls=trust)
    old = await peer(reply(), tls=authority.server("127.0.0.1", days=-1))
    with pytest.raises(ConnectFailed, match="certificate has expired"):
        await post(pool, old.url, tls=trust)
    assert [len(p.requests) for p in (stranger, other, old)] == [0, 0, 0]
    assert pool.statistics().open == 0


async def test_the_host_name_is_checked(pool: HttpPool, peer: Any, authority: Authority, trust: TlsOptions) -> None:
    one = await peer(reply(b"x"), tls=authority.server("localhost"))
    assert await post(pool, one.url.replace("127.0.0.1", "localhost"), tls=trust) == b"x"


async def test_a_check_that_is_switched_off_is_off_for_that_client_only(
    pool: HttpPool, peer: Any, authority: Authority
) -> None:
    one = await peer(reply(b"x"), tls=authority.server("other.example", days=-1))
    assert await post(pool, one.url, tls=TlsOptions(verify=False)) == b"x"
    with pytest.raises(ConnectFailed):
        await post(pool, one.url)


async def test_a_client_certificate(pool: HttpPool, peer: Any, authority: Authority, trust: TlsOptions) -> None:
    one = await peer(reply(b"x"), tls=authority.server("127.0.0.1", client_ca=True))
    certificate, key = authority.issue("client.example")
    tls = TlsOptions(ca=trust.ca, certificate=str(certificate), key=str(key))
    assert await post(pool, one.url, tls=tls) == b"x"
    with pytest.raises((ConnectFailed, ConnectionBroken)):
        await post(pool, one.url, tls=trust)


async def test_a_context_of_the_users_own(pool: HttpPool, peer: Any, authority: Authority) -> None:
    one = await peer(reply(b"x"), tls=authority.server("127.0.0.1"))
    context = ssl.create_default_context(cafile=str(authority.file))
    assert await post(pool, one.url, tls=TlsOptions(context=context)) == b"x"


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
async def test_certificates_of_the_environment(
    pool: HttpPool, peer: Any, authority: Authority, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str
) -> None:
    one = await peer(reply(b"x"), tls=authority.server("127.0.0.1"))
    shutil.copy(authority.file, tmp_path / "ca.pem")
    shutil.copy(authority.file, tmp_path / f"{authority.hashed_name}.0")
    monkeypatch.setenv(variable, str(authority.file) if variable == "SSL_CERT_FILE" else str(tmp_path))
    assert await post(pool, one.url) == b"x"


def test_the_usual_authorities_are_trusted_without_any_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    context = make_context(TlsOptions())
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.cert_store_stats()["x509_ca"] > 50


def test_files_that_cannot_be_loaded_are_named(tmp_path: Path) -> None:
    bad = tmp_path / "bad.pem"
    bad.write_text("no certificate")
    for options in (TlsOptions(ca=str(bad)), TlsOptions(ca="/no/such"), TlsOptions(certificate=str(bad))):
        with pytest.raises(ValueError, match=r"bad\.pem|no/such"):
            make_context(options)


async def test_a_file_that_cannot_be_loaded_is_a_failed_connection(pool: HttpPool, peer: Any) -> None:
    one = await peer(reply())
    with pytest.raises(ConnectFailed, match="/no/such"):
        await post(pool, one.url.replace("http:", "https:"), tls=TlsOptions(ca="/no/such"))


async def test_a_server_without_tls(pool: HttpPool, peer: Any) -> None:
    one = await peer(b"HTTP/1.1 400 Bad\r\n\r\n")

    async def script(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()

    one = await peer(script)
    with pytest.raises(ConnectFailed, match=r"TLS failed|reset|closed"):
        await post(pool, one.url.replace("http:", "https:"))


async def test_a_server_that_closes_in_the_handshake(pool: HttpPool, peer: Any) -> None:
    async def script(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)

    one = await peer(script)
    with pytest.raises(ConnectFailed, match=one.address):
        await post(pool, one.url.replace("http:", "https:"))
    assert pool.statistics().open == 0


async def silent(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await peer.see_close(reader)


async def test_a_server_that_is_silent_in_the_handshake(pool: HttpPool, peer: Any) -> None:
    one = await peer(silent)
    with pytest.raises(ConnectTimeout):
        await post(pool, one.url.replace("http:", "https:"), timeouts=Timeouts(connect=0.05))
    await one.closing()


async def test_cancelled_in_the_handshake(pool: HttpPool, peer: Any) -> None:
    one = await peer(silent)
    task = asyncio.create_task(post(pool, one.url.replace("http:", "https:")))
    await until(lambda: one.connections)
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await one.sees_close_at_once()


async def test_leaving_is_seen_at_once(pool: HttpPool, peer: Any, authority: Authority, trust: TlsOptions) -> None:
    async def script(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await peer.read(reader)
        writer.write(CHUNKED + chunk(b"x"))
        await peer.see_close(reader)

    one = await peer(script, tls=authority.server("127.0.0.1"))
    async with pool.exchange("POST", one.url, tls=trust) as ex:
        await ex.headers_received()
    assert await one.sees_close_at_once()


async def test_pausing_stops_the_peers_writes(
    pool: HttpPool, peer: Any, authority: Authority, trust: TlsOptions
) -> None:
    total, written, block = 64 << 20, 0, b"z" * 65536

    async def script(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await peer.read(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % total)
        while written < total:
            writer.write(block)
            written += len(block)
            await writer.drain()
        await peer.see_close(reader)

    one = await peer(script, tls=authority.server("127.0.0.1"))
    async with pool.exchange("POST", one.url, tls=trust) as ex:
        await ex.headers_received()
        before = -1
        while written != before:
            before = written
            await asyncio.sleep(0.03)
        assert before < total // 2
        assert len(await ex.read()) == total


async def test_a_cut_without_tlss_own_goodbye(
    pool: HttpPool, peer: Any, authority: Authority, trust: TlsOptions
) -> None:
    async def script(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await peer.read(reader)
        writer.write(CHUNKED + chunk(b"x"))
        await writer.drain()
        writer.transport.abort()

    one = await peer(script, tls=authority.server("127.0.0.1"))
    with pytest.raises(ConnectionBroken):
        await post(pool, one.url, tls=trust)
