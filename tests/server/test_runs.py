"""Runs that a reader may leave and come back to."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.server.support import Live, Tape, http, in_process, qa, scripted, serving, sse, until

from dspy_live.core.call import Call
from dspy_live.core.errors import LMFailed
from dspy_live.core.events import Predicted, Started, Token
from dspy_live.server import create_app
from dspy_live.testing import virtual_time

WORDS = " ".join(f"w{i}" for i in range(100))


async def words(call: Call, tape: Tape) -> None:
    await tape.push(Started(call.id))
    await tape.tokens(WORDS, pause=0.001)
    await tape.push(Predicted({"answer": WORDS}))


def start(live: Live) -> str:
    reply = http.post(live.url + "/runs", json={"question": "x"})
    assert reply.status_code == 201
    body = reply.json()
    assert reply.headers["location"] == body["events"] == f"/runs/{body['run']['id']}/events"
    assert reply.headers["x-run-id"] == body["run"]["id"]
    run: str = body["run"]["id"]
    return run


def read(live: Live, run: str, after: str | None = None, most: int | None = None) -> list[tuple[str, str, Any]]:
    """Read events, all or the first ``most``, then leave."""
    headers = {} if after is None else {"Last-Event-ID": after}
    with http.stream("GET", f"{live.url}/runs/{run}/events", headers=headers) as reply:
        assert reply.status_code == 200
        text = ""
        for piece in reply.iter_text():
            text += piece
            if most is not None and text.count("\n\n") >= most:
                break
    events = sse(text[: text.rindex("\n\n") + 2])
    return events if most is None else events[:most]


def joined(events: list[tuple[str, str, Any]]) -> str:
    return "".join(data["text"] for name, _, data in events if name == "token")


def test_a_reader_that_leaves_and_returns_misses_nothing() -> None:
    with serving(qa(words)) as live:
        run = start(live)
        events: list[tuple[str, str, Any]] = []
        while not events or events[-1][0] != "done":
            events += read(live, run, events[-1][1] if events else None, most=17)
    assert joined(events) == WORDS
    assert [ident for _, ident, _ in events] == [f"{run}:{i}" for i in range(1, len(events) + 1)]


def test_without_an_id_the_run_is_read_from_its_beginning() -> None:
    with serving(qa(words)) as live:
        run = start(live)
        read(live, run, most=5)
        assert joined(read(live, run)) == WORDS
        assert joined(read(live, run)) == WORDS


def test_a_run_that_is_over_and_read_answers_204() -> None:
    with serving(qa(words), keep_runs=0.1) as live:
        run = start(live)
        last = read(live, run)[-1][1]
        url = f"{live.url}/runs/{run}/events"
        assert http.get(url, headers={"Last-Event-ID": last}).status_code == 204
        assert http.delete(f"{live.url}/runs/{run}").status_code == 204
        until(lambda: live.app.resumables.is_over(run, ""))
        assert http.get(url).status_code == 204
        assert http.get(f"{live.url}/runs/{run}").status_code == 410
        assert http.get(url, headers={"Last-Event-ID": last}).status_code == 204


@virtual_time
async def test_nobody_reads_so_the_lm_waits_and_after_the_grace_the_run_is_stopped() -> None:
    async def at_once(call: Call, tape: Tape) -> None:
        await tape.push(Started(call.id))
        await tape.tokens(WORDS)

    app = create_app(qa(at_once), grace=0.4)
    service = scripted(app.default)
    async with in_process(app) as client:
        begun = await client.post("/runs", json={"question": "x"})
        await asyncio.sleep(0.39)
        assert (service.tapes[0].waits, service.tapes[0].pushed, service.ended) == (True, 64, {})
        await asyncio.sleep(0.02)
        assert list(service.ended.values()) == ["CancelledError"]
        events = sse((await client.get(begun.headers["location"])).text)
    assert [n for n, _, _ in events[-2:]] == ["error", "done"]
    assert events[-2][2]["error"]["type"] == "cancelled"
    assert "0.4 seconds" in events[-2][2]["error"]["message"]


def test_a_run_that_waits_goes_on_for_a_reader_who_has_all_of_it() -> None:
    """It was read at another server while the store was away, so that this one had not heard how far."""

    async def at_once(call: Call, tape: Tape) -> None:
        await tape.push(Started(call.id))
        await tape.tokens(WORDS)
        await tape.push(Predicted({"answer": WORDS}))

    with serving(qa(at_once)) as live:
        run = start(live)
        until(lambda: bool(live.service.tapes) and live.service.tapes[0].waits)
        waits_at = live.service.tapes[0].pushed
        events = read(live, run, f"{run}:{waits_at}")
    assert int(events[0][1].rpartition(":")[2]) == waits_at + 1
    assert WORDS.endswith(joined(events))
    assert events[-1][0] == "done"


def test_a_failure_waits_for_the_reader() -> None:
    async def script(call: Call, tape: Tape) -> None:
        await tape.push(Started(call.id))
        raise LMFailed("the LM is down")

    with serving(qa(script)) as live:
        run = start(live)
        events = read(live, run)
        assert http.get(f"{live.url}/runs/{run}/events", headers={"Last-Event-ID": events[-1][1]}).status_code == 204
    assert [n for n, _, _ in events] == ["started", "error", "done"]


def test_delete_cancels_a_run_and_its_reader_sees_it() -> None:
    async def endless(call: Call, tape: Tape) -> None:
        await tape.push(Started(call.id))
        await asyncio.sleep(60)

    with serving(qa(endless)) as live:
        run = start(live)
        until(lambda: len(live.app.runs) == 1)
        reply = http.delete(f"{live.url}/runs/{run}")
        assert reply.status_code == 202
        assert [n for n, _, _ in read(live, run)] == ["started", "error", "done"]


def test_delete_cancels_a_run_of_another_door() -> None:
    async def endless(call: Call, tape: Tape) -> None:
        await tape.push(Started(call.id))
        await asyncio.sleep(60)

    with serving(qa(endless)) as live:
        with http.stream("POST", live.url + "/predict/stream", json={"question": "x"}) as reply:
            assert http.delete(f"{live.url}/runs/{reply.headers['x-run-id']}").status_code == 202
            events = sse(reply.read().decode())
        assert [n for n, _, _ in events] == ["started", "error", "done"]
        assert events[1][2]["error"]["type"] == "cancelled"


def test_the_newest_reader_takes_over() -> None:
    may_end: list[asyncio.Event] = []

    async def script(call: Call, tape: Tape) -> None:
        may_end.append(asyncio.Event())
        await tape.push(Started(call.id))
        await may_end[0].wait()
        await tape.push(Predicted({"answer": ""}))

    with serving(qa(script)) as live:
        url = f"{live.url}/runs/{start(live)}/events"
        with http.stream("GET", url) as old, http.stream("GET", url) as new:
            rest_of_old, rest_of_new = old.iter_text(), new.iter_text()
            assert "started" in next(rest_of_old)
            text = next(rest_of_new)
            assert "".join(rest_of_old) == ""
            live.loop.call_soon_threadsafe(may_end[0].set)
            text += "".join(rest_of_new)
    assert [n for n, _, _ in sse(text)] == ["started", "prediction", "done"]


def test_old_events_are_let_go_and_asking_for_them_says_so() -> None:
    async def large(call: Call, tape: Tape) -> None:
        await tape.push(Started(call.id))
        for _ in range(40):
            await tape.push(Token("x" * 100_000, "answer", "predict", 1))
        await tape.push(Predicted({"answer": ""}))

    with serving(qa(large)) as live:
        run = start(live)
        assert len(joined(read(live, run))) == 4_000_000
        reply = http.get(f"{live.url}/runs/{run}/events")
        kept = read(live, run, f"{run}:40")
    assert reply.status_code == 410
    assert reply.json()["error"]["type"] == "gone"
    assert kept[-1][0] == "done"


def test_ids_that_make_no_sense() -> None:
    with serving(qa(words)) as live:
        run = start(live)
        url = f"{live.url}/runs/{run}/events"
        assert http.get(url, headers={"Last-Event-ID": "nonsense"}).status_code == 400
        assert http.get(url, headers={"Last-Event-ID": "abc:1"}).status_code == 400
        assert http.get(live.url + "/runs/abc/events").status_code == 404
        assert http.delete(live.url + "/runs/abc").status_code == 404
        assert joined(read(live, run)) == WORDS


def test_a_run_that_finds_no_room_is_refused_at_its_start() -> None:
    with serving(qa(words), max_active=1) as live:
        start(live)
        reply = http.post(live.url + "/runs", json={"question": "x"})
    assert reply.status_code == 503
    assert reply.json()["error"]["type"] == "overloaded"


def test_a_head_request_takes_no_events_from_the_reader() -> None:
    with serving(qa(words)) as live:
        run = start(live)
        with http.stream("GET", f"{live.url}/runs/{run}/events") as reply:
            assert http.head(f"{live.url}/runs/{run}/events").headers["content-type"].startswith("text/event-stream")
            events = sse(reply.read().decode())
    assert events[-1][0] == "done"
    assert joined(events) == WORDS
