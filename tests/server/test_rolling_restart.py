"""Two servers are restarted in turn behind a balancer, under load: no client sees it.

The balancers run with the files of ``deploy/``; only addresses, certificates and the times between checks are others.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import ssl
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tests.server.sites import behind_haproxy, behind_nginx
from tests.server.support import http as asking
from tests.server.support import sse
from tests.support.balancers import lasting_port
from tests.support.until import until

ROOT = Path(__file__).parents[2]
CLIENTS = 10
REST = 0.1
"""Seconds between two requests of a client: the load is some 60 to 80 requests a second."""


class Server:
    """A server process that can be restarted on its port."""

    def __init__(self, lame_duck: float) -> None:
        self.port = lasting_port()
        self._command = [sys.executable, "-m", "tests.server.slow_server", "30", str(lame_duck), str(self.port)]
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            self._command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("http"), line + self.process.stdout.read()

    def restart(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60) == 0
        self.end()
        self.start()

    def runs(self) -> int:
        return int(asking.get(f"http://127.0.0.1:{self.port}/stats").json()["started"])

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


class Load(threading.Thread):
    """A client that asks again and again, half of the time for a stream, half of the time on a kept connection."""

    def __init__(self, port: int, trust: Path, number: int, stop: threading.Event) -> None:
        super().__init__()
        self.served = 0
        self.failures: list[str] = []
        self._port, self._number, self._over = port, number, stop
        self._context = ssl.create_default_context(cafile=str(trust))
        self.start()

    def run(self) -> None:
        connection = None
        while not self._over.wait(REST):
            if connection is None or self._number % 2:
                self._close(connection)
                connection = http.client.HTTPSConnection("127.0.0.1", self._port, timeout=30, context=self._context)
            try:
                self._ask(connection)
            except (OSError, http.client.HTTPException, AssertionError) as exc:
                self.failures.append(f"{type(exc).__name__}: {exc}")
                self._close(connection)
                connection = None
        self._close(connection)

    @staticmethod
    def _close(connection: http.client.HTTPSConnection | None) -> None:
        if connection is not None:
            connection.close()

    def _ask(self, connection: http.client.HTTPSConnection) -> None:
        stream = self._number % 4 < 2
        path = "/predict/stream" if stream else "/predict"
        connection.request("POST", path, json.dumps({"question": "brief" if stream else "quick"}))
        reply = connection.getresponse()
        body = reply.read().decode()
        assert reply.status == 200, f"{reply.status} {body}"
        assert not stream or [name for name, _, _ in sse(body)][-2:] == ["prediction", "done"], body
        self.served += 1


@pytest.mark.parametrize(("behind", "lame_duck"), [(behind_nginx, 0.5), (behind_haproxy, 3.0)])
def test_a_rolling_restart_loses_no_request(behind, lame_duck: float, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    servers = [Server(lame_duck), Server(lame_duck)]
    stop = threading.Event()
    try:
        with behind(tmp_path, servers) as (_, port):
            until(lambda: asked(port, tmp_path) == 200)
            clients = [Load(port, tmp_path / "ca.pem", number, stop) for number in range(CLIENTS)]
            for server in servers:
                before = server.runs()
                until(lambda server=server, before=before: server.runs() > before)  # type: ignore[misc]
                server.restart()
                until(lambda server=server: server.runs() > 0)  # type: ignore[misc]
            stop.set()
            for client in clients:
                client.join(60)
    finally:
        stop.set()
        for server in servers:
            server.end()
    assert [failure for client in clients for failure in client.failures] == []
    assert min(client.served for client in clients) > 0


def asked(port: int, folder: Path) -> int:
    """Return the status of one request, 0 where nobody answers."""
    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=10, context=context)
    with contextlib.closing(connection), contextlib.suppress(OSError):
        connection.request("GET", "/health/ready")
        return connection.getresponse().status
    return 0
