"""What each key may do and use, over a socket: programs, scopes, rate, concurrency, quotas by day and month."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.server.support import QA, Live, Scripted, Tape, answer, http, serving, until
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from dspy_live.core.call import Call
from dspy_live.core.errors import ConfigurationError
from dspy_live.core.events import Predicted, Started
from dspy_live.core.usage import Expected, LMRecord, LMUsage
from dspy_live.runtime.books.account import Account
from dspy_live.server import ServedProgram, create_app
from dspy_live.server.keys.bookkeeper import Bookkeeper
from dspy_live.server.keys.key import SCOPES, Key, Quota
from dspy_live.server.keys.periods import seconds_left, stamp
from dspy_live.server.keys.quota import Spent
from dspy_live.server.keys.store import KeyStore
from dspy_live.server.keys.token import digest_of, is_digest, make_key
from dspy_live.server.transport.auth import Keys

NOON = 1_795_262_400.0  # 2026-11-21 12:00 UTC


class Clock:
    """The time of day, which a test sets."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


def key(name: str = "ada", **limits: Any) -> Key:
    return Key(name=name, digest=digest_of(f"{name}-key"), **limits)


def of(name: str = "ada") -> dict[str, str]:
    return {"Authorization": f"Bearer {name}-key"}


async def paid(call: Call, tape: Tape) -> None:
    """One LM call of 100 tokens for 40 cents, which the call's meters are asked for and told of."""
    account = Account()
    usage = LMUsage(60, 40, 100)
    admitted = account.admit(call.meters, lambda: Expected("m", usage, 0.4))
    account.record(LMRecord(model="m", usage=usage, cost=0.4), admitted)
    await tape.push(Started(call.id), Predicted({"reasoning": "", "answer": "x"}))


@contextmanager
def served(keys: Keys, script: Any = answer, names: tuple[str, ...] = ("qa",)) -> Iterator[Live]:
    programs = {name: ServedProgram(name, Scripted(script), QA) for name in names}
    with serving(create_app(programs, api_keys=keys)) as live:
        yield live


def ask(live: Live, name: str = "ada", path: str = "/predict") -> Any:
    return http.post(live.url + path, json={"question": "x"}, headers=of(name))


def limits(reply: Any) -> tuple[int, int, int]:
    limit, remaining, reset = (int(reply.headers[f"x-ratelimit-{n}"]) for n in ("limit", "remaining", "reset"))
    return limit, remaining, reset


def test_a_key_is_held_to_its_requests_per_minute() -> None:
    with served(Keys([key(requests_per_minute=2), key("bob")])) as live:
        first, second, third = ask(live), ask(live), ask(live)
        assert [one.status_code for one in (first, second, third)] == [200, 200, 429]
        assert [limits(one)[:2] for one in (first, second, third)] == [(2, 1), (2, 0), (2, 0)]
        assert 0 < limits(first)[2] <= 60
        assert 1 <= int(third.headers["retry-after"]) <= 60
        error = third.json()["error"]
        assert error["type"] == "rate_limited"
        assert error["message"].startswith("the key 'ada' may have 2 requests per minute")
        assert third.headers.get_list("x-ratelimit-limit") == ["2"]
        other = ask(live, "bob")
        assert other.status_code == 200
        assert "x-ratelimit-limit" not in other.headers
        assert live.app.runs.statistics()["refused"] == 1


def test_each_door_is_counted_by_the_same_limit() -> None:
    with served(Keys([key(requests_per_minute=3)])) as live:
        stream = ask(live, path="/predict/stream")
        assert limits(stream)[:2] == (3, 2)
        assert ask(live, path="/runs").status_code == 201
        with connect(live.ws + "/ws", additional_headers=of()) as socket:
            socket.send("why?")
            assert socket.recv() == "You "
        chat = {"model": "qa", "messages": [{"role": "user", "content": "x"}]}
        reply = http.post(live.url + "/v1/chat/completions", json=chat, headers=of())
        assert reply.status_code == 429
        assert reply.json()["error"]["type"] == "rate_limit_error"
        assert ask(live, path="/predict/stream").status_code == 429
        assert ask(live, path="/runs").status_code == 429


def test_a_key_is_held_to_its_runs_at_once_and_a_place_is_free_when_the_run_has_ended() -> None:
    go = threading.Event()

    async def waits(call: Call, tape: Tape) -> None:
        await asyncio.to_thread(go.wait, 60)
        await answer(call, tape)

    with served(Keys([key(concurrency=1), key("bob", concurrency=1)]), waits) as live, ThreadPoolExecutor() as pool:
        first = pool.submit(ask, live)
        until(lambda: len(live.app.runs) == 1)
        refused = ask(live)
        assert refused.status_code == 429
        assert refused.headers["retry-after"] == "1"
        assert "1 runs at once, and 1 are under way" in refused.json()["error"]["message"]
        other = pool.submit(ask, live, "bob")
        until(lambda: len(live.app.runs) == 2)
        go.set()
        assert first.result().status_code == other.result().status_code == 200
        assert ask(live).status_code == 200


def test_tokens_per_minute_are_counted_when_they_are_known() -> None:
    with served(Keys([key(tokens_per_minute=150)]), paid) as live:
        assert [ask(live).status_code for _ in range(3)] == [200, 200, 429]


def test_a_quota_of_the_day_begins_anew_at_midnight_and_one_of_the_month_does_not() -> None:
    clock = Clock()
    keys = Keys([key(day=Quota(max_cost=0.8), month=Quota(max_calls=3))], clock=clock)
    with served(keys, paid) as live:
        assert [ask(live).status_code for _ in range(3)] == [200, 200, 429]
        refused = ask(live)
        assert refused.json()["error"]["type"] == "quota_exceeded"
        assert refused.json()["error"]["message"] == "the key 'ada': $0.8000 of $0.8000 in this day (UTC) are used"
        assert refused.headers["retry-after"] == str(12 * 3600)
        assert limits(refused)[1:] == (0, 12 * 3600)
        clock.now += 12 * 3600
        assert [ask(live).status_code for _ in range(2)] == [200, 429]
        assert "3 LM calls of 3 LM calls in this month" in ask(live).json()["error"]["message"]
        clock.now += 20 * 86_400
        assert ask(live).status_code == 200


def test_a_call_that_would_pass_the_quota_is_refused_inside_of_a_run() -> None:
    with served(Keys([key(day=Quota(max_cost=0.5))], clock=Clock()), paid) as live:
        assert ask(live).status_code == 200
        refused = ask(live)
        assert refused.status_code == 429
        assert "this call, with those under way, might take more than the rest" in refused.json()["error"]["message"]


def test_a_key_runs_its_programs_only_and_sees_no_others() -> None:
    with served(Keys([key(programs=("qa", "b")), key("bob")]), names=("qa", "b", "c")) as live:
        assert ask(live, path="/programs/b/predict").status_code == 200
        hidden = ask(live, path="/programs/c/predict")
        assert hidden.status_code == 404
        assert hidden.json()["error"]["message"] == "no program 'c' for this key, which may run 'qa', 'b'"
        none = ask(live, path="/programs/none/predict").json()["error"]["message"]
        assert none == "no program 'none' for this key, which may run 'qa', 'b'", "nobody learns that there is one"
        with pytest.raises(InvalidStatus) as refused:
            connect(live.ws + "/programs/c/ws", additional_headers=of())
        assert refused.value.response.status_code == 404
        with connect(live.ws + "/ws", additional_headers=of()) as socket:
            socket.send(json.dumps({"type": "start", "id": "1", "program": "none", "inputs": {"question": "x"}}))
            assert "for this key, which may run 'qa', 'b'" in str(socket.recv())
        assert ask(live, "bob", path="/programs/c/predict").status_code == 200
        listed = http.get(live.url + "/programs", headers=of()).json()["programs"]
        assert [program["name"] for program in listed] == ["qa", "b"]
        models = http.get(live.url + "/v1/models", headers=of()).json()["data"]
        assert [model["id"] for model in models] == ["qa", "b"]
        for path in ("/programs/c", "/v1/models/c"):
            assert http.get(live.url + path, headers=of()).status_code == 404
            assert http.get(live.url + path, headers=of("bob")).status_code == 200
        for name, there in (("ada", False), ("bob", True), ("ada", False)):
            document = http.get(live.url + "/openapi.json", headers=of(name)).text
            assert ('"c"' in document or "/programs/c/" in document) is there


def test_a_key_without_a_program_of_this_server_is_told_so() -> None:
    with served(Keys([key(programs=("gone",))])) as live:
        assert http.get(live.url + "/openapi.json", headers=of()).status_code == 404
        assert http.get(live.url + "/programs", headers=of()).json()["programs"] == []
        assert ask(live).json()["error"]["message"] == "no program 'qa' for this key, which may run 'gone'"


def test_a_key_does_what_its_scopes_say() -> None:
    keys = [key(), key("scraper", scopes=("metrics",)), key("root", scopes=SCOPES)]
    asked: list[Any] = []
    programs = {"qa": ServedProgram("qa", Scripted(answer), QA)}
    with serving(create_app(programs, api_keys=Keys(keys), usage=lambda query: asked.append(dict(query)))) as live:
        assert http.get(live.url + "/metrics", headers=of()).status_code == 403
        assert http.get(live.url + "/metrics", headers=of("scraper")).status_code == 200
        assert http.get(live.url + "/stats", headers=of("root")).status_code == 200
        refused = ask(live, "scraper")
        assert refused.status_code == 403
        assert refused.json()["error"]["message"] == "the key 'scraper' has not the scope 'run'; it has metrics"
        assert http.get(live.url + "/usage", headers=of("scraper")).status_code == 403
        for name in ("ada", "root"):
            assert http.get(live.url + "/usage?key=other", headers=of(name)).status_code == 200
        assert asked == [{"key": "ada"}, {"key": "other"}], "its own usage, or with the scope anybody's"


def test_keys_change_while_the_server_runs_and_their_usage_counts_on() -> None:
    keys = Keys([key(requests_per_minute=2), key("bob")])
    with served(keys) as live, connect(live.ws + "/ws", additional_headers=of("bob")) as open_socket:
        assert ask(live).status_code == 200
        live.loop.call_soon_threadsafe(keys.replace, [key(requests_per_minute=2, programs=("qa",)), key("eve")])
        until(lambda: ask(live, "eve").status_code == 200)
        assert ask(live, "bob").status_code == 401
        open_socket.send("why?")
        with pytest.raises(Exception, match="unauthorized"):
            open_socket.recv()
        assert limits(ask(live))[:2] == (2, 0)
        assert ask(live).status_code == 429
        live.loop.call_soon_threadsafe(keys.replace, [])
        until(lambda: ask(live).status_code == 401)
        assert http.post(live.url + "/predict", json={"question": "x"}).status_code == 401, "it stays closed"


def test_usage_of_keys_outlives_the_process(tmp_path: Path) -> None:
    limited = key(requests_per_minute=5, day=Quota(max_calls=3), month=Quota(max_calls=10))
    clock = Clock()

    def ask_some(count: int) -> list[int]:
        with closing(KeyStore(tmp_path / "keys.db")) as store, closing(Bookkeeper(store, clock=clock)) as bookkeeper:
            keys = Keys([limited, key("bob", requests_per_minute=1)], bookkeeper=bookkeeper, clock=clock)
            with served(keys, paid) as live:
                return [ask(live).status_code for _ in range(count)]

    assert ask_some(2) == [200, 200]
    assert ask_some(2) == [200, 429]
    with closing(KeyStore(tmp_path / "keys.db")) as store:
        assert store.spent("ada", stamp("month", NOON))["calls"] == 3
        assert sum(amount for _, amount in store.last_minute("ada", "requests", NOON)) == 3
        assert store.last_minute("bob", "requests", NOON) == []


def test_two_processes_share_a_quota_through_the_file(tmp_path: Path) -> None:
    limited = key(day=Quota(max_calls=3))
    with closing(KeyStore(tmp_path / "k.db")) as one, closing(KeyStore(tmp_path / "k.db")) as two:
        clock = Clock()
        with closing(Bookkeeper(one, clock=clock)) as first, closing(Bookkeeper(two, clock=clock)) as second:
            with (
                served(Keys([limited], bookkeeper=first, clock=clock), paid) as a,
                served(Keys([limited], bookkeeper=second, clock=clock), paid) as b,
            ):
                assert [ask(a).status_code for _ in range(2)] == [200, 200]
                first.write()
                assert ask(b).status_code == 200
                second.write()
                assert ask(b).status_code == 429


def test_a_failing_store_holds_no_request_up_and_is_told_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = KeyStore(tmp_path / "k.db")
    bookkeeper = Bookkeeper(store, clock=Clock())
    keys = Keys([key(day=Quota(max_calls=5))], bookkeeper=bookkeeper, clock=Clock())
    with served(keys, paid) as live:
        store.close()
        assert ask(live).status_code == 200
        bookkeeper.write()
        assert "the usage of keys waits" in caplog.text
        bookkeeper.store = KeyStore(tmp_path / "k.db")
        bookkeeper.write()
        assert bookkeeper.store.spent("ada", "2026-11-21")["calls"] == 1
    bookkeeper.close()
    bookkeeper.store.close()


def test_the_file_keeps_hashes_and_no_keys(tmp_path: Path) -> None:
    secret = make_key()
    assert secret.startswith("sk-dl-")
    assert len(secret) == 6 + 43
    path = tmp_path / "sub" / "keys.db"
    with closing(KeyStore(path)) as store:
        store.add(Key(name="ada", digest=digest_of(secret), day=Quota(max_cost=1.0)))
        assert path.stat().st_mode & 0o077 == 0
        (stored,) = store.all()
        assert stored.key.digest == digest_of(secret)
        assert stored.key.day == Quota(max_cost=1.0)
        with pytest.raises(ConfigurationError, match="there is a key 'ada' already"):
            store.add(key("ada"))
        assert store.revoke("ada")
        assert not store.revoke("ada")
        store.add(key("ada"))
        assert [one.revoked is None for one in store.all()] == [False, True]
    assert all(secret.encode() not in one.read_bytes() for one in path.parent.iterdir())


@pytest.mark.parametrize("content", [b"no database at all" * 100, None])
def test_a_file_that_is_none_of_keys_is_told(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "x.db"
    if content is None:
        import sqlite3

        with closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE other (a)")
    else:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError, match="is no file of keys"):
        KeyStore(path)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"name": "a b"}, "a key's name is"),
        ({"digest": "secret"}, "has no hash"),
        ({"scopes": ("admin",)}, "has the scope 'admin'"),
        ({"requests_per_minute": 0}, "requests_per_minute must be"),
        ({"concurrency": 0}, "concurrency must be"),
    ],
)
def test_a_key_that_cannot_be(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        Key(**{"name": "a", "digest": digest_of("x"), **wrong})
    with pytest.raises(ConfigurationError, match="a quota needs"):
        Quota()
    assert is_digest(digest_of("x"))
    assert not is_digest(digest_of("x")[:-1])


def test_two_keys_of_one_name_or_one_secret_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="two keys are called 'ada'"):
        Keys([key(), key()])
    with pytest.raises(ConfigurationError, match="'ada' and 'bob' are the same"):
        Keys([key(), Key(name="bob", digest=digest_of("ada-key"))])


def test_days_and_months_end_in_utc() -> None:
    assert stamp("day", NOON) == "2026-11-21"
    assert stamp("month", NOON) == "2026-11"
    assert seconds_left("day", NOON) == 12 * 3600
    assert seconds_left("month", NOON) == 9.5 * 86_400
    assert seconds_left("month", NOON + 30 * 86_400) == 10.5 * 86_400


def test_a_full_disk_is_told_as_one_and_the_file_of_keys_goes_on_after_it(tmp_path: Path) -> None:
    with closing(KeyStore(tmp_path / "k.db")) as store:
        (used,) = store._connection.execute("PRAGMA page_count").fetchone()
        store._connection.execute(f"PRAGMA max_page_count = {used}")
        used_up: Spent = {"cost": 1.0, "tokens": 1, "calls": 1}
        many = {(f"key {n}", "2026-11"): used_up for n in range(10_000)}
        with pytest.raises(sqlite3.OperationalError, match="database or disk is full"):
            store.spend(many)
        store._connection.execute("PRAGMA max_page_count = 100000")
        store.spend({("after", "2026-11"): {"cost": 2.0, "tokens": 3, "calls": 4}})
        assert store.spent("after", "2026-11") == {"cost": 2.0, "tokens": 3, "calls": 4}
