"""A server process that is told to end while a stream of its is spliced."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import httpx
from tests.server.support import http, sse, until
from tests.server.test_serve import Asking, draining, server_process
from tests.server.test_splice import read
from tests.server.test_splice_clients import Holding


async def turn_of(url: str) -> None:
    """Wait until a server has answered something: by then it has read what its LM had sent before."""
    with suppress(httpx.HTTPError):  # it may have ended
        await asyncio.to_thread(http.get, url + "/health/live")


@contextmanager
def spliced(drain: float) -> Iterator[tuple[Holding, subprocess.Popen[str], str, Asking]]:
    """A server over an LM that waits in the middle of its words, which a client reads."""
    with Holding() as lm, server_process("spliced_server", lm.url, drain) as (server, url):
        assert server.stdout is not None
        try:
            lm.turn = lambda: turn_of(url)
            asking = Asking(url)
            until(lambda: lm.steps == 61)
            assert "spliced" in server.stdout.readline()
            yield lm, server, url, asking
        finally:
            lm.go.set()


def passed(server: subprocess.Popen[str]) -> int:
    """How many events passed by Python, as a server says at its end."""
    assert server.stdout is not None
    said = server.stdout.read()
    assert "Traceback" not in said
    return int(said.rpartition("passed ")[2])


def test_sigterm_lets_a_spliced_stream_end() -> None:
    with spliced(drain=3600) as (lm, server, url, asking):
        server.send_signal(signal.SIGTERM)
        until(lambda: draining(url))
        lm.go.set()
        assert asking.names()[-2:] == ["prediction", "done"]
        _, texts, _ = read(asking.text)
        assert texts["answer", 1].split() == ["word"] * 80
        assert server.wait(20) == 0
        assert passed(server) > 20


def test_a_spliced_stream_that_outlasts_the_drain_ends_in_a_clean_error() -> None:
    with spliced(drain=0.3) as (lm, server, _, asking):
        server.send_signal(signal.SIGTERM)
        assert asking.names()[-2:] == ["error", "done"]
        assert sse(asking.text)[-2][2]["error"]["type"] == "draining"
        until(lambda: lm.open == 0)
        assert server.wait(20) == 0
        assert passed(server) > 10
