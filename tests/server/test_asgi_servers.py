"""The ASGI application under other servers than its own, inside FastAPI and Starlette, and in Starlette's test client.

The servers are in an environment of their own, which a script makes the first time (some ten seconds).
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import socket
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.websockets import WebSocketDisconnect
from tests.server.support import Scripted, http, qa, sse
from tests.support.balancers import lasting_port
from tests.support.until import BOUND, until
from websockets.sync.client import connect

from dspy_live.server import create_app

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it would rather have another client, and works with this one
    from starlette.testclient import TestClient

ROOT = Path(__file__).parents[2]
APP = "tests.server.asgi_app:app"
SERVERS = {
    "hypercorn": ["-m", "hypercorn", "--bind", "127.0.0.1:{port}", APP],
    "granian": ["-m", "granian", "--interface", "asgi", "--host", "127.0.0.1", "--port", "{port}", APP],
    "gunicorn": ["-m", "gunicorn", "-k", "uvicorn_worker.UvicornWorker", "-b", "127.0.0.1:{port}", APP],
    "uvicorn": ["-m", "uvicorn", "--port", "{port}", APP],
}


@functools.cache
def python() -> str:
    command = [str(ROOT / "scripts/environment.sh"), "asgi"]
    made = subprocess.run(command, env={**os.environ, "PYTHON": sys.executable}, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


class Other:
    """Another server, with our application in it."""

    def __init__(self, name: str, log: Path) -> None:
        self.port = lasting_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = log
        command = [python(), *(word.format(port=self.port) for word in SERVERS[name])]
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        until(self._answers, 60)

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        with contextlib.suppress(httpx.TransportError):
            return http.get(self.url + "/health/live").status_code == 200
        return False

    def stats(self) -> dict[str, int]:
        found: dict[str, int] = http.get(self.url + "/stats").json()
        return found

    def end(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="module", params=SERVERS)
def other(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Other]:
    server = Other(request.param, tmp_path_factory.mktemp("asgi") / "server.log")
    try:
        yield server
        server.process.send_signal(signal.SIGTERM)
        until(lambda: server.process.poll() is not None)
        assert "Traceback" not in server.log.read_text()
    finally:
        server.end()


def test_a_prediction(other: Other) -> None:
    reply = http.post(other.url + "/predict", json={"question": "who?"})
    assert (reply.status_code, reply.json()["answer"]) == (200, "You asked: who?")
    assert reply.headers["x-run-id"] == reply.json()["run"]["id"]


def test_a_stream_in_its_order(other: Other) -> None:
    reply = http.post(other.url + "/predict/stream", json={"question": "slowly"})
    events = sse(reply.text)
    names = [name for name, _, _ in events]
    assert (names[0], names[-2], names[-1]) == ("started", "prediction", "done")
    assert "".join(data["text"] for name, _, data in events if name == "token") == "You asked: slowly"


def test_words_come_before_the_end(other: Other) -> None:
    with http.stream("POST", other.url + "/predict/stream", json={"question": "endless"}) as reply:
        text = ""
        for piece in reply.iter_text():
            text += piece
            if "words" in text:
                break
    assert "event: started" in text


@pytest.mark.parametrize("path", ["/predict", "/predict/stream"])
def test_a_client_that_leaves_ends_its_run(other: Other, path: str) -> None:
    until(lambda: other.stats()["active"] == 0)
    before = other.stats()
    body = b'{"question": "endless"}'
    head = b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (path.encode(), len(body))
    with socket.create_connection(("127.0.0.1", other.port), BOUND) as leaving:
        leaving.sendall(head + body)
        until(lambda: other.stats()["active"] == 1)
    until(lambda: other.stats()["cancelled"] > before["cancelled"])
    until(lambda: other.stats()["active"] == 0)


def test_a_run_that_is_come_back_to(other: Other) -> None:
    where = http.post(other.url + "/runs", json={"question": "slowly"}).headers["location"]
    first = sse(http.get(other.url + where).text)
    again = http.get(other.url + where, headers={"Last-Event-ID": first[2][1]})
    assert sse(again.text) == first[3:]


def test_a_body_over_the_limit_is_refused(other: Other) -> None:
    reply = http.post(other.url + "/predict", content=b"[" * 1_500_000)
    assert (reply.status_code, reply.json()["error"]["type"]) == (413, "too_large")


def test_both_websockets(other: Other) -> None:
    with connect(other.url.replace("http", "ws") + "/ws") as websocket:
        websocket.send("why?")
        text = ""
        while (frame := websocket.recv(BOUND)) != "[DONE]":
            text += str(frame)
    assert text == "You asked: why?"
    until(lambda: other.stats()["active"] == 0)
    before = other.stats()
    with connect(other.url.replace("http", "ws") + "/ws") as websocket:
        websocket.send('{"type": "start", "id": 1, "inputs": {"question": "endless"}}')
        assert "started" in str(websocket.recv(BOUND))
    until(lambda: other.stats()["cancelled"] > before["cancelled"])


@pytest.mark.parametrize("outer", [FastAPI, Starlette])
def test_mounted_in_an_app_of_ones_own(outer: type[Starlette]) -> None:
    app = outer(routes=[Mount("/qa", create_app(qa()))])
    with TestClient(app) as client:
        assert client.post("/qa/predict", json={"question": "x"}).json()["answer"] == "You asked: x"
        created = client.post("/qa/runs", json={"question": "x"})
        assert created.headers["location"].startswith("/qa/runs/")
        assert "event: done" in client.get(created.headers["location"]).text
        assert client.get("/qa/openapi.json").json()["servers"] == [{"url": "/qa"}]
        with client.websocket_connect("/qa/ws") as socket:
            socket.send_text("why?")
            assert socket.receive_text() == "You "


def test_mounted_behind_a_prefix() -> None:
    app = FastAPI()
    app.mount("/qa", create_app(qa(), root_path="/company", forwarded_allow_ips=["127.0.0.1"]))
    with TestClient(app, client=("127.0.0.1", 1)) as client:
        assert client.get("/qa/openapi.json").json()["servers"] == [{"url": "/company/qa"}]
        told = {"X-Forwarded-Prefix": "/team"}
        assert client.get("/qa/openapi.json", headers=told).json()["servers"] == [{"url": "/team/qa"}]
        assert client.get("/qa/programs", headers=told).status_code == 200


def test_starlettes_test_client_sees_a_refused_websocket() -> None:
    with TestClient(create_app(qa(), api_keys=["key"])) as client:
        with pytest.raises(WebSocketDisconnect), client.websocket_connect("/ws"):
            pass
        assert client.post("/predict", json={"question": "x"}).status_code == 401


def test_the_test_client_ends_the_runs_that_nobody_reads() -> None:
    from tests.server.asgi_app import script

    service = Scripted(script)
    program = qa(script)
    object.__setattr__(program, "service", service)
    with TestClient(create_app(program, grace=3600)) as client:
        client.post("/runs", json={"question": "endless"})
    assert list(service.ended.values()) == ["CancelledError"]
