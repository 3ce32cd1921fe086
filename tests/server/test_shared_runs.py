"""Runs that servers share through a Redis or Valkey: begun at one of them, read and stopped at another."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from redis import Redis
from tests.server.support import Live, Script, Tape, http, qa, serving, sse, until
from tests.server.test_runs import WORDS, joined, read, start, words
from tests.support.databases import Server
from tests.support.until import async_until

from dspy_live.core.call import Call
from dspy_live.core.errors import ConfigurationError, LMFailed
from dspy_live.core.events import Predicted, Started, Token
from dspy_live.server import create_app
from dspy_live.server.runs.shared.shared_runs import SharedRuns

Event = tuple[str, str, Any]


@contextmanager
def servers(url: str, script: Script, number: int = 2, lease: float = 6.0, **options: Any) -> Iterator[list[Live]]:
    """Servers of one program that share their runs; the first one's is scripted, the others' are never asked.

    Their store may stand still for long before they call it gone, where no ``timeout`` is given.
    """
    shared = {"timeout": 20.0} | {name: options.pop(name) for name in ("most_bytes", "timeout") if name in options}

    def app() -> Any:
        return create_app(qa(script), shared_runs=SharedRuns(url, lease=lease, **shared), **options)

    with serving(app()) as first:
        if number == 1:
            yield [first]
            return
        with serving(app()) as second:
            yield [first, second]


async def endless(call: Call, tape: Tape) -> None:
    await tape.push(Started(call.id))
    await asyncio.Event().wait()


class Gate:
    """Lets a script on, from the test's thread."""

    def __init__(self) -> None:
        self.opened = threading.Event()

    async def __call__(self) -> None:
        await async_until(self.opened.is_set)

    def open(self) -> None:
        self.opened.set()


def test_a_reader_goes_from_server_to_server_and_misses_nothing(redis_url: str) -> None:
    async def slow_words(call: Call, tape: Tape) -> None:
        await tape.push(Started(call.id))
        await tape.tokens(WORDS, pause=0.01)
        await tape.push(Predicted({"answer": WORDS}))

    with servers(redis_url, slow_words) as (first, second):
        run = start(first)
        events: list[Event] = []
        readers = 0
        while not events or events[-1][0] != "done":
            live = (second, first)[readers % 2]
            events += read(live, run, events[-1][1] if events else None, most=17)
            readers += 1
    assert joined(events) == WORDS
    assert [ident for _, ident, _ in events] == [f"{run}:{i}" for i in range(1, len(events) + 1)]
    assert readers > 5
    assert not second.service.calls


def test_another_server_reads_a_run_that_is_over_and_tells_what_came_of_it(redis_url: str) -> None:
    with servers(redis_url, words) as (first, second):
        run = start(first)
        there = read(second, run)
        assert joined(there) == WORDS
        assert read(first, run) == there
        assert http.get(f"{second.url}/runs/{run}").json() == http.get(f"{first.url}/runs/{run}").json()
        after_all = {"Last-Event-ID": there[-1][1]}
        assert http.get(f"{second.url}/runs/{run}/events", headers=after_all).status_code == 204
        assert http.delete(f"{second.url}/runs/{run}").status_code == 204
    with servers(redis_url, words, number=1) as (third,):
        assert read(third, run) == there, "its server has ended, and the run is kept"
        assert http.get(f"{third.url}/runs/{run}").json()["outputs"] == {"answer": WORDS}


def test_another_server_stops_a_run_and_all_readers_see_it(redis_url: str) -> None:
    with servers(redis_url, endless) as (first, second):
        run = start(first)
        with http.stream("GET", f"{second.url}/runs/{run}/events") as reply:
            assert http.get(f"{second.url}/runs/{run}").json()["status"] == "running"
            assert http.delete(f"{second.url}/runs/{run}").status_code == 202
            events = sse(reply.read().decode())
        assert [name for name, _, _ in events] == ["started", "error", "done"]
        assert events[1][2]["error"]["type"] == "cancelled"
        assert first.service.ended[run] == "CancelledError"
        told = http.get(f"{second.url}/runs/{run}").json()
    assert (told["status"], told["error"]["type"]) == ("cancelled", "cancelled")


def test_a_clients_own_name_finds_its_run_at_every_server(redis_url: str) -> None:
    with servers(redis_url, endless) as (first, second):
        named = {"X-Client-Run-Id": "mine"}
        run = http.post(first.url + "/runs", json={"question": "x"}, headers=named).json()["run"]["id"]
        for live in (first, second):
            assert http.get(f"{live.url}/runs/mine").json()["run"]["id"] == run
        with http.stream("GET", f"{second.url}/runs/mine/events") as reply:
            assert reply.headers["x-run-id"] == run
            assert http.delete(f"{second.url}/runs/mine").status_code == 202
            events = sse(reply.read().decode())
    assert [ident for _, ident, _ in events] == [f"{run}:1", f"{run}:2", f"{run}:3"]


def test_a_run_of_another_door_is_stopped_from_another_server(redis_url: str) -> None:
    with servers(redis_url, endless) as (first, second):
        for by_name in (True, False):
            headers = {"X-Client-Run-Id": "mine"} if by_name else {}
            with http.stream("POST", first.url + "/predict/stream", json={"question": "x"}, headers=headers) as reply:
                name = "mine" if by_name else reply.headers["x-run-id"]
                assert http.delete(f"{second.url}/runs/{name}").status_code == 202
                events = sse(reply.read().decode())
            assert events[1][2]["error"]["type"] == "cancelled"


def test_a_stop_stays_in_its_database(redis_url: str) -> None:
    """Channels are the whole server's: a test's site on database 1 must not stop the runs of the one on database 0."""
    with servers(f"{redis_url}/0", endless) as (first, second), servers(f"{redis_url}/1", endless, 1) as (other,):
        for live in (first, other):
            made = http.post(live.url + "/runs", json={"question": "x"}, headers={"X-Client-Run-Id": "tab-1"})
            assert made.status_code == 201
        assert http.delete(f"{second.url}/runs/tab-1").status_code == 202
        until(lambda: not len(first.app.runs))
        http.delete(f"{second.url}/runs/tab-2")  # asked of all that hear it, and answered: nothing else is on its way
        assert len(other.app.runs) == 1


def test_a_run_that_nobody_has_is_not_found_once_all_had_time_to_tell(redis_url: str) -> None:
    """A store that is empty may have been restarted a moment ago: a run was told to be none that was."""
    with servers(redis_url, endless, lease=0.3) as (first, second):
        path = f"{second.url}/runs/{'0' * 32}"
        for method, rest in (("GET", ""), ("GET", "/events"), ("DELETE", "")):
            until(lambda method=method, rest=rest: http.request(method, path + rest).status_code == 404)  # type: ignore[misc]
        run = start(first)

        def status_after_a_restart() -> int:
            with Redis.from_url(redis_url) as admin:
                admin.flushall()
            return http.get(f"{second.url}/runs/{run}").status_code

        told = [status_after_a_restart() for _ in range(5)]
        assert sum(each in (200, 503) for each in told) > 3, told  # 404 where all stood still, and had their time
        until(lambda: http.get(f"{second.url}/runs/{run}").status_code == 200)


def test_a_run_belongs_to_its_key_at_every_server(redis_url: str) -> None:
    with servers(redis_url, endless, lease=0.3, api_keys={"ann": "a-key", "bob": "b-key"}) as (first, second):
        ann, bob = ({"X-API-Key": f"{name}-key"} for name in "ab")
        named = ann | {"X-Client-Run-Id": "mine"}
        run = http.post(first.url + "/runs", json={"question": "x"}, headers=named).json()["run"]["id"]
        until(lambda: http.get(f"{second.url}/runs/mine", headers=bob).status_code == 404)  # not 503: all is told
        for name in (run, "mine"):
            assert http.get(f"{second.url}/runs/{name}", headers=ann).status_code == 200
            for method, path in (
                ("GET", f"/runs/{name}"),
                ("GET", f"/runs/{name}/events"),
                ("DELETE", f"/runs/{name}"),
            ):
                assert http.request(method, second.url + path, headers=bob).status_code == 404
        assert len(first.app.runs) == 1


def test_what_can_name_no_run_reaches_none_of_the_stores_other_keys(redis_url: str) -> None:
    with servers(redis_url, endless) as (first, second):
        run = start(first)
        for name in (f"{run}:events", f"run:{run}", f"{run}%00", "*", "x" * 129):
            for method, path in (("GET", ""), ("GET", "/events"), ("DELETE", ""), ("POST", "/stop")):
                reply = http.request(method, f"{second.url}/runs/{name}{path}")
                assert reply.status_code == 404, "at once: nobody is asked"
        assert len(first.app.runs) == 1


def test_the_newest_reader_of_all_servers_takes_over(redis_url: str) -> None:
    gate = Gate()

    async def script(call: Call, tape: Tape) -> None:
        await tape.push(Started(call.id))
        await gate()
        await tape.push(Predicted({"answer": ""}))

    with servers(redis_url, script) as (first, second):
        run = start(first)
        path = f"/runs/{run}/events"
        order = (first, second, first, second, second)
        replies = []
        for live in order:
            reply = http.send(http.build_request("GET", live.url + path), stream=True)
            pieces = reply.iter_text()
            assert "started" in next(pieces)
            if replies:
                assert "done" not in "".join(replies[-1][1]), "the one before ends, and says nothing of an end"
            replies.append((reply, pieces))
        gate.open()
        assert "[DONE]" in "".join(replies[-1][1])
        for reply, _ in replies:
            reply.close()


def test_a_reader_elsewhere_makes_room_and_its_leaving_begins_the_grace(redis_url: str) -> None:
    async def at_once(call: Call, tape: Tape) -> None:
        await tape.push(Started(call.id))
        await tape.tokens(" ".join(["w"] * 500))
        await asyncio.Event().wait()

    with servers(redis_url, at_once, grace=3600) as (first, second):
        run = start(first)
        until(lambda: bool(first.service.tapes) and first.service.tapes[0].waits)
        assert first.service.tapes[0].pushed == 64
        first.app.grace = 1.0
        events = read(second, run, most=501)
        assert len(events) == 501
        until(lambda: run in first.service.ended)
        end = read(second, run, events[-1][1])
    assert end[0][2]["error"]["type"] == "cancelled"
    assert "1 seconds" in end[0][2]["error"]["message"]


def test_a_slow_reader_elsewhere_makes_the_lm_wait(redis_url: str) -> None:
    async def flood(call: Call, tape: Tape) -> None:
        await tape.push(Started(call.id))
        while True:
            await tape.push(Token("x" * 20_000, "answer", "predict", 1, False))

    with servers(redis_url, flood) as (first, second):
        run = start(first)
        with second.connect(rcvbuf=4096) as slow:
            slow.sendall(second.request("GET", f"/runs/{run}/events"))
            until(lambda: bool(first.service.tapes))
            tape = first.service.tapes[0]
            until(lambda: tape.pushed > 64)
            first.settled(lambda: tape.pushed, lambda: tape.waits)
            assert tape.pushed < 1000, "sockets hold some megabytes at most"


def test_the_oldest_events_of_a_long_run_go_first(redis_url: str) -> None:
    with servers(redis_url, words, most_bytes=4000) as (first, second):
        run = start(first)
        read(first, run)
        until(lambda: http.get(f"{second.url}/runs/{run}").json()["status"] == "succeeded")
        url = f"{second.url}/runs/{run}/events"
        gone = http.get(url)
        assert gone.status_code == 410
        kept = int(gone.json()["error"]["message"].partition("number ")[2].partition(" ")[0])
        assert kept > 40
        rest = read(second, run, f"{run}:{kept - 1}")
    assert rest[0][1] == f"{run}:{kept}"
    assert rest[-1][0] == "done"


def test_a_failure_is_told_everywhere(redis_url: str) -> None:
    async def script(call: Call, tape: Tape) -> None:
        await tape.push(Started(call.id))
        raise LMFailed("the LM is down")

    with servers(redis_url, script) as (first, second):
        run = start(first)
        events = read(second, run)
        assert http.get(f"{second.url}/runs/{run}").json()["error"]["type"] == "lm_failed"
    assert [name for name, _, _ in events] == ["started", "error", "done"]


def test_a_server_that_ends_tells_all_before_it_goes(redis_url: str) -> None:
    with servers(redis_url, words, number=1) as (second,):
        with servers(redis_url, endless, number=1) as (first,):
            run = start(first)
        events = read(second, run)
        status = http.get(f"{second.url}/runs/{run}").json()["status"]
    assert [name for name, _, _ in events] == ["started", "error", "done"]
    assert events[1][2]["error"]["type"] == "draining"
    assert status == "failed"


def test_what_can_not_work_is_refused(redis_server: Server) -> None:
    url = f"redis://127.0.0.1:{redis_server.port}"
    for wrong in ({"lease": 0}, {"most_bytes": 0}, {"timeout": 0}):
        with pytest.raises(ConfigurationError):
            SharedRuns(url, **wrong)
    with pytest.raises(ConfigurationError):
        SharedRuns("http://example.org")
