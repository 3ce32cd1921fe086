"""The client's line is long, slow or lossy, or its machine vanishes: what it sees, and when the LM stops."""

from __future__ import annotations

import asyncio

import pytest
from tests.network.site import LITTLE_ROOM, Site
from tests.support.until import async_until

from dspy_live.client import AsyncClient
from dspy_live.client.errors import ConnectionLost
from dspy_live.core.call import Buffer
from dspy_live.runtime import vanished

QUESTION = "[sim tps=100 length=60] tell me"


@pytest.mark.parametrize(
    ("balancer", "delay", "loss"), [("nginx", 0.1, 0.0), ("haproxy", 0.01, 0.05)], ids=["delay", "loss"]
)
async def test_every_word_comes_in_its_order_over_a_line_with(
    site: Site, balancer: str, delay: float, loss: float
) -> None:
    whole = (await AsyncClient(site.two.url).predict(question=QUESTION))["answer"]
    site.balancer.set(tcp_retries2=15)
    assert site.client.wire is not None
    site.client.wire.delay, site.client.wire.loss = delay, loss
    client = AsyncClient(getattr(site, balancer))
    async with client.stream(question=QUESTION) as run:
        assert "".join([text async for text in run.text("answer")]) == whole
    async with client.socket() as socket, socket.start(question=QUESTION) as run:
        assert "".join([text async for text in run.text("answer")]) == whole


async def test_a_slow_line_slows_the_lm_down_and_nothing_is_lost(site: Site) -> None:
    site.client.set(**LITTLE_ROOM)
    assert site.client.wire is not None
    site.client.wire.speed = 50_000
    text, finished = "", []
    async with AsyncClient(site.one.url).stream(
        question="[sim length=15000 tps=1000000] all", buffer=Buffer(16)
    ) as run:
        async for more in run.text("answer"):
            text += more
            finished.append((len(text), site.lm.stats.finished))
    assert run.reply is not None
    assert text == run.reply["answer"]
    assert [size for size, ended in finished if not ended][-1] > len(text) / 4, "the LM was not held up"


async def test_the_run_of_a_client_that_vanished_ends_and_the_lm_stops(site: Site) -> None:
    question = "[sim tps=20 length=20000] tell me"
    by_nginx, by_haproxy = AsyncClient(site.nginx), AsyncClient(site.haproxy)
    async with by_nginx.stream(question=question) as one, by_haproxy.stream(question=question) as other:
        for run in (one, other):
            await anext(run)
        site.client.cut_off(site.balancer)
        await async_until(lambda: site.lm.stats.disconnects == 2)
        site.client.cut_off()


async def test_a_client_learns_that_its_server_has_vanished(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vanished, "TAKEN_IN", 2)
    for name in ("ASK_AFTER", "ASK_AGAIN"):
        monkeypatch.setattr(vanished, name, 1)
    client = AsyncClient(site.one.url, idle=None)  # a connection to an LM is made in the same way
    slow = asyncio.create_task(client.predict(question="[sim ttft=600] think"))
    await async_until(lambda: site.lm.stats.active == 1)
    site.client.cut_off(site.one.host)
    with pytest.raises(ConnectionLost):
        await slow
