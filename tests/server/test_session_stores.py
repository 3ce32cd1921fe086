"""What every store of conversations must do, whoever else writes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from dspy_live.core.errors import ConfigurationError
from dspy_live.server.sessions import SessionStore, Turn, open_sessions
from dspy_live.server.sessions.memory import MemorySessions
from dspy_live.server.sessions.postgres import PostgresSessions
from dspy_live.server.sessions.redis import RedisSessions
from dspy_live.server.sessions.sqlite import SqliteSessions

KINDS = ["memory", "sqlite", "redis", "postgres"]


def address_of(kind: str, request: pytest.FixtureRequest, path: Path) -> str:
    if kind == "redis":
        return str(request.getfixturevalue("redis_url"))
    if kind == "postgres":
        return str(request.getfixturevalue("postgres_url"))
    return "memory" if kind == "memory" else str(path / "sessions.db")


@pytest_asyncio.fixture(params=KINDS)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SessionStore]:
    made = open_sessions(address_of(request.param, request, tmp_path))
    yield made
    await made.aclose()


def turn(name: str, at: float, *texts: str) -> Turn:
    return Turn(name, at, [{"question": text, "answer": f"{text}!"} for text in texts or (name,)])


async def test_a_conversation_is_kept_as_it_was(store: SessionStore) -> None:
    assert await store.load("k", "s") is None
    odd = Turn("1", 1.5, [{"question": 'é "\\ \u2028 %s', "n": 1, "list": [None, {"a": True}]}, {"answer": ""}])
    await store.append("k", "s", "qa", [odd], 10)
    await store.append("k", "s", "qa", [turn("2", 2.5), turn("3", 3.5)], 10)
    found = await store.load("k", "s")
    assert found is not None
    assert (found.id, found.program, found.created, found.updated) == ("s", "qa", 1.5, 3.5)
    assert found.turns == [odd, turn("2", 2.5), turn("3", 3.5)]


async def test_keys_have_names_of_their_own(store: SessionStore) -> None:
    for key in ("a", "b", ""):
        await store.append(key, "s:1", "qa", [turn(f"of-{key}", 1.0)], 10)
    await store.append("a", "", "qa", [turn("empty", 1.0)], 10)
    found = await store.load("b", "s:1")
    assert found is not None
    assert [one.id for one in found.turns] == ["of-b"]
    assert await store.session_of("a", "of-a") == "s:1"
    assert await store.session_of("b", "of-a") is None
    assert await store.delete("b", "s:1") is True
    assert await store.load("a", "s:1") is not None
    assert await store.load("b", "s:1") is None


async def test_the_oldest_turns_go(store: SessionStore) -> None:
    for number in range(5):
        await store.append("k", "s", "qa", [turn(str(number), float(number + 1))], 3)
    found = await store.load("k", "s")
    assert found is not None
    assert [one.id for one in found.turns] == ["2", "3", "4"]
    assert found.created == 1.0
    assert [await store.session_of("k", str(number)) for number in range(5)] == [None, None, "s", "s", "s"]
    assert (await store.sessions("k", 10))[0].turns == 3


async def test_the_list_has_the_last_used_first(store: SessionStore) -> None:
    for at, name in enumerate(("x", "y", "z"), 1):
        await store.append("k", name, "qa", [turn(name, float(at))], 10)
    await store.append("k", "x", "qa", [turn("x2", 9.0)], 10)
    await store.append("other", "o", "qa", [turn("o", 5.0)], 10)
    found = await store.sessions("k", 10)
    assert [(one.id, one.turns, one.created, one.updated) for one in found] == [
        ("x", 2, 1.0, 9.0),
        ("z", 1, 3.0, 3.0),
        ("y", 1, 2.0, 2.0),
    ]
    assert [one.id for one in await store.sessions("k", 1)] == ["x"]
    assert [one.id for one in await store.sessions("k", 10, before=3.0)] == ["y"]


async def test_what_is_deleted_leaves_nothing_behind(store: SessionStore) -> None:
    await store.append("k", "s", "qa", [turn("1", 1.0)], 10)
    assert await store.delete("k", "s") is True
    assert await store.delete("k", "s") is False
    assert await store.session_of("k", "1") is None
    assert await store.sessions("k", 10) == []
    await store.append("k", "s", "other", [turn("2", 2.0)], 10)
    found = await store.load("k", "s")
    assert found is not None
    assert (found.program, [one.id for one in found.turns]) == ("other", ["2"])


async def test_what_is_too_old_goes(store: SessionStore) -> None:
    for key in ("a", "b"):
        await store.append(key, "old", "qa", [turn(f"{key}1", 1.0)], 10)
        await store.append(key, "new", "qa", [turn(f"{key}2", 5.0)], 10)
    assert await store.prune(5.0) == 2
    assert [one.id for one in await store.sessions("a", 10)] == ["new"]
    assert await store.session_of("b", "b1") is None
    assert await store.prune(5.0) == 0


async def test_writers_at_once_lose_nothing(store: SessionStore) -> None:
    names = [str(number) for number in range(30)]
    await asyncio.gather(*(store.append("k", "s", "qa", [turn(name, 1.0)], 100) for name in names))
    found = await store.load("k", "s")
    assert found is not None
    assert sorted(one.id for one in found.turns) == sorted(names)


@pytest.mark.parametrize("kind", KINDS[1:])
async def test_two_processes_share_a_store(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    address = address_of(kind, request, tmp_path)
    one, two = open_sessions(address), open_sessions(address)
    names = [str(number) for number in range(20)]
    await asyncio.gather(
        *(
            each.append("k", "s", "qa", [turn(name, 1.0)], 100)
            for name, each in zip(names, [one, two] * 10, strict=True)
        )
    )
    found = await two.load("k", "s")
    assert found is not None
    assert sorted(turn.id for turn in found.turns) == sorted(names)
    await one.aclose()
    again = open_sessions(address)
    assert await again.load("k", "s") == found
    await asyncio.gather(two.aclose(), again.aclose())


@pytest.mark.parametrize(
    "store",
    [RedisSessions("redis://127.0.0.1:1/0"), PostgresSessions("postgresql://x:secret-word@127.0.0.1:1/y")],
    ids=["redis", "postgres"],
)
async def test_a_store_that_is_gone_is_an_os_error(store: Any) -> None:
    for asked in (store.load("k", "s"), store.append("k", "s", "qa", [turn("1", 1.0)], 5), store.sessions("k", 1)):
        with pytest.raises(OSError, match=r"127\.0\.0\.1:1") as gone:
            await asked
        assert "secret-word" not in str(gone.value)


def test_addresses(tmp_path: Path) -> None:
    assert isinstance(open_sessions("memory"), MemorySessions)
    assert isinstance(open_sessions(tmp_path / "new" / "s.db"), SqliteSessions)
    with pytest.raises(ConfigurationError, match="no address of a Redis"):
        open_sessions("redis://host:port")
    (tmp_path / "file").write_text("no database, but some text that is long enough to be one" * 20)
    with pytest.raises(ConfigurationError, match="file"):
        open_sessions(tmp_path / "file")


async def test_memory_is_bounded() -> None:
    store = MemorySessions(most=2)
    for name in ("a", "b", "c"):
        await store.append("k", name, "qa", [turn(name, 1.0)], 5)
    assert {one.id for one in await store.sessions("k", 9)} == {"b", "c"}
    assert await store.session_of("k", "a") is None


async def test_memory_is_bounded_in_bytes() -> None:
    store = MemorySessions(most_bytes=1000)
    for number in range(50):
        await store.append("k", str(number % 7), "qa", [turn(str(number), float(number), "x" * 60)], 2)
    found = await store.sessions("k", 100)
    assert [one.id for one in found] == [str(number % 7) for number in range(49, 49 - len(found), -1)]
    assert 1 < len(found) < 7
    for one in found:
        await store.delete("k", one.id)
    assert store._bytes == 0
    await store.append("k", "large", "qa", [turn("1", 1.0, "x" * 2000)], 2)
    assert await store.load("k", "large") is None
    assert store._bytes == 0
