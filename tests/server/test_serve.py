"""A server process: its address rules, its signals, how it drains."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.server.support import http, qa, sse, until
from tests.support.until import BOUND
from websockets.sync.client import connect

from dspy_live.core.errors import ConfigurationError
from dspy_live.server import create_app
from dspy_live.server.transport import last_clients
from dspy_live.server.transport.serve import serve

ROOT = Path(__file__).parents[2]


def process(
    drain: float, lame_duck: float = 0, head_seconds: float = last_clients.HEAD_SECONDS
) -> contextlib.AbstractContextManager[tuple[subprocess.Popen[str], str]]:
    return server_process("slow_server", drain, lame_duck, 0, head_seconds)


@contextlib.contextmanager
def server_process(module: str, *words: object) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A module of this folder that prints its address first, as a process; and that address."""
    command = [sys.executable, "-m", f"tests.server.{module}", *map(str, words)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        assert server.stdout is not None
        try:
            url = server.stdout.readline().strip()
            assert url.startswith("http://127.0.0.1:"), url + server.stdout.read()
            yield server, url
        finally:
            server.kill()


class Asking(threading.Thread):
    """A streamed request in a thread."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url
        self.text = ""
        self.start()
        until(lambda: bool(self.text))

    def run(self) -> None:
        with http.stream("POST", self.url + "/predict/stream", json={"question": "x"}) as reply:
            for piece in reply.iter_text():
                self.text += piece

    def names(self) -> list[str]:
        self.join(BOUND)
        return [name for name, _, _ in sse(self.text)]


def draining(url: str) -> bool:
    ready = http.get(url + "/health/ready")
    return ready.status_code == 503 and ready.json()["status"] == "draining"


def test_sigterm_lets_runs_end_and_takes_no_new_ones() -> None:
    with process(drain=3600) as (server, url):
        asking = Asking(url)
        server.send_signal(signal.SIGTERM)
        until(lambda: draining(url))
        refused = http.post(url + "/predict", json={"question": "x"})
        server.send_signal(signal.SIGUSR1)
        assert asking.names() == ["started", "prediction", "done"]
        assert server.wait(20) == 0
        assert server.stdout is not None
        assert "Traceback" not in server.stdout.read()
    assert refused.status_code == 503
    assert refused.json()["error"]["type"] == "draining"
    assert refused.headers["retry-after"]


def test_runs_that_outlast_the_drain_end_in_a_clean_error() -> None:
    with process(drain=0.3) as (server, url):
        asking = Asking(url)
        with connect(url.replace("http", "ws") + "/ws") as socket:
            socket.send("x")
            until(lambda: http.get(url + "/stats").json()["active"] == 2)
            server.send_signal(signal.SIGTERM)
            assert asking.names() == ["started", "error", "done"]
            assert sse(asking.text)[1][2]["error"]["type"] == "draining"
            with pytest.raises(Exception, match="4503"):
                socket.recv(BOUND)
        assert server.wait(20) == 0


def test_a_second_signal_cuts_the_drain_short() -> None:
    with process(drain=3600) as (server, url):
        asking = Asking(url)
        server.send_signal(signal.SIGINT)
        until(lambda: draining(url))
        server.send_signal(signal.SIGINT)
        assert asking.names() == ["started", "error", "done"]
        assert server.wait(20) == 0


def test_a_client_that_reads_nothing_does_not_hold_up_the_end_of_an_idle_server() -> None:
    with process(drain=3600) as (server, url):
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))):
            server.send_signal(signal.SIGTERM)
            assert server.wait(20) == 0


def test_another_address_than_loopback_needs_a_key_or_a_word() -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.com"):
        with pytest.raises(ConfigurationError, match="API key"):
            serve(create_app(qa()), host, 0)
    with pytest.raises(ConfigurationError, match="simulated"):
        serve(create_app(qa(simulated=True), api_keys=["k"]), "0.0.0.0", 0)
    with pytest.raises(ConfigurationError, match="simulated"):
        serve(create_app(qa(simulated=True)), "0.0.0.0", 0, no_auth=True)
