"""The time between the end of readiness and the end of the server: no client is cut in it."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess

import pytest
from tests.server.support import http as asking
from tests.server.support import qa, until
from tests.server.test_serve import Asking, draining, process

from dspy_live.core.errors import ConfigurationError
from dspy_live.server import create_app
from dspy_live.server.transport.address import listen
from dspy_live.server.transport.last_clients import accept_waiting
from dspy_live.server.transport.serve import serve

QUICK = json.dumps({"question": "quick"})
CLIENTS = 20


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


def connected(url: str) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection("127.0.0.1", port_of(url), timeout=20)
    connection.connect()
    return connection


def predicted(connection: http.client.HTTPConnection) -> http.client.HTTPResponse:
    connection.request("POST", "/predict", QUICK)
    reply = connection.getresponse()
    reply.read()
    return reply


def gone(server: subprocess.Popen[str]) -> str:
    assert server.wait(20) == 0
    assert server.stdout is not None
    return server.stdout.read()


def test_kept_connections_are_served_once_more_and_told_that_it_was_the_last_time() -> None:
    """SIGTERM on an idle server gave an EOF to each kept connection."""
    with process(drain=3600, lame_duck=3600) as (server, url):
        kept = [connected(url) for _ in range(CLIENTS)]
        assert {predicted(one).getheader("connection") for one in kept} == {None}
        server.send_signal(signal.SIGTERM)
        until(lambda: draining(url))
        replies = [predicted(one) for one in kept]
        assert {(reply.status, reply.getheader("connection")) for reply in replies} == {(200, "close")}
        assert {predicted(one).status for one in kept} == {200}  # each on a connection that is new
        server.send_signal(signal.SIGTERM)
        assert "Traceback" not in gone(server)


def test_a_client_that_connected_before_the_end_is_answered() -> None:
    """Each client that was just connecting was refused, reset or got an EOF."""
    with process(drain=3600, lame_duck=3600, head_seconds=60) as (server, url):
        server.send_signal(signal.SIGTERM)
        until(lambda: draining(url))
        late = [connected(url) for _ in range(CLIENTS)]
        server.send_signal(signal.SIGTERM)
        replies = [predicted(one) for one in late]
        assert {reply.getheader("connection") for reply in replies} == {"close"}
        for reply in replies:
            assert reply.status == 200 or (reply.status == 503 and reply.getheader("retry-after"))
        assert "Traceback" not in gone(server)


def test_connections_that_wait_in_the_queue_are_accepted_before_it_is_closed() -> None:
    with listen("127.0.0.1", 0) as listener:
        clients = [socket.create_connection(listener.getsockname()) for _ in range(CLIENTS)]
        accepted = accept_waiting([listener])
        assert sorted(one.getpeername() for one in accepted) == sorted(one.getsockname() for one in clients)
        assert accept_waiting([listener]) == []
    for one in [*clients, *accepted]:
        one.close()


def test_connections_without_a_request_end_with_the_server() -> None:
    with process(drain=3600, lame_duck=0.1) as (server, url):
        silent, kept = socket.create_connection(("127.0.0.1", port_of(url))), connected(url)
        assert predicted(kept).status == 200
        server.send_signal(signal.SIGTERM)
        assert silent.recv(1) == b""
        assert kept.sock.recv(1) == b""
        assert "Traceback" not in gone(server)
        silent.close()
        kept.close()


def test_runs_begin_and_end_in_the_lame_duck_time_and_in_the_drain_none_begins() -> None:
    with process(drain=3600, lame_duck=0.3) as (server, url):
        before = Asking(url)
        server.send_signal(signal.SIGTERM)
        until(lambda: asking.post(url + "/predict", json={"question": "quick"}).status_code == 503)
        refused = asking.post(url + "/predict", json={"question": "quick"})
        server.send_signal(signal.SIGUSR1)
        assert before.names() == ["started", "prediction", "done"]
        assert "Traceback" not in gone(server)
    assert refused.json()["error"]["type"] == "draining"
    assert refused.headers["connection"] == "close"
    assert refused.headers["retry-after"]


def test_ctrl_c_goes_without_a_lame_duck_time() -> None:
    with process(drain=3600, lame_duck=3600) as (server, url):
        assert asking.get(url + "/health/ready").status_code == 200
        server.send_signal(signal.SIGINT)
        gone(server)


def test_a_second_signal_ends_the_lame_duck_time_and_its_runs() -> None:
    with process(drain=3600, lame_duck=3600) as (server, url):
        server.send_signal(signal.SIGTERM)
        until(lambda: draining(url))
        run = Asking(url)
        server.send_signal(signal.SIGTERM)
        assert run.names() == ["started", "error", "done"]
        gone(server)


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no terminals that hang up")
def test_sighup_does_not_end_a_server_without_a_terminal() -> None:
    """A script that tells daemons to read their files again killed this one, and all its runs."""
    with process(drain=3600) as (server, url):
        run = Asking(url)
        server.send_signal(signal.SIGHUP)
        server.send_signal(signal.SIGUSR1)
        assert run.names() == ["started", "prediction", "done"]
        assert asking.get(url + "/health/ready").status_code == 200
        server.send_signal(signal.SIGTERM)
        assert "SIGHUP: nothing is reloaded" in gone(server)


@pytest.mark.parametrize("times", [{"lame_duck": -1.0}, {"lame_duck": float("nan")}, {"drain": -1.0}])
def test_a_time_below_nothing_is_refused(times: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(times))):
        serve(create_app(qa()), port=0, **times)
