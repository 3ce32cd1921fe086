"""Shared runs while their store is frozen, slow, gone, or restarted empty, and when the server of a run is killed.

The run itself, and who reads it at its own server, must not notice; what others see is stated in docs/scale.md.
"""

from __future__ import annotations

import random
import signal
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from redis import Redis
from tests.server.support import Live, Tape, http, sse, until
from tests.server.test_runs import WORDS, joined, read, start
from tests.server.test_shared_runs import Event, Gate, servers
from tests.support.databases import Server
from tests.support.processes import Processes

from dspy_live.core.call import Call
from dspy_live.core.events import Predicted, Started
from dspy_live.runtime.stores import line
from dspy_live.server.runs.shared import followed_run


def expires_soon(store: Server) -> None:
    """Let the leases of all servers end in a moment, where nobody renews them."""
    with Redis(port=store.port) as admin:
        for server in admin.scan_iter("dspy-live:server:*"):
            admin.pexpire(server, 500)


def give_up_soon(live: Live) -> None:
    """Let the readers of a server's shared runs wait less long for a store or a server that is silent."""
    assert live.app.shared_runs is not None
    object.__setattr__(live.app.shared_runs._places, "lease", 1.0)


def says_that_it_lives(live: Live) -> None:
    """Let a server do so now, by which it finds a store that is empty."""
    assert live.app.shared_runs is not None
    live.app.shared_runs._line.soon(live.app.shared_runs._presence)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that did not answer is asked again soon."""
    monkeypatch.setattr(line, "REST", 0.05)
    monkeypatch.setattr(followed_run, "POLL", 0.1)


@pytest.fixture
def store(redis_server: Server) -> Iterator[Server]:
    yield redis_server
    if redis_server.process is not None:
        redis_server.process.send_signal(signal.SIGCONT)


def url(store: Server) -> str:
    return f"redis://127.0.0.1:{store.port}"


def freeze(store: Server) -> None:
    assert store.process is not None
    store.process.send_signal(signal.SIGSTOP)


def thaw(store: Server) -> None:
    assert store.process is not None
    store.process.send_signal(signal.SIGCONT)


class Halves:
    """A script whose second half waits for the test."""

    def __init__(self) -> None:
        self.half, self.rest = WORDS[: len(WORDS) // 2], WORDS[len(WORDS) // 2 :]
        self.gate = Gate()

    async def __call__(self, call: Call, tape: Tape) -> None:
        await tape.push(Started(call.id))
        await tape.tokens(self.half)
        await self.gate()
        await tape.tokens(self.rest)
        await tape.push(Predicted({"answer": WORDS}))


class Reader:
    """Reads a run's events bit by bit."""

    def __init__(self, live: Live, run: str, after: str | None = None) -> None:
        headers = {} if after is None else {"Last-Event-ID": after}
        request = http.build_request("GET", f"{live.url}/runs/{run}/events", headers=headers)
        self.reply = http.send(request, stream=True)
        assert self.reply.status_code == 200
        self._pieces = self.reply.iter_text()
        self._text = ""

    def read_until(self, text: str) -> str:
        while text not in self._text:
            self._text += next(self._pieces)
        return self._text

    def events(self) -> list[tuple[str, str, Any]]:
        """Read to the end; an event without an id has an empty one."""
        self._text += "".join(self._pieces)
        self.reply.close()
        return sse(
            self._text.replace("\ndata:", "\nid: \ndata:") if "\nid:" not in self._text else _with_ids(self._text)
        )


def _with_ids(text: str) -> str:
    blocks = [
        b if "\nid: " in b or not b.strip() else b.replace("\ndata:", "\nid: \ndata:", 1) for b in text.split("\n\n")
    ]
    return "\n\n".join(blocks)


def ids(events: list[Event]) -> list[int]:
    return [int(ident.partition(":")[2]) for _, ident, _ in events if ident]


def test_nothing_at_the_runs_own_server_waits_for_a_frozen_store(store: Server) -> None:
    script = Halves()
    with servers(url(store), script, timeout=0.3) as (first, second):
        run = start(first)
        reader = Reader(first, run)
        reader.read_until('"last":true')
        freeze(store)
        script.gate.open()
        assert joined(reader.events()) == WORDS
        another = start(first)
        assert joined(read(first, another)) == WORDS
        for method, path in (("GET", f"/runs/{run}"), ("GET", f"/runs/{run}/events"), ("DELETE", f"/runs/{run}")):
            reply = http.request(method, second.url + path)
            assert (reply.status_code, reply.json()["error"]["type"]) == (503, "store_unreachable")
            assert reply.headers["retry-after"]
        thaw(store)
        for one in (run, another):
            until(lambda one=one: status(second, one) == "succeeded")  # type: ignore[misc]
            assert joined(whole(second, one)) == WORDS


def test_a_reader_elsewhere_waits_for_a_store_that_is_slow_and_misses_nothing(store: Server) -> None:
    async def slow_words(call: Call, tape: Tape) -> None:
        await tape.push(Started(call.id))
        await tape.tokens(WORDS, pause=0.01)
        await tape.push(Predicted({"answer": WORDS}))

    with servers(url(store), slow_words) as (first, second), Redis(port=store.port) as admin:
        reader = Reader(second, start(first))
        reader.read_until("w3")
        for word in ("w9", "w40"):
            admin.client_pause(400)
            reader.read_until(word)
        events = reader.events()
    assert joined(events) == WORDS
    assert ids(events) == list(range(1, len(events) + 1))


def test_a_store_that_is_restarted_empty_is_told_again(store: Server) -> None:
    script = Halves()
    with servers(url(store), script) as (first, second):
        run = start(first)
        reader = Reader(second, run)
        reader.read_until('"last":true')
        store.stop()
        store.start()
        says_that_it_lives(first)
        script.gate.open()
        events = reader.events()
        assert joined(events) == WORDS
        assert ids(events) == list(range(1, len(events) + 1))
        assert joined(read(second, run)) == WORDS, "from its beginning"


def test_a_run_that_was_over_is_told_to_a_store_that_is_restarted_empty(store: Server) -> None:
    script = Halves()
    script.gate.open()
    with servers(url(store), script) as (first, second):
        run = start(first)
        assert joined(read(first, run)) == WORDS
        store.stop()
        store.start()
        says_that_it_lives(first)
        until(lambda: http.get(f"{second.url}/runs/{run}").status_code == 200)
        assert joined(read(second, run)) == WORDS


def test_a_reader_elsewhere_is_told_that_the_store_is_gone_and_may_come_back(store: Server) -> None:
    script = Halves()
    with servers(url(store), script, timeout=0.3) as (first, second):
        run = start(first)
        reader = Reader(second, run)
        reader.read_until('"last":true')
        give_up_soon(second)
        freeze(store)
        events = reader.events()
        assert [name for name, _, _ in events[-2:]] == ["error", "done"]
        assert (events[-2][1], events[-2][2]["error"]["type"]) == ("", "store_unreachable")
        thaw(store)
        script.gate.open()
        rest = whole(second, run, ids(events)[-1])
    assert joined([*events, *rest]) == WORDS
    assert ids([*events[:-2], *rest]) == list(range(1, len(events) - 1 + len(rest)))


def test_a_full_store_holds_nothing_up_and_is_told_what_it_missed(store: Server) -> None:
    script = Halves()
    with servers(url(store), script) as (first, second), Redis(port=store.port) as admin:
        run = start(first)
        reader = Reader(first, run)
        reader.read_until('"last":true')
        admin.config_set("maxmemory", 1)
        script.gate.open()
        assert joined(reader.events()) == WORDS
        assert joined(read(first, start(first))) == WORDS
        admin.config_set("maxmemory", 0)
        until(lambda: status(second, run) == "succeeded")
        assert joined(read(second, run)) == WORDS


def status(live: Live, run: str) -> str | None:
    """How a run stands; nothing where its server does not know."""
    found: str | None = http.get(f"{live.url}/runs/{run}").json().get("status")
    return found


def hop(live: Live, run: str, last: int, most: int) -> tuple[list[Event], bool]:
    """Read some events after a number at one server, as a client that comes back; whether the run is over too."""
    headers = {"Last-Event-ID": f"{run}:{last}"}
    with http.stream("GET", f"{live.url}/runs/{run}/events", headers=headers) as reply:
        assert reply.status_code in (200, 204, 503), reply.read()
        text = ""
        for piece in reply.iter_text() if reply.status_code == 200 else ():
            text += piece
            if text.count("\nid: ") >= most:
                break
        whole = text[: text.rindex("\n\n") + 2] if "\n\n" in text else ""
    events = [event for event in sse(_with_ids(whole)) if event[1]] if whole else []
    return events, reply.status_code == 204 or (bool(events) and events[-1][0] == "done")


def whole(live: Live, run: str, last: int = 0) -> list[Event]:
    """Read all events after a number, as a client that comes back where it was told to."""
    events: list[Event] = []
    over = False
    while not over:
        more, over = hop(live, run, ids(events)[-1] if events else last, 1000)
        events += more
    return events


@pytest.mark.parametrize("seed", [103])
def test_whatever_becomes_of_the_store_each_event_comes_once_to_one_who_returns(store: Server, seed: int) -> None:
    chance = random.Random(seed)

    async def slow_words(call: Call, tape: Tape) -> None:
        await tape.push(Started(call.id))
        await tape.tokens(WORDS, pause=0.02)
        await tape.push(Predicted({"answer": WORDS}))

    over = threading.Event()

    def trouble() -> None:
        while not over.wait(chance.random() / 5):
            kind = chance.choice(["restart", "freeze", "slow"])
            if kind == "restart":
                store.stop()
                store.start()
            elif kind == "freeze":
                freeze(store)
                over.wait(chance.random())
                thaw(store)
            else:
                with Redis(port=store.port) as admin:
                    admin.client_pause(chance.randint(1, 200))

    with servers(url(store), slow_words, timeout=0.2) as both:
        run = start(both[0])
        troubled = threading.Thread(target=trouble)
        troubled.start()
        try:
            events: list[Event] = []
            ended = False
            while not ended:
                more, ended = hop(chance.choice(both), run, ids(events)[-1] if events else 0, chance.randint(1, 30))
                events += more
        finally:
            over.set()
            troubled.join(30)
    assert joined(events) == WORDS
    assert ids(events) == list(range(1, len(events) + 1))


SERVER = """
import asyncio
from tests.server.support import serving, qa, create_app
from dspy_live.core.events import Started
from dspy_live.server.runs.shared.shared_runs import SharedRuns

async def script(call, tape):
    await tape.push(Started(call.id))
    await tape.tokens("one two three")
    await asyncio.Event().wait()

with serving(create_app(qa(script), shared_runs=SharedRuns(sys.argv[1]))) as live:
    tell(live.url)
    wait_for_a_word()
"""


@pytest.fixture
def doomed(store: Server) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A server in a process of its own: its address, and the process."""
    with Processes(SERVER, [(url(store),)]) as processes:
        yield processes.hear()[0], processes.all[0]
        processes.all[0].send_signal(signal.SIGCONT)


def begun(where: str) -> str:
    reply = http.post(where + "/runs", json={"question": "x"})
    run: str = reply.json()["run"]["id"]
    return run


def test_a_run_whose_server_is_killed_ends_with_an_error_for_all(
    store: Server, doomed: tuple[str, subprocess.Popen[str]]
) -> None:
    where, process = doomed
    with servers(url(store), Halves(), number=1) as (second,):
        run, unread = begun(where), begun(where)
        reader = Reader(second, run)
        reader.read_until("three")
        process.kill()
        give_up_soon(second)
        expires_soon(store)
        events = reader.events()
        assert joined(events) == "one two three"
        assert [name for name, _, _ in events[-2:]] == ["error", "done"]
        assert events[-2][2]["error"] == {
            "type": "stream_broken",
            "message": "the server that ran this run has not been heard of, and the run has ended with it",
            "run_id": run,
        }
        again = Reader(second, run).events()
        assert joined(again) == "one two three", "who comes later gets what there was, and the same end"
        assert again[-2][2] == events[-2][2]
        for one in (run, unread):
            told = http.get(f"{second.url}/runs/{one}").json()
            assert (told["status"], told["error"]["type"]) == ("failed", "stream_broken")
            assert http.delete(f"{second.url}/runs/{one}").status_code == 204


def test_a_run_whose_server_was_stopped_for_long_goes_on_where_it_was(
    store: Server, doomed: tuple[str, subprocess.Popen[str]]
) -> None:
    where, process = doomed
    with servers(url(store), Halves(), number=1) as (second,):
        run = begun(where)
        reader = Reader(second, run)
        reader.read_until("three")
        process.send_signal(signal.SIGSTOP)
        give_up_soon(second)
        expires_soon(store)
        assert reader.events()[-2][2]["error"]["type"] == "stream_broken"
        process.send_signal(signal.SIGCONT)
        until(lambda: status(second, run) == "running")
        assert http.delete(f"{second.url}/runs/{run}").status_code == 202
        assert read(second, run)[-2][2]["error"]["type"] == "cancelled"
