"""Redis, PostgreSQL or the LM can't be reached: what users of two servers see meanwhile, and that it heals itself."""

from __future__ import annotations

import json

import pytest
from tests.network.site import Server, Site
from tests.support.until import async_until

from dspy_live.client import AsyncClient
from dspy_live.client.errors import RemoteError
from dspy_live.core.errors import DeadlineExceeded, LMTimeout
from dspy_live.core.events import Token

LONG = "[sim tps=20 length=20000] tell me more"


def limited(server: Server) -> AsyncClient:
    """A client of the program that runs once at a time on all servers together; others wait."""
    return AsyncClient(server.url, program="limited")


async def lets_in(server: Server, within: float) -> bool:
    """True where a server answers, within so many seconds, though another one has the only run."""
    try:
        return bool((await limited(server).predict(question="Why?", timeout=within))["answer"])
    except DeadlineExceeded:
        return False


async def test_servers_share_a_limit_until_one_is_cut_off_from_redis_and_again_when_it_is_back(site: Site) -> None:
    async with limited(site.two).stream(question="[sim tps=20 length=20000] do not end") as run:
        await anext(run)
        assert not await lets_in(site.one, within=0.5)
        site.one.host.cut_off(site.redis)
        assert await lets_in(site.one, within=30)  # for itself: a broken store stops no answer
        site.one.host.cut_off()
        while await lets_in(site.one, within=0.5):
            pass


async def test_without_redis_what_runs_goes_on_and_nobody_is_refused(site: Site) -> None:
    async with AsyncClient(site.one.url).stream(question="[sim tps=20 length=20] go on") as run:
        await anext(run)
        site.redis.unplug()
        assert (await run.result())["answer"]
    assert all([await lets_in(server, within=30) for server in site.servers])


def counted(site: Site) -> int:
    """Runs of the program that no other test uses, as the ledger knows them by way of server two."""
    status, body = site.ask(site.two.url, "/usage?program=counted")
    assert status == 200, body
    return int(json.loads(body)["runs"])


async def test_what_runs_while_the_ledger_is_cut_off_is_written_when_it_is_back(site: Site) -> None:
    client = AsyncClient(site.one.url, program="counted")
    await client.predict(question="before")
    await async_until(lambda: counted(site) == 1)
    site.one.host.cut_off(site.postgres)
    for number in range(5):
        assert (await client.predict(question=f"meanwhile {number}"))["answer"]
    assert counted(site) == 1
    site.one.host.cut_off()
    await async_until(lambda: counted(site) == 6)


def turns(site: Site, session: str) -> int:
    """Turns of a conversation, as the server that was cut off tells it."""
    status, body = site.ask(site.one.url, f"/sessions/{session}")
    return len(json.loads(body)["turns"]) if status == 200 else 0


async def test_conversations_answer_503_while_their_store_is_cut_off(site: Site) -> None:
    one, two = (AsyncClient(server.url, program="chat") for server in site.servers)
    assert (await one.predict(question="first", session="alice"))["answer"]
    assert (await two.predict(question="second", session="alice"))["answer"]  # begun at the other server
    site.one.host.cut_off(site.postgres)
    with pytest.raises(RemoteError) as refused:
        await one.predict(question="third", session="alice")
    assert refused.value.details["type"] == "sessions_down"
    assert (await two.predict(question="third", session="alice"))["answer"]
    site.one.host.cut_off()

    await async_until(lambda: turns(site, "alice") == 3)


async def test_a_reply_of_an_lm_that_vanishes_ends_with_an_error(site: Site) -> None:
    client = AsyncClient(site.one.url)
    async with client.stream(question=LONG) as run:
        while not isinstance(await anext(run), Token):
            pass
        site.one.host.cut_off(site.model)
        with pytest.raises(LMTimeout):  # idle_timeout of [lm]
            await run.result()
    site.one.host.cut_off()
    assert (await client.predict(question="Are you back?"))["answer"]
