"""What takes a minute by design: machines vanish while nobody has anything to say. ``make network`` runs it."""

from __future__ import annotations

import asyncio
import json
import time

import pytest
from tests.network.site import Site
from tests.support.until import async_until
from websockets.asyncio.client import connect

from dspy_live.client import AsyncClient
from dspy_live.core.errors import LMFailed

pytestmark = [pytest.mark.network, pytest.mark.timeout(300)]
A_MINUTE_AND_MORE = 120.0


async def test_a_server_ends_the_run_of_a_client_that_vanished_in_silence(site: Site) -> None:
    """For a plain request nothing is on its way, so that only a question of the kernel's tells."""
    asked = asyncio.create_task(AsyncClient(site.one.url).predict(question="[sim ttft=200] think"))
    await async_until(lambda: site.lm.stats.active == 1)
    site.client.cut_off(site.one.host)
    began = time.monotonic()
    await async_until(lambda: site.lm.stats.disconnects == 1, A_MINUTE_AND_MORE)
    print(f"the LM's connection was closed after {time.monotonic() - began:.0f} s")
    asked.cancel()


async def test_a_server_ends_the_run_of_a_websocket_whose_client_vanished(site: Site) -> None:
    async with connect(site.one.url.replace("http", "ws") + "/ws", ping_interval=None, close_timeout=0.1) as socket:
        await socket.send("[sim ttft=200] think")
        await async_until(lambda: site.lm.stats.active == 1)
        site.client.cut_off(site.one.host)
        began = time.monotonic()
        await async_until(lambda: site.lm.stats.disconnects == 1, A_MINUTE_AND_MORE)
        print(f"the LM's connection was closed after {time.monotonic() - began:.0f} s")


@pytest.mark.parametrize("kept", [False, True], ids=["in the middle of its thought", "on a kept connection"])
async def test_an_lm_that_vanishes_before_its_first_word_fails_the_run(site: Site, kept: bool) -> None:
    """No timeout is set that would count: an LM may think for as long as its machine is there."""
    client = AsyncClient(site.one.url)
    if kept:
        await client.predict(question="Are you there?")
        site.one.host.cut_off(site.model)
    asked = asyncio.create_task(client.predict(question="[sim ttft=200] think"))
    if not kept:
        await async_until(lambda: site.lm.stats.active == 1)
        site.one.host.cut_off(site.model)
    began = time.monotonic()
    with pytest.raises(LMFailed):
        await asked
    print(f"502 after {time.monotonic() - began:.0f} s")


async def test_a_server_whose_ledger_vanished_says_so(site: Site) -> None:
    await AsyncClient(site.one.url).predict(question="Who pays?")
    site.one.host.cut_off(site.postgres)
    began = time.monotonic()
    status, body = await asyncio.to_thread(site.ask, site.one.url, "/usage", A_MINUTE_AND_MORE)
    assert (status, json.loads(body)["error"]["type"]) == (503, "ledger_down")
    print(f"503 after {time.monotonic() - began:.0f} s")
