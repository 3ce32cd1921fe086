"""Conversations that two servers keep in one Redis: frozen, gone, restarted empty, and used from both at once."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from redis import Redis
from tests.server.support import Live, http, qa, serving, until
from tests.server.test_sessions import CHAT, repeats
from tests.support.databases import Server
from tests.support.until import BOUND

from dspy_live.server import create_app
from dspy_live.server.sessions.redis import RedisSessions

PATIENCE = 20.0
"""Seconds for which a store may stand still."""


def waits(live: Live, seconds: float) -> None:
    """Let a server wait so long for its store from now on."""
    store: Any = live.app.sessions.store
    pool = store._redis.connection_pool
    pool.connection_kwargs |= {"socket_timeout": seconds, "socket_connect_timeout": seconds}

    async def begin_anew() -> None:
        await pool.disconnect()
        pool.reset()

    asyncio.run_coroutine_threadsafe(begin_anew(), live.loop).result(BOUND)


@contextmanager
def servers(store: Server) -> Iterator[tuple[Live, Live]]:
    def app() -> Any:
        sessions = RedisSessions(f"redis://127.0.0.1:{store.port}", timeout=PATIENCE)
        return create_app(qa(repeats, CHAT), sessions=sessions)

    with serving(app()) as one, serving(app()) as two:
        yield one, two


@pytest.fixture
def store(redis_server: Server) -> Iterator[Server]:
    yield redis_server
    if redis_server.process is not None:
        redis_server.process.send_signal(signal.SIGCONT)


def say(live: Live, text: str, session: str | None = "s") -> Any:
    rest: dict[str, Any] = {"session": session} if session else {"history": {"messages": []}}
    return http.post(live.url + "/predict", json={"question": text} | rest)


def kept(live: Live) -> list[str]:
    reply = http.get(live.url + "/sessions/s")
    return [message["question"] for turn in reply.json()["turns"] for message in turn["messages"]]


def refused(reply: Any) -> bool:
    return (reply.status_code, reply.json().get("error", {}).get("type")) == (503, "sessions_down")


@pytest.mark.parametrize("way", ["frozen", "gone"])
def test_a_conversation_waits_for_its_store_and_the_rest_goes_on(store: Server, way: str) -> None:
    with servers(store) as (one, two):
        assert say(one, "first").status_code == 200
        if way == "gone":
            store.stop()
        else:
            assert store.process is not None
            store.process.send_signal(signal.SIGSTOP)
        for live in (one, two):
            waits(live, 0.3)
            asked = len(live.service.calls)
            assert refused(say(live, "second"))
            assert refused(http.get(live.url + "/sessions/s"))
            assert len(live.service.calls) == asked, "no LM is asked"
            assert say(live, "alone", session=None).status_code == 200
            waits(live, PATIENCE)
        if way == "gone":
            store.start()
            until(lambda: say(two, "anew").status_code == 200)
            assert kept(one) == ["anew"], "a server that comes back empty has none of them"
        else:
            assert store.process is not None
            store.process.send_signal(signal.SIGCONT)
            until(lambda: say(two, "second").status_code == 200)
            assert kept(one) == ["first", "second"]


def test_a_full_store_is_as_one_that_is_gone(store: Server) -> None:
    with servers(store) as (one, two), Redis(port=store.port) as admin:
        assert say(one, "first").status_code == 200
        admin.config_set("maxmemory", 1)
        assert refused(say(two, "second"))
        admin.config_set("maxmemory", 0)
        assert say(two, "third").status_code == 200
        assert kept(one) == ["first", "third"]


def test_turns_of_two_servers_at_once_are_all_kept(store: Server) -> None:
    with servers(store) as (one, two):
        assert say(one, "first").status_code == 200
        threads = [
            threading.Thread(target=lambda live=live, n=n: say(live, f"{n}"))  # type: ignore[misc]
            for n, live in enumerate([one, two] * 5)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(BOUND)
        assert kept(two)[0] == "first"
        assert sorted(kept(two)[1:]) == [str(n) for n in range(10)]
