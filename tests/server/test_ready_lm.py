"""Readiness and the LM: what is told of it, when it is asked, what a dead one means."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from http import server as http_server
from typing import Any

import dspy
import pytest
from dspy.utils.exceptions import LMError
from tests.server.support import Tape, http, qa, serving, until

import dspy_live
from dspy_live.core.call import Call
from dspy_live.core.errors import ConfigurationError, LMBadReply, LMFailed
from dspy_live.core.events import Started
from dspy_live.layers import Breaker
from dspy_live.loading.ask_lm import ask_lm
from dspy_live.runtime.runtime import Runtime
from dspy_live.server import create_app, lm_watch
from dspy_live.server.lm_watch import LMWatch


class Endpoint:
    """An LM's HTTP server that answers every request with a status, and remembers what it was asked."""

    def __init__(self, status: int) -> None:
        self.asked: list[str] = []
        asked = self.asked

        class Handler(http_server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(f"{self.command} {self.path} {self.headers['Authorization']}")
                self.send_response(status)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            do_POST = do_GET  # noqa: N815  -- so the library calls it

            def log_message(self, *words: Any) -> None:
                pass

        self.server = http_server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()


@contextlib.contextmanager
def endpoint(status: int = 200) -> Iterator[Endpoint]:
    one = Endpoint(status)
    try:
        yield one
    finally:
        one.server.shutdown()
        one.server.server_close()


def dead_url() -> str:
    """The address of a socket that is bound and does not listen."""
    closed = socket.socket()
    closed.bind(("127.0.0.1", 0))
    _closed.append(closed)
    return f"http://127.0.0.1:{closed.getsockname()[1]}/v1"


_closed: list[socket.socket] = []


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """An LM that is late has answered all the same."""
    monkeypatch.setattr(lm_watch, "WAIT_SECONDS", 30.0)
    monkeypatch.setattr(lm_watch, "ASK_SECONDS", 30.0)


@pytest.fixture(autouse=True)
def close_sockets() -> Iterator[None]:
    yield
    while _closed:
        _closed.pop().close()


def lm_at(url: str, **more: Any) -> dspy_live.LM:
    return dspy_live.LM("openai/some", api_base=url, api_key="secret", cache=False, **more)


def program_with(lm: Any) -> dspy.Module:
    program = dspy.Predict("question -> answer")
    program.set_lm(lm)
    return program


def test_a_living_lm_is_asked_for_its_models_and_no_token() -> None:
    with endpoint() as lm:
        with serving(dspy_live.create_app(program_with(lm_at(lm.url)), ready_lm=3600)) as live:
            for _ in range(5):
                reply = http.get(live.url + "/health/ready")
                assert (reply.status_code, reply.json()["lm"]["status"]) == (200, "answers")
    assert lm.asked == ["GET /v1/models Bearer secret"]


@pytest.mark.parametrize("status", [500, 503, 401, 403])
def test_an_lm_that_is_ill_or_refuses_the_key_makes_the_server_unready(status: int) -> None:
    with endpoint(status) as lm, serving(dspy_live.create_app(program_with(lm_at(lm.url)), ready_lm=3600)) as live:
        reply = http.get(live.url + "/health/ready")
        assert http.get(live.url + "/health/live").status_code == 200
    assert (reply.status_code, reply.json()["status"]) == (503, "lm_does_not_answer")
    assert reply.json()["lm"]["error"] == "lm_failed"


def test_an_endpoint_without_a_list_of_models_is_there() -> None:
    with endpoint(404) as lm, serving(dspy_live.create_app(program_with(lm_at(lm.url)), ready_lm=3600)) as live:
        assert http.get(live.url + "/health/ready").status_code == 200


def test_a_dead_lm_makes_the_server_unready() -> None:
    with serving(dspy_live.create_app(program_with(lm_at(dead_url())), ready_lm=3600)) as live:
        assert http.get(live.url + "/health/ready").status_code == 503


def test_the_simulated_lm_is_not_asked() -> None:
    with serving(dspy_live.create_app(program_with(dspy_live.sim_lm()), ready_lm=3600)) as live:
        assert http.get(live.url + "/health/ready").json()["lm"]["status"] == "answers"


def test_another_engines_lm_is_asked_for_one_token() -> None:
    with endpoint(500) as lm, pytest.raises(LMError):
        asyncio.run(ask_lm(lm_at(lm.url, model_type="responses")))
    assert lm.asked == ["POST /v1/responses Bearer secret"]


def test_without_the_option_the_runs_tell_and_readiness_stays() -> None:
    async def script(call: Call, tape: Tape) -> None:
        await tape.push(Started(call.id))
        raise LMFailed("down") if call.inputs["question"] == "down" else LMBadReply("odd")

    with serving(qa(script)) as live:
        assert http.get(live.url + "/health/ready").json()["lm"] == {"status": "unknown", "heard_s": None}
        http.post(live.url + "/predict", json={"question": "odd"})
        assert http.get(live.url + "/health/ready").json()["lm"]["status"] == "unknown"
        http.post(live.url + "/predict", json={"question": "down"})
        reply = http.get(live.url + "/health/ready")
    assert reply.status_code == 200
    told = reply.json()["lm"]
    assert (told["status"], told["error"]) == ("fails", "lm_failed")
    assert told["heard_s"] >= 0


def test_a_runs_success_says_that_the_lm_answers() -> None:
    with serving(qa()) as live:
        http.post(live.url + "/predict", json={"question": "x"})
        assert http.get(live.url + "/health/ready").json()["lm"]["status"] == "answers"


async def test_a_run_that_fails_has_the_lm_asked_anew() -> None:
    asked = 0

    async def ask() -> None:
        nonlocal asked
        asked += 1

    watch = LMWatch(3600.0, ask)
    assert not watch.ready
    await watch.look()
    await watch.look()
    assert (watch.ready, asked) == (True, 1)
    watch.run_ended(LMBadReply("of this run's making"))
    await watch.look()
    assert asked == 1
    watch.run_ended(LMFailed("perhaps of this run's making"))
    assert watch.ready
    await watch.look()
    assert (watch.ready, asked) == (True, 2)


async def test_many_checks_ask_once_and_a_slow_lm_holds_none_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lm_watch, "WAIT_SECONDS", 0.01)
    may_answer, asked = asyncio.Event(), 0

    async def ask() -> None:
        nonlocal asked
        asked += 1
        await may_answer.wait()

    watch = LMWatch(3600.0, ask)
    await asyncio.gather(*(watch.look() for _ in range(20)))
    assert (watch.ready, asked, watch.report()["status"]) == (False, 1, "unknown")
    monkeypatch.setattr(lm_watch, "WAIT_SECONDS", 30.0)
    may_answer.set()
    await watch.look()
    assert (watch.ready, asked) == (True, 1)


async def test_an_lm_that_says_nothing_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lm_watch, "ASK_SECONDS", 0.01)
    watch = LMWatch(3600.0, asyncio.Event().wait)
    await watch.look()
    assert (watch.ready, watch.report()["error"]) == (False, "lm_timeout")


async def test_asking_ends_with_the_server() -> None:
    ended: list[str] = []

    async def ask() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    watch = LMWatch(3600.0, ask)
    asking = asyncio.create_task(watch.look())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await watch.close()
    await asking
    assert ended == ["cancelled"]


@pytest.mark.parametrize("options", [{"ready_lm": 0, "ask_lm": asyncio.sleep}, {"ready_lm": 5.0}])
def test_settings_that_can_not_work(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="ready_lm"):
        create_app(qa(), **options)


def test_behind_an_open_breaker_a_dead_lm_is_told_at_once() -> None:
    """Each run waited for its LM's three retries, 3.3 seconds, to say that the LM was still dead."""
    with endpoint(500) as lm:
        runtime = Runtime(lm_layers=[Breaker(minimum=2, open_for=3600.0)])
        app = dspy_live.create_app(program_with(lm_at(lm.url)), runtime=runtime)
        with serving(app) as live:

            def ask() -> Any:
                return http.post(live.url + "/predict", json={"question": "x"}, timeout=60)

            until(lambda: ask().json()["error"]["type"] == "circuit_open", 60)
            before = len(lm.asked)
            replies = [ask() for _ in range(5)]
    assert {(reply.status_code, reply.json()["error"]["type"]) for reply in replies} == {(503, "circuit_open")}
    assert all(reply.headers["retry-after"] for reply in replies)
    assert len(lm.asked) == before == 2
