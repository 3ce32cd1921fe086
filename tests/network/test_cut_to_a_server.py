"""The cable between the balancer and a server is cut, without a word to either: what the clients see."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from tests.network.site import Server, Site
from tests.support.until import async_until

from dspy_live.client import AsyncClient
from dspy_live.client.errors import ConnectionLost
from dspy_live.client.run import RemoteRun

LONG = "[sim tps=20 length=20000] tell me more"
BALANCERS = pytest.mark.parametrize("balancer", ["nginx", "haproxy"])


@contextlib.asynccontextmanager
async def stream_from(server: Server, client: AsyncClient) -> AsyncIterator[RemoteRun]:
    """A stream through a balancer that this server answers: it is asked again until it has chosen this one."""
    for _ in range(20):
        async with client.stream(question=LONG) as run:
            await anext(run)
            if server.active:
                yield run
                return
        await async_until(lambda: not server.active)
    raise AssertionError(f"the balancer never chose {server.url}")


@BALANCERS
async def test_a_stream_ends_and_a_new_one_comes_from_the_other_server(site: Site, balancer: str) -> None:
    client = AsyncClient(getattr(site, balancer), idle=None)  # it would wait for ever
    async with stream_from(site.one, client) as run:
        site.one.host.cut_off(site.balancer)
        with pytest.raises(ConnectionLost):
            async for _ in run:
                pass
    before = site.two.stats()["succeeded"]
    assert (await client.predict(question="Who is there?"))["answer"]
    assert site.two.stats()["succeeded"] == before + 1


@BALANCERS
async def test_requests_on_connections_that_were_kept_for_a_server_that_vanished_get_an_answer(
    site: Site, balancer: str
) -> None:
    client = AsyncClient(getattr(site, balancer))
    question = "[sim tps=20 length=5] what?"  # all are under way together, so that both servers have some of them
    await asyncio.gather(*(client.predict(question=question) for _ in range(12)))
    site.one.host.cut_off(site.balancer)
    outcomes = await asyncio.gather(*(client.predict(question=question) for _ in range(12)), return_exceptions=True)
    assert not [outcome for outcome in outcomes if isinstance(outcome, BaseException)]


async def test_a_run_whose_balancer_has_vanished_ends_and_the_lm_stops(site: Site) -> None:
    site.one.host.set(tcp_retries2=2)  # 15 by default, which is a quarter of an hour
    async with stream_from(site.one, AsyncClient(site.nginx)):
        site.one.host.cut_off(site.balancer)
        await async_until(lambda: site.lm.stats.disconnects == 1)
        await async_until(lambda: not site.one.active)
