"""Through a balancer to two servers: every door answers, and a run goes on at another server than it began on."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from tests.network.site import Site
from tests.support.until import async_until
from websockets.asyncio.client import connect

from dspy_live.client import AsyncClient
from dspy_live.core.events import Token

WHOLE = "[sim tps=100 length=20] tell me"
LONG = "[sim tps=60 length=90] tell me more"


@pytest.mark.parametrize("balancer", ["nginx", "haproxy"])
async def test_every_door_answers_through_a_balancer_and_both_servers_take_part(site: Site, balancer: str) -> None:
    client = AsyncClient(getattr(site, balancer))
    before = [server.stats()["succeeded"] for server in site.servers]
    for number in itertools.count():
        asked = f"question {number}"
        whole = (await client.predict(question=asked))["answer"]
        async with client.stream(question=asked) as run:
            assert "".join([text async for text in run.text("answer")]) == whole
        async with client.socket() as socket, socket.start(question=asked) as run:
            assert "".join([text async for text in run.text("answer")]) == whole
        assert await _said_plainly(getattr(site, balancer), asked) == whole
        if all(server.stats()["succeeded"] > count for server, count in zip(site.servers, before, strict=True)):
            return
        assert number < 20, "one server has answered everything"


async def _said_plainly(url: str, question: str) -> str:
    words = []
    async with connect(url.replace("http", "ws") + "/ws") as socket:
        await socket.send(question)
        while (word := await socket.recv()) != "[DONE]":
            words.append(str(word))
    return "".join(words)


@pytest.mark.parametrize("balancer", ["nginx", "haproxy"])
async def test_a_run_is_read_on_and_cancelled_at_whichever_server_the_balancer_chooses(
    site: Site, balancer: str
) -> None:
    client = AsyncClient(getattr(site, balancer))
    for server in site.servers:  # the run is in this one
        run_id = await _left_running(AsyncClient(server.url), WHOLE)
        whole = await AsyncClient(server.url).predict(question=WHOLE)
        for _ in range(4):
            async with client.resume(run_id) as again:
                assert "".join([text async for text in again.text("answer")]) == whole["answer"]
    await AsyncClient(site.two.url).cancel(await _left_running(AsyncClient(site.one.url), LONG))
    await async_until(lambda: not site.one.active)


async def test_runs_go_on_without_a_gap_at_the_other_server_when_their_own_is_cut_off_from_the_balancers(
    site: Site,
) -> None:
    whole = await AsyncClient(site.two.url).predict(question=LONG)
    first_words = asyncio.Event()

    async def resumed(url: str) -> str:
        words: list[str] = []
        async with AsyncClient(url).resume(await _left_running(AsyncClient(site.one.url), LONG)) as run:
            async for event in run:
                if isinstance(event, Token):
                    words.append(event.text)
                    first_words.set()
        return "".join(words)

    reading = asyncio.gather(resumed(site.nginx), resumed(site.haproxy))
    await first_words.wait()
    site.one.host.cut_off(site.balancer)
    assert list(await reading) == [whole["answer"]] * 2


async def _left_running(client: AsyncClient, question: str) -> str:
    """Start a run, leave it to be read later, and return its id."""
    run = client.start(question=question)
    async with run:
        await anext(run)
        run.detach()
    return run.id
